"""Customer classes: who buys alike at each anchor, found from the pool of entities."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial

from pyspark.sql import DataFrame, SparkSession

from recspark import schema
from recspark.prepare import anchor_tasks, customer_class_files
from recspark.prepare.customer_class_files import Sources
from recspark.prepare.feature_schema import FeatureSchema

COLUMNS = (
    f"{schema.ANCHOR_TIME} timestamp, {schema.SHARES} array<double>, "
    f"{schema.STRENGTHS} array<double>, {schema.FACTORS} array<array<double>>, "
    f"{schema.VALUES} array<array<bigint>>, {schema.LIFTS} array<array<double>>"
)


def build(
    spark: SparkSession,
    anchors: Sequence[datetime],
    item_state_files: Sequence[str],
    pool_files: Sequence[str],
    *,
    features: FeatureSchema,
) -> DataFrame:
    """CUSTOMER_CLASSES without `run_date`: one row per anchor.

    Args:
        spark: of the run.
        anchors: as for `anchor_tasks.of_each`.
        item_state_files: Parquet files of the item states of all anchors, paths or URIs that
            workers can open.
        pool_files: the same of the entity pool.
        features: which columns item states have.
    """
    sources = Sources(
        state_files=tuple(item_state_files),
        pool_files=tuple(pool_files),
        features=features,
    )
    find = partial(customer_class_files.find, sources=sources)
    return anchor_tasks.of_each(spark, anchors, find, COLUMNS)
