"""Simple methods that a model must beat, each tuned on validation.

`popularity` ranks the items on sale by decayed purchases of everybody. `personal_frequency` ranks
what the entity itself bought, the same way; equals go by popularity, and popular items fill the
list up. A purchase is one (entity, item, day), days counted back from the anchor; it weighs
2^(-age / half_life). Both are the G-TopFreq and GP-TopFreq of the next-basket literature (Li et
al. 2023, doi 10.1145/3587153), with decay. What is still equal goes by item node. Items that
nobody bought are not listed, so that lists may be shorter than K.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.window import Window

from recspark import schema, windows
from recspark.evaluate import metrics
from recspark.evaluate.comparison import RESOLUTION, SEED, ragged

POPULARITY, PERSONAL_FREQUENCY = "popularity", "personal_frequency"
NAMES = (POPULARITY, PERSONAL_FREQUENCY)
HALF_LIVES: tuple[float | None, ...] = (7, 14, 30, 60, 120, 240, 480, None)  # days; None: no decay

AGE_DAYS = "age_days"  # int         whole days from purchase to anchor
WEIGHT = "weight"  # bigint      popularity of the item at the anchor, in steps
BOUGHT = "bought"  # array<struct<item,age_days,weight>> distinct, in no order
# Popularity adds weights as whole steps of 2^-30, so that the order of adding does not matter:
# 64 bits hold 8e9 purchases of an item, and a purchase counts for 30 half-lives.
WEIGHT_STEPS = 2.0**30

Fills: TypeAlias = Mapping[int, NDArray[np.int64]]  # anchor in us -> popular items, best first


@dataclass(frozen=True, kw_only=True)
class History:
    """Who bought what when, and what is on sale when."""

    events: DataFrame  # schema.EVENTS of the target table
    entity_position: int  # of the entity's and the item's foreign key in `nodes`
    item_position: int
    items: DataFrame  # node, start_time, end_time; null: from always, without end


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A method with the half-lives that were best on the seeds it was tuned on."""

    name: str  # one of NAMES
    half_life: float | None  # days after which a purchase counts half; None: no decay
    popularity_half_life: float | None  # of what breaks ties and fills up; popularity: the same
    validation_map: float  # MAP@K with these half-lives


