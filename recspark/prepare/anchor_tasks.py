"""Work that is done once per anchor: a frame whose tasks have one anchor each."""

from collections.abc import Sequence
from datetime import UTC, datetime

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recspark import schema


def one_each(spark: SparkSession, anchors: Sequence[datetime]) -> DataFrame:
    """A row with each `anchor_time`, in a partition of its own.

    `anchors` are distinct; without a zone they are UTC.
    """
    moments = [anchor if anchor.tzinfo else anchor.replace(tzinfo=UTC) for anchor in anchors]
    rows = spark.createDataFrame(
        list(enumerate(moments)), f"number int, {schema.ANCHOR_TIME} timestamp"
    )
    apart = rows.repartitionById(len(moments), F.col("number"))
    return apart.select(schema.ANCHOR_TIME)
