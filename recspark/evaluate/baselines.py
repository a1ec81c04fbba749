"""Simple methods that a model must beat, each tuned on validation.

`popularity` ranks the items on sale by decayed purchases of everybody. The others are personal:
`personal_frequency`, `item_item`, `tifu_knn` and `als` look at what the entity bought,
`segment_popularity` at what entities bought that share a category with it. What a personal method
leaves open, popular items fill up. What is equal goes by item node. Items that nobody bought are
not listed, so that lists may be shorter than K.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, LongType, StructField, StructType

from recspark import schema
from recspark.evaluate import factors, item_item, metrics, nearest_users, purchases, segments
from recspark.evaluate.frequency import Frequency
from recspark.evaluate.histories import SEED, Method, Popular, best, ragged, split
from recspark.evaluate.item_item import ItemItem
from recspark.evaluate.nearest_users import NearestUsers, Vector
from recspark.evaluate.purchases import CHOICE, History
from recspark.partitions import by_key

POPULARITY, PERSONAL_FREQUENCY, ITEM_ITEM = "popularity", "personal_frequency", "item_item"
TIFU_KNN, ALS, SEGMENT_POPULARITY = "tifu_knn", "als", "segment_popularity"
NAMES = (POPULARITY, SEGMENT_POPULARITY, ALS, ITEM_ITEM, PERSONAL_FREQUENCY, TIFU_KNN)

SAMPLED_ENTITIES = 20_000  # that neighbours are looked for among, and that ALS is fitted to
SAMPLED_PURCHASES = 1_000  # newest purchases of each of them
RESOLUTION = 2.0**30  # steps per unit: sums over 8e9 users fit 64 bits and know no order

NOTHING = np.zeros(0, dtype=np.int64)
SUMS = pa.schema(
    [("name", pa.string()), (CHOICE, pa.int32()), ("total", pa.int64()), ("users", pa.int64())]
)

HalfLife: TypeAlias = float | None
# Of popularity and personal_frequency a half-life, of others the Choice of their module.
Choice: TypeAlias = Any
Grid: TypeAlias = Mapping[str, Sequence[Choice]]  # name of a method -> what is tried

HALF_LIVES: tuple[HalfLife, ...] = (7, 14, 30, 60, 120, 240, 480, None)  # days; None: no decay
# (baskets per group, decay within, decay across, half-life in days)
VECTORS = ((3, 0.9, 0.7, None), (7, 0.9, 0.9, None), (3, 1.0, 0.9, 30), (3, 1.0, 0.9, 120),
           (3, 1.0, 0.9, 240))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A method with the parameters that were best on the seeds it was tuned on."""

    name: str  # one of NAMES
    choice: Choice
    popularity_half_life: HalfLife  # of what breaks ties and fills up; popularity: the same
    validation_map: float  # MAP@K with these parameters


def grid(history: History) -> dict[str, Sequence[Choice]]:
    """What is tried for each method that this history allows, by name."""
    found: dict[str, Sequence[Choice]] = {POPULARITY: HALF_LIVES}
    if history.categories:
        found[SEGMENT_POPULARITY] = [
            segments.Choice(column=column, position=position, half_life=half_life)
            for position, column in enumerate(history.categories)
            for half_life in (30, 120, 480)
        ]
    found[ALS] = [
        factors.Choice(rank=32, regularization=regularization, alpha=alpha, half_life=120)
        for regularization, alpha in ((0.1, 1.0), (0.03, 2.0))
    ]
    if history.item_state_files:
        found[ITEM_ITEM] = [
            item_item.Choice(half_life=half_life, own_similarity=own)
            for half_life, own in product((30, 120, 480, None), (0.0, 1.0))
        ]
    found[PERSONAL_FREQUENCY] = HALF_LIVES
    found[TIFU_KNN] = [
        nearest_users.Choice(vector=Vector(*vector), num_neighbours=num_neighbours, alpha=alpha)
        for vector, num_neighbours, alpha in product(VECTORS, (100, 300), (0.2, 0.3, 0.5, 0.7))
    ]
    return found


def tune(
    *,
    history: History,
    snapshots: DataFrame,
    k: int,
    seed: int,
    choices: Grid | None = None,
) -> dict[str, Baseline]:
    """Every baseline with its best MAP@K on these snapshots, by name.

    Popularity is tuned first; the others break ties and fill up with that.

    Args:
        history: as for `rank`.
        snapshots: entity, anchor_time, labels; seeds without labels are left out.
        k: length of the lists.
        seed: chooses the sample of entities, and where ALS starts.
        choices: what is tried, popularity among it; of equals the earlier wins. Default: `grid`.

    Raises:
        ValueError: no seed has labels.
    """
    tried = dict(grid(history) if choices is None else choices)
    half_lives = tried.pop(POPULARITY)
    judged = snapshots.where(F.size(schema.LABELS) > 0).select(*SEED, schema.LABELS)
    days = purchases.of_everybody(history, purchases.anchors_of(judged)).persist()
    popular = segments.everybody(days, k, half_lives)
    alone = purchases.beside(history, judged, None)
    place, validation_map = _best(alone, {POPULARITY: popular}, {}, k)[POPULARITY]
    half_life, fills = half_lives[place], popular.lists[place]
    rows = purchases.beside(history, judged, purchases.popularity(days, [half_life]))
    methods = _methods(tried, history, days, k, seed)
    found = _best(rows, methods, fills, k)
    days.unpersist()
    options = {POPULARITY: half_lives, **tried}
    return {
        name: Baseline(
            name=name,
            choice=options[name][chosen],
            popularity_half_life=half_life,
            validation_map=value,
        )
        for name, (chosen, value) in {POPULARITY: (place, validation_map), **found}.items()
    }


