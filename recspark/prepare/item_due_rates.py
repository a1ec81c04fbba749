"""When items are bought again because they are due, told once per anchor for all of its items."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial

from pyspark.sql import DataFrame, SparkSession

from recspark import schema
from recspark.prepare import anchor_tasks, item_due_rate_files

COLUMNS = f"{schema.ANCHOR_TIME} timestamp, {schema.ITEM} bigint, {schema.DUE_RATES} array<double>"


def build(
    spark: SparkSession, anchors: Sequence[datetime], item_state_files: Sequence[str]
) -> DataFrame:
    """ITEM_DUE_RATES without `run_date`: one row per item state, rates as `due.rates` gives them.

    `item_state_files` are the Parquet files of the item states of all anchors, paths or URIs that
    workers can open.
    """
    find = partial(item_due_rate_files.find, state_files=tuple(item_state_files))
    return anchor_tasks.of_each(spark, anchors, find, COLUMNS)
