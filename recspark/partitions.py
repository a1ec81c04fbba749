"""How rows come together before a kernel that computes much more than their bytes tell."""

from pyspark.sql import DataFrame


def by_key(frame: DataFrame, *keys: str) -> DataFrame:
    """Rows with equal keys in one partition, in as many partitions as a shuffle has.

    A number that is asked for stays. Without one Spark merges partitions of few bytes, and one
    task may compute for minutes while other cores wait.
    """
    number = str(frame.sparkSession.conf.get("spark.sql.shuffle.partitions"))
    # Some platforms choose it themselves, and say `auto`.
    return frame.repartition(int(number), *keys) if number.isdigit() else frame.repartition(*keys)