def rank(
    tuned: Sequence[Baseline], *, history: History, seeds: DataFrame, k: int, seed: int
) -> DataFrame:
    """The lists of every baseline, from what is visible at each seed's anchor.

    Args:
        tuned: popularity among them, all of one `tune`.
        history: purchases and items; only items that exist at the anchor are listed.
        seeds: entity and anchor_time, no seed twice; other columns are kept.
        k: length of the lists.
        seed: as for `tune`.

    Returns:
        The columns of seeds, `bought` and `codes` (see `histories`), and one column per baseline,
        named like it: array<bigint>, best first, at most K, no item twice.
    """
    chosen = {baseline.name: [baseline.choice] for baseline in tuned}
    half_life = chosen.pop(POPULARITY)[0]
    days = purchases.of_everybody(history, purchases.anchors_of(seeds)).persist()
    popular = segments.everybody(days, k, [half_life])
    rows = purchases.beside(history, seeds, purchases.popularity(days, [half_life]))
    methods = {POPULARITY: popular, **_methods(chosen, history, days, k, seed)}
    fills = popular.lists[0]
    shared = seeds.sparkSession.sparkContext.broadcast(methods)

    def list_items(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for part, seeds_of_part in split(batch):
                columns = dict(zip(part.schema.names, part.columns, strict=True))
                fill = fills.get(seeds_of_part.anchor, NOTHING)
                for name, method in shared.value.items():
                    scores = next(iter(method.score(seeds_of_part)))
                    values, offsets = best(scores, part.num_rows, fill, k)
                    columns[name] = pa.ListArray.from_arrays(offsets.astype(np.int32), values)
                yield pa.RecordBatch.from_pydict(columns)

    listed = StructType([StructField(name, ArrayType(LongType())) for name in methods])
    return by_key(rows, *SEED).mapInArrow(
        list_items, StructType([*rows.schema.fields, *listed.fields])
    )


def _methods(
    tried: Grid, history: History, days: DataFrame, k: int, seed: int
) -> dict[str, Method]:
    """Each method with all that it needs at the anchors of `days`, to be sent to workers."""
    sampled = purchases.sample(
        days, num_entities=SAMPLED_ENTITIES, num_purchases=SAMPLED_PURCHASES, seed=seed
    ).persist()
    methods: dict[str, Method] = {}
    for name, choices in tried.items():
        if name == PERSONAL_FREQUENCY:
            methods[name] = Frequency(choices=tuple(choices))
        elif name == SEGMENT_POPULARITY:
            methods[name] = segments.of_columns(history, days, k, choices)
        elif name == ITEM_ITEM:
            methods[name] = ItemItem(choices=tuple(choices), files=history.item_state_files)
        elif name == TIFU_KNN:
            samples = nearest_users.collect(sampled)
            methods[name] = NearestUsers(choices=tuple(choices), samples=samples)
        else:
            assert name == ALS, name
            methods[name] = factors.fit(sampled, choices, k, seed)
    sampled.unpersist()
    return methods


def _best(
    rows: DataFrame, methods: Mapping[str, Method], fills: Popular, k: int
) -> dict[str, tuple[int, float]]:
    """Per method the place and MAP@K of its best choice, in one Spark job.

    Raises:
        ValueError: there are no rows.
    """
    map_name = metrics.name(metrics.MAP, k)
    shared = rows.sparkSession.sparkContext.broadcast(dict(methods))

    def judge(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        totals: dict[tuple[str, int], int] = {}
        num_users = 0
        for batch in batches:
            for part, seeds in split(batch):
                truths = ragged(part[schema.LABELS])
                fill = fills.get(seeds.anchor, NOTHING)
                num_users += part.num_rows
                for name, method in shared.value.items():
                    for choice, scores in enumerate(method.score(seeds)):
                        lists = best(scores, part.num_rows, fill, k)
                        found = metrics.per_user(lists, truths, k)[map_name]
                        steps = int(np.round(found * RESOLUTION).astype(np.int64).sum())
                        totals[name, choice] = totals.get((name, choice), 0) + steps
        yield pa.RecordBatch.from_pylist(
            [
                {"name": name, CHOICE: choice, "total": total, "users": num_users}
                for (name, choice), total in totals.items()
            ],
            schema=SUMS,
        )

    sums = by_key(rows, *SEED).mapInArrow(
        judge, f"name string, {CHOICE} int, total bigint, users bigint"
    )
    added = sums.groupBy("name", CHOICE).agg(F.sum("total"), F.sum("users"))
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in methods}
    for name, choice, total, users in added.collect():
        found[name].append((total / users / RESOLUTION, -choice))
    if not all(found.values()):
        raise ValueError(
            "baselines: nobody bought anything after the validation anchor, so there is nothing "
            "to tune on; choose an earlier run date or a longer window."
        )
    return {name: (-max(of)[1], max(of)[0]) for name, of in found.items()}