def rank(baseline: Baseline, *, history: History, seeds: DataFrame, k: int) -> DataFrame:
    """The lists of one baseline, one row per seed, from what is visible at the seed's anchor.

    Args:
        baseline: as tuned.
        history: purchases and items; only items that exist at the anchor are listed.
        seeds: entity and anchor_time, no seed twice; other columns are ignored.
        k: length of the lists.

    Returns:
        entity, anchor_time, items (array<bigint>, best first, at most K, none twice).
    """
    popular_at = baseline.popularity_half_life
    fills = _popular(history, seeds, k, (popular_at,))[0]

    def list_items(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            values, offsets = _lists(batch, fills, baseline.half_life, k)
            lists = pa.ListArray.from_arrays(offsets.astype(np.int32), values)
            columns = [batch[schema.ENTITY], batch[schema.ANCHOR_TIME], lists]
            yield pa.RecordBatch.from_arrays(columns, names=[*SEED, schema.ITEMS])

    ddl = f"{schema.ENTITY} bigint, {schema.ANCHOR_TIME} timestamp, {schema.ITEMS} array<bigint>"
    inputs = _with_purchases(baseline.name, popular_at, history, seeds.select(*SEED))
    return inputs.mapInArrow(list_items, ddl)


def tune(
    *,
    history: History,
    snapshots: DataFrame,
    k: int,
    half_lives: Sequence[float | None] = HALF_LIVES,
) -> dict[str, Baseline]:
    """Every baseline with its best MAP@K on these snapshots, by name, in three Spark jobs.

    Popularity is tuned first; personal frequency breaks ties and fills up with that.

    Args:
        history: as for `rank`.
        snapshots: entity, anchor_time, labels; seeds without labels are left out.
        k: length of the lists.
        half_lives: what is tried, in days; of equals the earlier wins.

    Raises:
        ValueError: no seed has labels.
    """
    judged = snapshots.where(F.size(schema.LABELS) > 0).select(*SEED, schema.LABELS)
    fills = _popular(history, judged, k, half_lives)
    found: dict[str, Baseline] = {}
    popular = 0
    for name in NAMES:
        own = name == PERSONAL_FREQUENCY
        inputs = _with_purchases(name, half_lives[popular], history, judged)
        trials = [
            (half_life, fills[popular if own else choice])
            for choice, half_life in enumerate(half_lives)
        ]
        best, validation_map = _best(inputs, trials, k)
        popular = popular if own else best
        found[name] = Baseline(
            name=name,
            half_life=half_lives[best],
            popularity_half_life=half_lives[popular],
            validation_map=validation_map,
        )
    return found


def _best(
    inputs: DataFrame, trials: Sequence[tuple[float | None, Fills]], k: int
) -> tuple[int, float]:
    """Position and MAP@K of the best trial on rows of labels and `bought`, in one Spark job."""
    map_name = metrics.name(metrics.MAP, k)

    def judge(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        totals, users = np.zeros(len(trials), dtype=np.int64), 0
        for batch in batches:
            truths = ragged(batch[schema.LABELS])
            users += batch.num_rows
            for choice, (half_life, fills) in enumerate(trials):
                found = metrics.per_user(_lists(batch, fills, half_life, k), truths, k)[map_name]
                totals[choice] += np.round(found * RESOLUTION).astype(np.int64).sum()
        choices = np.arange(len(trials), dtype=np.int32)
        columns = [pa.array(choices), pa.array(totals), pa.array(np.full_like(totals, users))]
        yield pa.RecordBatch.from_arrays(columns, names=["choice", "total", "users"])

    sums = inputs.mapInArrow(judge, "choice int, total bigint, users bigint")
    rows = sums.groupBy("choice").agg(F.sum("total").alias("total"), F.sum("users").alias("users"))
    found = [(row["total"], -row["choice"], row["users"]) for row in rows.collect()]
    if not found or found[0][2] == 0:
        raise ValueError(
            "baselines: nobody bought anything after the validation anchor, so there is nothing "
            "to tune on; choose an earlier run date or a longer window."
        )
    total, choice, users = max(found)
    return -choice, total / users / RESOLUTION


def _purchases(history: History) -> DataFrame:
    """Entity, item and time of every event whose keys both point somewhere."""
    return history.events.select(
        F.col(schema.NODES)[history.entity_position].alias(schema.ENTITY),
        F.col(schema.NODES)[history.item_position].alias(schema.ITEM),
        schema.TIME,
    ).where((F.col(schema.ENTITY) >= 0) & (F.col(schema.ITEM) >= 0))


def _seen(purchases: DataFrame, history: History) -> DataFrame:
    """Of purchases beside an anchor_time: the visible ones of items on sale then, with age_days."""
    anchor = F.col(schema.ANCHOR_TIME)
    sale = history.items.select(
        F.col(schema.NODE).alias(schema.ITEM), schema.START_TIME, schema.END_TIME
    )
    on_sale = windows.exists(
        F.coalesce(schema.START_TIME, anchor),
        F.coalesce(F.col(schema.END_TIME), anchor + F.expr("INTERVAL 1 DAY")),
        anchor,
    )
    age = F.floor((F.unix_micros(anchor) - F.unix_micros(schema.TIME)) / F.lit(86_400_000_000))
    visible = purchases.where(windows.is_visible(F.col(schema.TIME), anchor))
    return (
        visible.join(sale, on=schema.ITEM, how="inner")
        .where(on_sale)
        .select(*SEED, schema.ITEM, age.cast("int").alias(AGE_DAYS))
    )


def _popularity(
    history: History, seeds: DataFrame, half_lives: Sequence[float | None]
) -> DataFrame:
    """Anchor_time, item, and the decayed purchases of everybody, one column per half-life."""
    anchors = seeds.select(schema.ANCHOR_TIME).distinct()
    seen = _seen(_purchases(history).crossJoin(F.broadcast(anchors)), history)
    per_day = seen.groupBy(*SEED, schema.ITEM, AGE_DAYS).agg(F.lit(1).alias("bought"))
    weights = [F.sum(_steps(h)).alias(f"{WEIGHT}_{i}") for i, h in enumerate(half_lives)]
    return per_day.groupBy(schema.ANCHOR_TIME, schema.ITEM).agg(*weights)


def _popular(
    history: History, seeds: DataFrame, k: int, half_lives: Sequence[float | None]
) -> list[Fills]:
    """Per half-life the K most popular items of every anchor, in one Spark job.

    What is collected is anchors x half-lives x K numbers, however large the tables are.
    """
    weights = F.array(*[f"{WEIGHT}_{i}" for i in range(len(half_lives))])
    long = _popularity(history, seeds, half_lives).select(
        schema.ANCHOR_TIME, schema.ITEM, F.posexplode(weights).alias("choice", WEIGHT)
    )
    best_first = Window.partitionBy(schema.ANCHOR_TIME, "choice").orderBy(
        F.desc(WEIGHT), F.asc(schema.ITEM)
    )
    ranked = long.withColumn(schema.RANK, F.row_number().over(best_first))
    top = ranked.where(F.col(schema.RANK) <= k)
    micros = F.unix_micros(schema.ANCHOR_TIME).alias("anchor")
    lists: list[dict[int, list[int]]] = [{} for _ in half_lives]
    rows = top.select("choice", micros, schema.RANK, schema.ITEM).collect()
    for choice, anchor, _, item in sorted(rows):
        lists[choice].setdefault(anchor, []).append(item)
    return [
        {anchor: np.array(items, dtype=np.int64) for anchor, items in of_choice.items()}
        for of_choice in lists
    ]


def _steps(half_life: float | None) -> Column:
    """The weight of a purchase in whole steps, bigint."""
    if half_life is None:
        return F.lit(int(WEIGHT_STEPS)).cast("bigint")
    weight = F.pow(F.lit(2.0), -F.col(AGE_DAYS) / F.lit(float(half_life)))
    return F.round(weight * F.lit(WEIGHT_STEPS)).cast("bigint")


def _with_purchases(
    name: str, popularity_half_life: float | None, history: History, seeds: DataFrame
) -> DataFrame:
    """Seeds with the column `bought`: null where there is nothing personal to count."""
    assert name in NAMES, name
    if name == POPULARITY:
        kind = f"array<struct<{schema.ITEM}:bigint,{AGE_DAYS}:int,{WEIGHT}:bigint>>"
        return seeds.withColumn(BOUGHT, F.lit(None).cast(kind))
    keys = [schema.ANCHOR_TIME, schema.ITEM]
    popularity = _popularity(history, seeds, (popularity_half_life,)).select(
        *keys, F.col(f"{WEIGHT}_0").alias(WEIGHT)
    )
    own = _purchases(history).join(seeds.select(*SEED), on=schema.ENTITY, how="inner")
    seen = _seen(own, history).join(popularity, on=keys, how="inner")
    bought = F.collect_set(F.struct(schema.ITEM, AGE_DAYS, WEIGHT)).alias(BOUGHT)
    return seeds.join(seen.groupBy(*SEED).agg(bought), on=SEED, how="left")


def _lists(batch: pa.RecordBatch, fills: Fills, half_life: float | None, k: int) -> metrics.Ragged:
    """The list of every row: own purchases by decayed days, then popular items it lacks."""
    users, items, scores, weights = _own_scores(batch[BOUGHT], half_life)
    fill_users, fill_items = _fills_of_rows(batch[schema.ANCHOR_TIME], fills)
    width = int(max(items.max(initial=0), fill_items.max(initial=0))) + 1
    new = ~np.isin(fill_users * width + fill_items, users * width + items)
    fill_users, fill_items = fill_users[new], fill_items[new]

    users = np.concatenate((users, fill_users))
    items = np.concatenate((items, fill_items))
    first = np.concatenate((-scores, np.zeros(fill_items.size)))  # 0: after all that is own
    second = np.concatenate((-weights, np.arange(fill_items.size)))  # already best first
    is_fill = np.arange(users.size) >= scores.size
    order = np.lexsort((items, second, first, is_fill, users))
    offsets = np.searchsorted(users[order], np.arange(batch.num_rows + 1))
    ranks = np.arange(users.size) - offsets[users[order]]
    kept = order[ranks < k]
    return items[kept], np.searchsorted(users[kept], np.arange(batch.num_rows + 1))


def _fills_of_rows(
    anchor_times: pa.TimestampArray, fills: Fills
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and item of every popular item that a row may be filled with, best first in each row."""
    anchors, positions = np.unique(anchor_times.cast(pa.int64()).to_numpy(), return_inverse=True)
    users, items = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for position, anchor in enumerate(anchors):
        popular = fills.get(int(anchor), items[0])
        rows = np.flatnonzero(positions == position)
        users.append(np.repeat(rows, popular.size))
        items.append(np.tile(popular, rows.size))
    return np.concatenate(users), np.concatenate(items)


def _own_scores(
    bought: pa.ListArray, half_life: float | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Row, item, score and popularity of every distinct (row, item), from lists in any order."""
    purchases = bought.flatten()
    users = np.repeat(np.arange(len(bought)), bought.value_lengths().fill_null(0).to_numpy())
    items, ages, weights = (
        purchases.field(name).to_numpy(zero_copy_only=False).astype(np.int64)
        for name in (schema.ITEM, AGE_DAYS, WEIGHT)
    )
    order = np.lexsort((ages, items, users))  # by age too: sums of floats depend on their order
    users, items, ages, weights = users[order], items[order], ages[order], weights[order]
    changes = (np.diff(users, prepend=-1) != 0) | (np.diff(items, prepend=-1) != 0)
    firsts = np.flatnonzero(changes)
    decays = np.ones(ages.size) if half_life is None else np.exp2(-ages / half_life)
    scores = np.add.reduceat(decays, firsts) if firsts.size else decays
    return users[firsts], items[firsts], scores, weights[firsts]
