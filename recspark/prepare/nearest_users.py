"""What the entities with the nearest tastes bought: a pool of entities, drawn per anchor.

An entity's vector says how many of its baskets held each item, those of long ago counting less by
their age and by the baskets since, as in TIFU-KNN (Hu et al. 2020, arXiv 2006.00556); vectors are
compared by cosine. The pool holds at most `POOL_SIZE` entities on average, so that a worker's
memory does not grow with the number of users. Runs on Spark workers; needs numpy, scipy and pyarrow
only.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import pyarrow as pa
from scipy import sparse

from recspark import files, schema, windows
from recspark.prepare import item_state_files
from recspark.prepare.arrow_rows import (
    DAY,
    Array,
    column,
    gather,
    lists,
    matrix,
    moment,
    timestamps,
)
from recspark.prepare.pair_history import History, decayed_by_basket, ratio
from recspark.prepare.ranking import top_per_row
from recspark.prepare.similarity import newest_items, oldest_first, product

DRAW = "draw"  # bigint   hash of an entity in [0, DRAWS)
DRAWS = 1 << 30
POOL_SIZE = 20_000  # expected entities of the pool of one anchor
NEIGHBOURS = 150  # nearest entities that have a say
NEAREST = 30  # those of them that have another one


@dataclass(frozen=True, eq=False)
class Pool:
    """Vectors of the drawn entities at one anchor, over the N items that exist at it."""

    entities: Array  # int64 (P,), ascending
    directions: sparse.csr_matrix  # float32 (P, N), rows of length 1
    rates: sparse.csr_matrix  # float32 (P, N), decayed purchases per basket
    ages: sparse.csr_matrix  # float32 (P, N), days since the newest purchase, same cells
    columns: Array  # int64 (P, W), the entities' own, as `FeatureSchema.entity_traits`; -1: none

    @cached_property
    def owner_share_N(self) -> Array:
        """Share of the entities that own each item, 0 where there are no entities."""
        return np.asarray(self.rates.getnnz(axis=0) / max(len(self.entities), 1))


@dataclass(frozen=True, eq=False)
class Votes:
    """Means over the nearest entities, (S, N) each; 0 where none of them bought the item."""

    rate: sparse.csr_matrix  # of their decayed purchases per basket
    rate_of_nearest: sparse.csr_matrix  # the same over the `NEAREST` only
    recent: sparse.csr_matrix  # of whether they bought it within the last horizon


def pool(
    batches: Iterator[pa.RecordBatch],
    thresholds: Mapping[int, int],
    limit: int,
    horizon_days: float,
) -> Iterator[pa.RecordBatch]:
    """Kernel over a partition of purchases by entity: ENTITY_POOL without run_date.

    `thresholds` are by anchor (microseconds since 1970): entities with a smaller draw belong.
    """
    table = gather(batches)
    if table is None:
        return
    names_of = (schema.ENTITY, schema.ITEM, schema.TIME, DRAW)
    entity, item, time, draw = oldest_first(table, *names_of)
    names, row = np.unique(entity, return_inverse=True)
    for anchor, threshold in thresholds.items():
        seen = windows.is_visible(time, anchor) & (draw < threshold)
        if not seen.any():
            continue
        ages = (anchor - time[seen]) / DAY
        rates = _rates(row[seen], item[seen], ages, horizon_days)
        rows, items, sums, newest = newest_items(row[seen], item[seen], ages, rates, limit)
        owners, lengths = np.unique(rows, return_counts=True)
        yield pa.RecordBatch.from_arrays(
            [
                timestamps(np.full(len(owners), anchor)),
                pa.array(names[owners], pa.int64()),
                lists(items, lengths, pa.int64()),
                lists(sums.astype(np.float32), lengths, pa.float32()),
                lists(newest.astype(np.float32), lengths, pa.float32()),
            ],
            names=[schema.ANCHOR_TIME, schema.ENTITY, schema.ITEMS, schema.RATES, schema.AGES],
        )


def _rates(rows: Array, items: Array, ages: Array, horizon_days: float) -> Array:
    """What each purchase adds to the vector of its entity; rows ascend, oldest first within."""
    size, unknown = int(rows.max()) + 1, np.full(len(rows), np.nan)
    past = History(size, int(items.max()) + 1, rows, items, items, ages, unknown, unknown)
    baskets = np.bincount(rows[past.new_basket()], minlength=size)
    return ratio(decayed_by_basket(past, horizon_days), baskets[rows])


@lru_cache(maxsize=2)
def load(pool_files: tuple[str, ...], state_files: tuple[str, ...], anchor: int) -> Pool:
    """The pool of one anchor; the result is cached, and must not be changed."""
    states = item_state_files.load(state_files, anchor)
    wanted: Sequence[str] = (
        schema.ENTITY, schema.ITEMS, schema.RATES, schema.AGES, schema.TRAITS,
    )  # fmt: skip
    table = files.read(pool_files, wanted, moment(anchor)).sort_by(schema.ENTITY)
    entities = column(table, schema.ENTITY).astype(np.int64)
    items = table[schema.ITEMS].combine_chunks()
    owner = np.repeat(np.arange(len(entities)), items.value_lengths().to_numpy())
    place = states.position(items.flatten().to_numpy())
    here = place >= 0
    cells = (owner[here], place[here])
    shape = (len(entities), len(states.nodes))

    def by_item(name: str) -> sparse.csr_matrix:
        values = table[name].combine_chunks().flatten().to_numpy()[here]
        return sparse.csr_matrix((values.astype(np.float32), cells), shape=shape)

    rates = by_item(schema.RATES)
    columns = matrix(table, schema.TRAITS).astype(np.int64)
    return Pool(entities, directions(rates), rates, by_item(schema.AGES), columns)


def directions(vectors: sparse.csr_matrix) -> sparse.csr_matrix:
    """Rows scaled to length 1; a row of zeros stays."""
    lengths = np.sqrt(np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel())
    return (sparse.diags(1 / np.maximum(lengths, 1e-30)) @ vectors).tocsr()


def votes(entities: Array, own: sparse.csr_matrix, among: Pool, horizon_days: float) -> Votes:
    """What the nearest of the pool say, each as much as any other, the entity itself left out.

    Args:
        entities: int64 (S,), the seeds.
        own: float32 (S, N), their vectors, as the pool's but for their lengths.
        among: of the same anchor and items.
        horizon_days: purchases younger than this are recent.
    """
    seeds = len(entities)
    cosines = (directions(own) @ among.directions.T).tocsr()
    row = np.repeat(np.arange(seeds), np.diff(cosines.indptr))
    other = among.entities[cosines.indices] != entities[row]
    nearest, _ = top_per_row(
        row[other], cosines.indices[other], cosines.data[other], seeds, NEIGHBOURS
    )
    everyone = _means(nearest, len(among.entities))
    recent = among.rates.copy()
    recent.data = (among.ages.data < horizon_days).astype(np.float32)
    recent.eliminate_zeros()
    few = _means(nearest[:, :NEAREST], len(among.entities))
    return Votes(
        rate=product(everyone, among.rates),
        rate_of_nearest=product(few, among.rates),
        recent=product(everyone, recent),
    )


def _means(nearest: Array, pool_size: int) -> sparse.csr_matrix:
    """The matrix that takes means over places in the pool, -1 for none: float32 (S, P)."""
    found = nearest >= 0
    rows, _ = np.nonzero(found)
    shares = (1 / np.maximum(found.sum(axis=1), 1)).astype(np.float32)
    cells = (shares[rows], (rows, nearest[found]))
    return sparse.csr_matrix(cells, shape=(len(nearest), pool_size))
