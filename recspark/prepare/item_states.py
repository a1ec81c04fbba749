"""Item states: what is known of every item that exists at an anchor, and what is bought with it."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import schema
from recspark.partitions import by_key
from recspark.prepare import interactions, item_trends, life_tables, nodes, similarity
from recspark.prepare.arrow_rows import microseconds
from recspark.prepare.feature_schema import FeatureSchema
from recspark.prepare.interactions import EventRoles
from recspark.settings import Candidates

ITEMS_PER_FILE = 100_000  # of one anchor: readers of an anchor skip the files of others
_EXACT = 2.0**24  # squared weights are summed as integers, whose sum has no order


def build(
    events: Mapping[str, DataFrame],
    event_roles: Sequence[EventRoles],
    items: DataFrame,
    anchors: Sequence[datetime],
    *,
    features: FeatureSchema,
    horizon_days: float,
    settings: Candidates,
) -> DataFrame:
    """ITEM_STATES without `run_date`: one row per anchor and item that exists at it.

    Args:
        events: stage event tables by name; only rows `<= anchor` count at an anchor.
        event_roles: how to read them, the target table first (`interactions.roles`).
        items: the node table of the items: node, start_time, end_time, codes, parents.
        anchors: distinct; without a zone they are UTC.
        features: which columns there are.
        horizon_days: length of the label window, days.
        settings: how many similar items, from how long a history.

    `trend` has the columns `item_trends.trend_names`; NaN where unknown.
    `repeats` and `at_risk` are life tables (`recspark.prepare.life_tables`); `traits` holds what
    `FeatureSchema.item_traits` names. `similar_items` is empty for an item that nobody bought
    together with another.
    """
    moments = sorted(microseconds(anchor) for anchor in anchors)
    all_events = interactions.union(events, event_roles)
    trends = _trends(all_events, items, moments, horizon_days, features)
    target = all_events.where(F.col(interactions.KIND) == 0)
    num_items = (items.agg(F.max(schema.NODE)).collect()[0][0] or 0) + 1
    similar = _similar(target, num_items, moments, settings)
    item_at = [schema.ANCHOR_TIME, schema.ITEM]
    joined = trends.join(similar, on=item_at, how="left")
    joined = joined.join(_life_tables(target, moments), on=item_at, how="left")
    joined = joined.join(nodes.traits(items, schema.ITEM), on=schema.ITEM, how="inner")
    num_files = len(moments) * math.ceil(num_items / ITEMS_PER_FILE)
    block = F.floor(F.col(schema.ITEM) / ITEMS_PER_FILE)
    never = F.array_repeat(F.lit(0).cast("bigint"), life_tables.NUM_INTERVALS)
    return joined.repartition(num_files, schema.ANCHOR_TIME, block).select(
        schema.ANCHOR_TIME,
        schema.ITEM,
        schema.TREND,
        schema.TRAITS,
        *(F.coalesce(c, never).alias(c) for c in (schema.REPEATS, schema.AT_RISK)),
        F.coalesce(schema.SIMILAR_ITEMS, F.array().cast("array<bigint>")).alias(
            schema.SIMILAR_ITEMS
        ),
        F.coalesce(schema.SIMILARITIES, F.array().cast("array<float>")).alias(schema.SIMILARITIES),
    )


def _trends(
    events: DataFrame,
    items: DataFrame,
    moments: Sequence[int],
    horizon_days: float,
    features: FeatureSchema,
) -> DataFrame:
    item_rows = items.select(
        F.lit(item_trends.ITEM_ROW).alias(interactions.KIND),
        F.col(schema.NODE).alias(schema.ITEM),
        F.col(schema.START_TIME).alias(item_trends.SALE_START),
        F.col(schema.END_TIME).alias(item_trends.SALE_END),
    )
    kernel = partial(
        item_trends.trends,
        anchors=list(moments),
        horizon_days=horizon_days,
        features=features,
    )
    rows = events.unionByName(item_rows, allowMissingColumns=True)
    return by_key(rows, schema.ITEM).mapInArrow(kernel, item_trends.COLUMNS)


def _life_tables(purchases: DataFrame, moments: Sequence[int]) -> DataFrame:
    """The life table of every item that was bought, summed over the entities."""
    kernel = partial(life_tables.tables, anchors=list(moments))
    own = purchases.select(schema.ENTITY, schema.ITEM, schema.TIME)
    by_entity = by_key(own, schema.ENTITY)
    parts = by_entity.mapInArrow(kernel, life_tables.TABLES)
    counted = (schema.REPEATS, schema.AT_RISK)
    sums = [
        F.array(*(F.sum(F.col(name)[i]) for i in range(life_tables.NUM_INTERVALS))).alias(name)
        for name in counted
    ]
    return parts.groupBy(schema.ANCHOR_TIME, schema.ITEM).agg(*sums)


def _similar(
    purchases: DataFrame, num_items: int, moments: Sequence[int], settings: Candidates
) -> DataFrame:
    kernel = partial(similarity.histories, anchors=list(moments), limit=settings.history_per_entity)
    columns = [schema.ENTITY, schema.ITEM, schema.EVENT, schema.TIME]
    by_entity = by_key(purchases.select(columns), schema.ENTITY)
    histories = by_entity.mapInArrow(kernel, similarity.HISTORIES)
    num_blocks = math.ceil(num_items / similarity.ITEMS_PER_BLOCK)
    rows = histories if num_blocks == 1 else histories.unionByName(_norms(histories, num_blocks))
    whole = by_key(rows, schema.ANCHOR_TIME, similarity.BLOCK)
    best = partial(
        similarity.similar, per_item=settings.similar_per_item, norms_given=num_blocks > 1
    )
    return whole.mapInArrow(best, similarity.SIMILAR)


def _norms(histories: DataFrame, num_blocks: int) -> DataFrame:
    """Squared length of every item's vector, for every block, as histories of entity -1."""
    zipped = F.explode(F.arrays_zip(schema.ITEMS, schema.WEIGHTS)).alias("pair")
    once = histories.dropDuplicates([schema.ANCHOR_TIME, schema.ENTITY])  # all rows are alike
    square = F.round(F.pow("pair.weights", F.lit(2)) * _EXACT).cast("bigint")
    lengths = (
        once.select(schema.ANCHOR_TIME, zipped)
        .groupBy(schema.ANCHOR_TIME, F.col("pair.items").alias(schema.ITEM))
        .agg((F.sum(square) / _EXACT).cast("float").alias("square"))
    )
    blocks = F.explode(F.sequence(F.lit(0), F.lit(num_blocks - 1))).alias(similarity.BLOCK)
    return lengths.select(
        schema.ANCHOR_TIME,
        blocks,
        F.lit(-1).cast("bigint").alias(schema.ENTITY),
        F.array(schema.ITEM).alias(schema.ITEMS),
        F.array("square").alias(schema.WEIGHTS),
    )
