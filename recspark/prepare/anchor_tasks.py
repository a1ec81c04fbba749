"""Work that is done once per anchor, in a task of its own."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recspark import schema
from recspark.prepare.arrow_rows import column


def of_each(
    spark: SparkSession,
    anchors: Sequence[datetime],
    find: Callable[[int], Iterable[pa.RecordBatch]],
    columns: str,
) -> DataFrame:
    """What is found at each anchor, one task per anchor.

    Args:
        spark: of the run.
        anchors: distinct; without a zone they are UTC.
        find: rows of one anchor (microseconds since 1970); runs on a worker.
        columns: their schema.
    """
    moments = [anchor if anchor.tzinfo else anchor.replace(tzinfo=UTC) for anchor in anchors]
    rows = spark.createDataFrame(
        list(enumerate(moments)), f"number int, {schema.ANCHOR_TIME} timestamp"
    )

    def kernel(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for anchor in column(pa.Table.from_batches([batch]), schema.ANCHOR_TIME):
                yield from find(int(anchor))

    apart = rows.repartitionById(len(moments), F.col("number"))
    return apart.select(schema.ANCHOR_TIME).mapInArrow(kernel, columns)
