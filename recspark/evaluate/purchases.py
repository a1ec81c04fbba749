"""What everybody bought, as Spark frames that baselines are made from.

Popularity adds weights as whole steps of 2^-30, so that the order of adding does not matter: 64
bits hold 8e9 purchases of an item, and a purchase counts for 30 half-lives.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.window import Window

from recspark import schema, windows
from recspark.evaluate.histories import AGE_DAYS, BOUGHT, SEED, WEIGHT
from recspark.existence import exists_at

CHOICE = "choice"  # int  place in a sequence of half-lives
WEIGHT_STEPS = 2.0**30
MICROS_PER_DAY = 86_400_000_000


@dataclass(frozen=True, kw_only=True)
class History:
    """Who bought what when, and what is on sale when."""

    events: DataFrame  # schema.EVENTS of the target table
    entity_position: int  # of the entity's and the item's foreign key in `nodes`
    item_position: int
    items: DataFrame  # node, start_time, end_time; null: from always, without end
    entities: DataFrame | None = None  # node and codes of the entity table, where it has categories
    categories: tuple[str, ...] = ()  # names of those columns, in the order of `codes`
    item_state_files: tuple[str, ...] = ()  # Parquet files of schema.ITEM_STATES; none: not known


def purchases(history: History) -> DataFrame:
    """Entity, item and time of every event whose keys both point somewhere."""
    return history.events.select(
        F.col(schema.NODES)[history.entity_position].alias(schema.ENTITY),
        F.col(schema.NODES)[history.item_position].alias(schema.ITEM),
        schema.TIME,
    ).where((F.col(schema.ENTITY) >= 0) & (F.col(schema.ITEM) >= 0))


def on_sale(history: History, anchors: DataFrame) -> DataFrame:
    """(anchor_time, item) of every item that exists at one of the anchors."""
    beside = history.items.crossJoin(F.broadcast(anchors))
    crossed = beside.where(exists_at(F.col(schema.ANCHOR_TIME)))
    return crossed.select(schema.ANCHOR_TIME, F.col(schema.NODE).alias(schema.ITEM))


def _visible(beside: DataFrame) -> DataFrame:
    """Of purchases beside an anchor_time: the visible ones, one per entity, item and day."""
    anchor = F.col(schema.ANCHOR_TIME)
    age = F.floor((F.unix_micros(anchor) - F.unix_micros(schema.TIME)) / F.lit(MICROS_PER_DAY))
    visible = beside.where(windows.is_visible(F.col(schema.TIME), anchor))
    days = visible.select(*SEED, schema.ITEM, age.cast("int").alias(AGE_DAYS))
    return days.groupBy(*days.columns).agg(F.count("*").alias("lines")).drop("lines")


def of_everybody(history: History, anchors: DataFrame) -> DataFrame:
    """(entity, anchor_time, item, age_days) of what is visible and on sale at each anchor."""
    days = _visible(purchases(history).crossJoin(F.broadcast(anchors)))
    return days.join(on_sale(history, anchors), on=[schema.ANCHOR_TIME, schema.ITEM], how="inner")


def anchors_of(seeds: DataFrame) -> DataFrame:
    """The distinct anchor_time of the seeds."""
    return seeds.groupBy(schema.ANCHOR_TIME).agg(F.count("*").alias("seeds")).drop("seeds")


def popularity(
    days: DataFrame, half_lives: Sequence[float | None], by: Sequence[str] = ()
) -> DataFrame:
    """Decayed purchases of each item: anchor_time, `by`, item, choice, weight (bigint steps).

    Args:
        days: as of `of_everybody`, with the columns `by` beside.
        half_lives: days; choice is the place in this sequence.
        by: columns within which purchases are added up.
    """
    weights = F.array(*[F.sum(_steps(half_life)) for half_life in half_lives])
    added = days.groupBy(schema.ANCHOR_TIME, *by, schema.ITEM).agg(weights.alias("weights"))
    keys = [schema.ANCHOR_TIME, *by, schema.ITEM]
    return added.select(*keys, F.posexplode("weights").alias(CHOICE, WEIGHT))


def most_popular(weights: DataFrame, k: int, by: Sequence[str] = ()) -> DataFrame:
    """The first K items of every (anchor_time, by, choice), equals by item: columns and rank."""
    best_first = Window.partitionBy(schema.ANCHOR_TIME, *by, CHOICE).orderBy(
        F.desc(WEIGHT), F.asc(schema.ITEM)
    )
    ranked = weights.withColumn(schema.RANK, F.row_number().over(best_first))
    return ranked.where(F.col(schema.RANK) <= k).drop(WEIGHT)


def _steps(half_life: float | None) -> Column:
    """The weight of a purchase in whole steps, bigint."""
    if half_life is None:
        return F.lit(int(WEIGHT_STEPS)).cast("bigint")
    weight = F.pow(F.lit(2.0), -F.col(AGE_DAYS) / F.lit(float(half_life)))
    return F.round(weight * F.lit(WEIGHT_STEPS)).cast("bigint")


def beside(history: History, seeds: DataFrame, everybody: DataFrame | None) -> DataFrame:
    """Seeds with `bought` and `codes`, all that methods look at.

    Args:
        history: purchases and items.
        seeds: entity, anchor_time, no seed twice; other columns are kept.
        everybody: anchor_time, item and weight of what is on sale and was bought by anybody; None:
            `bought` is null, since nobody looks at it. It is null too where nothing was bought.
    """
    if everybody is None:
        kind = f"array<struct<{schema.ITEM}:bigint,{AGE_DAYS}:int,{WEIGHT}:bigint>>"
        joined = seeds.withColumn(BOUGHT, F.lit(None).cast(kind))
    else:
        own = _visible(purchases(history).join(seeds.select(*SEED), on=schema.ENTITY, how="inner"))
        weighed = own.join(everybody, on=[schema.ANCHOR_TIME, schema.ITEM], how="left")
        listed = F.collect_list(F.struct(schema.ITEM, AGE_DAYS, WEIGHT)).alias(BOUGHT)
        joined = seeds.join(weighed.groupBy(*SEED).agg(listed), on=SEED, how="left")
    if history.entities is None or everybody is None:
        return joined.withColumn(schema.CODES, F.array().cast("array<int>"))
    codes = history.entities.select(F.col(schema.NODE).alias(schema.ENTITY), schema.CODES)
    return joined.join(codes, on=schema.ENTITY, how="inner")


def sample(days: DataFrame, *, num_entities: int, num_purchases: int, seed: int) -> DataFrame:
    """The newest purchases of at most `num_entities` entities of each anchor.

    A hash of (seed, entity) chooses; ties by entity, and equal ages by item.

    Args:
        days: as of `of_everybody`.
        num_entities: entities kept per anchor.
        num_purchases: purchases kept per entity.
        seed: any integer.
    """
    entities = days.groupBy(*SEED).agg(F.count("*").alias("purchases")).drop("purchases")
    drawn = Window.partitionBy(schema.ANCHOR_TIME).orderBy(
        F.xxhash64(F.lit(seed), schema.ENTITY), schema.ENTITY
    )
    place = F.row_number()
    kept = entities.withColumn("place", place.over(drawn)).where(F.col("place") <= num_entities)
    newest = Window.partitionBy(*SEED).orderBy(AGE_DAYS, schema.ITEM)
    of_kept = days.join(kept.drop("place"), on=SEED, how="inner")
    return (
        of_kept.withColumn("place", place.over(newest))
        .where(F.col("place") <= num_purchases)
        .drop("place")
    )
