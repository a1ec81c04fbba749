"""How rows come together before a kernel."""

from collections import Counter
from itertools import chain
from types import SimpleNamespace

import pyarrow as pa
import pytest
from pyspark import TaskContext
from pyspark.sql import functions as F

from recspark.partitions import by_key


def test_equal_keys_share_a_partition_and_few_rows_are_not_merged_into_one_task(spark, table):
    rows = table("entity:bigint | item:bigint\n1 | 5\n1 | 6\n2 | 7\n3 | 8\n4 | 9\n1 | 7")
    spread = by_key(rows, "entity")
    assert spread.rdd.getNumPartitions() == int(spark.conf.get("spark.sql.shuffle.partitions"))
    together = spread.rdd.glom().map(lambda part: sorted({row.entity for row in part})).collect()
    assert sorted(chain.from_iterable(together)) == [1, 2, 3, 4]


@pytest.fixture
def late_broadcasts(spark):
    """Joins are planned with shuffles, and small sides are broadcast once their size is seen."""
    planned, adaptive = (f"spark.sql.{of}autoBroadcastJoinThreshold" for of in ("", "adaptive."))
    spark.conf.set(planned, "-1")
    spark.conf.set(adaptive, "10MB")
    yield
    spark.conf.unset(planned)
    spark.conf.unset(adaptive)


@pytest.mark.usefixtures("late_broadcasts")
def test_keys_stay_together_behind_a_join_on_them_that_spark_turns_into_a_broadcast(spark):
    # Spark plans a shuffled join, leaves out the exchange that was asked for, and then finds that
    # the right side is small: the left one is read as its three mappers wrote it.
    purchases = spark.range(0, 60, 1, 3).select((F.col("id") % 20).alias("entity"), "id")
    of_each = purchases.groupBy("entity").agg(F.collect_list("id").alias("items"))
    traits = spark.range(20).select(F.col("id").alias("entity"), F.lit(1).alias("trait"))
    joined = purchases.join(of_each, on="entity", how="left").join(traits, on="entity", how="inner")

    def kernel(batches):
        for batch in batches:
            own = [TaskContext.get().partitionId()] * batch.num_rows
            yield pa.record_batch({"entity": batch["entity"], "task": pa.array(own, pa.int32())})

    told = by_key(joined, "entity").mapInArrow(kernel, "entity bigint, task int")
    found = told.groupBy("entity", "task").count().collect()
    assert Counter(row["count"] for row in found) == {3: 20}
    assert len({row["task"] for row in found}) > 1


@pytest.mark.parametrize(("number", "asked"), [("8", [8]), ("auto", [])])
def test_a_platform_that_chooses_the_number_itself_is_left_to_it(number, asked, spark):
    frame = SimpleNamespace(
        sparkSession=SimpleNamespace(conf={"spark.sql.shuffle.partitions": number}),
        repartition=lambda *given: given,
    )
    *found, hashed = by_key(frame, "entity")
    assert found == asked
    assert str(hashed) == str(F.xxhash64("entity"))
