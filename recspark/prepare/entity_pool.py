"""Draws, per anchor, the entities whose purchases are looked at as those of similar customers."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import schema, windows
from recspark.partitions import by_key
from recspark.prepare import interactions, nearest_users, nodes
from recspark.prepare.arrow_rows import microseconds
from recspark.prepare.interactions import EventRoles
from recspark.prepare.nearest_users import DRAW, DRAWS, POOL_SIZE

COLUMNS = (
    f"{schema.ANCHOR_TIME} timestamp, {schema.ENTITY} bigint, {schema.ITEMS} array<bigint>, "
    f"{schema.RATES} array<float>, {schema.AGES} array<float>"
)


def build(
    events: Mapping[str, DataFrame],
    target: EventRoles,
    entities: DataFrame,
    anchors: Sequence[datetime],
    *,
    history_per_entity: int,
    horizon_days: float,
    seed: int,
) -> DataFrame:
    """ENTITY_POOL without `run_date`: about `POOL_SIZE` entities with a history per anchor.

    A hash of (seed, entity) decides, with a threshold from how many entities have a history at
    the anchor, so that nothing after an anchor changes its pool.

    Args:
        events: stage event tables by name; only rows `<= anchor` count at an anchor.
        target: how to read the target table.
        entities: the node table of the entities: node, codes, parents.
        anchors: distinct; without a zone they are UTC.
        history_per_entity: newest distinct items kept of each entity.
        horizon_days: length of the label window, days.
        seed: of the draw.
    """
    purchases = interactions.union(events, [target])
    thresholds = _thresholds(purchases, anchors)
    draw = F.pmod(F.xxhash64(F.lit(seed), schema.ENTITY), F.lit(DRAWS))
    drawn = purchases.withColumn(DRAW, draw).where(F.col(DRAW) < max(thresholds.values()))
    columns = [schema.ENTITY, schema.ITEM, schema.EVENT, schema.TIME, DRAW]
    kernel = partial(
        nearest_users.pool,
        thresholds=thresholds,
        limit=history_per_entity,
        horizon_days=horizon_days,
    )
    pool = by_key(drawn.select(columns), schema.ENTITY).mapInArrow(kernel, COLUMNS)
    pool = pool.join(nodes.traits(entities, schema.ENTITY), on=schema.ENTITY, how="inner")
    # Files of few anchors: readers of an anchor skip the others.
    return pool.repartition(len(anchors), schema.ANCHOR_TIME)


def _thresholds(purchases: DataFrame, anchors: Sequence[datetime]) -> dict[int, int]:
    """By anchor (microseconds since 1970): the draw below which an entity belongs to the pool."""
    first = purchases.groupBy(schema.ENTITY).agg(F.min(schema.TIME).alias(schema.TIME))
    known = [
        F.count_if(windows.is_visible(F.col(schema.TIME), F.lit(anchor))).alias(str(place))
        for place, anchor in enumerate(anchors)
    ]
    counts = first.agg(*known).collect()[0]
    return {
        microseconds(anchor): min(DRAWS, DRAWS * POOL_SIZE // max(counts[str(place)], 1))
        for place, anchor in enumerate(anchors)
    }
