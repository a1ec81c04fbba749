"""How rows come together before a kernel that computes much more than their bytes tell."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def by_key(frame: DataFrame, *keys: str) -> DataFrame:
    """Rows with equal keys in one partition, in as many partitions as a shuffle has.

    A number that is asked for stays. Without one Spark merges partitions of few bytes, and one
    task may compute for minutes while other cores wait. Rows go by a hash of the keys, not by the
    keys: behind a join on the same keys Spark leaves out a second exchange, and adaptive execution
    then reads the join's as it likes, perhaps in one task, perhaps with equal keys apart.
    """
    number = str(frame.sparkSession.conf.get("spark.sql.shuffle.partitions"))
    hashed = F.xxhash64(*keys)
    # Some platforms choose it themselves, and say `auto`.
    return frame.repartition(int(number), hashed) if number.isdigit() else frame.repartition(hashed)
