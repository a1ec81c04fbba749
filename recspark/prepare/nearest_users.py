"""What the entities with the nearest tastes bought: a pool of entities, drawn per anchor.

Tastes are decayed counts of items, weighed by how few own an item (tf-idf), compared by cosine;
the pool holds at most `POOL_SIZE` entities on average, so that a worker's memory does not grow
with the number of users. Runs on Spark workers; needs numpy, scipy and pyarrow only.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
from scipy import sparse

from recspark import files, schema, windows
from recspark.prepare import item_state_files
from recspark.prepare.arrow_rows import DAY, Array, column, gather, lists, moment, timestamps
from recspark.prepare.ranking import top_per_row
from recspark.prepare.similarity import newest_items, oldest_first

DRAW = "draw"  # bigint   hash of an entity in [0, DRAWS)
DRAWS = 1 << 30
POOL_SIZE = 20_000  # expected entities of the pool of one anchor
NEIGHBOURS = 100  # nearest entities that have a say


@dataclass(frozen=True, eq=False)
class Pool:
    """Tastes of the drawn entities at one anchor, over the N items that exist at it."""

    entities: Array  # int64 (P,), ascending
    directions: sparse.csr_matrix  # float32 (P, N), rows of length 1
    weights: sparse.csr_matrix  # float32 (P, N), log1p of decayed counts
    ages: sparse.csr_matrix  # float32 (P, N), days since the newest purchase, same cells
    rarity: Array  # float32 (N,): log of entities per owner


@dataclass(frozen=True, eq=False)
class Votes:
    """How strongly the nearest entities speak for an item, (S, N) each; 0 where they do not."""

    weighed: sparse.csr_matrix  # by their decayed counts
    recent: sparse.csr_matrix  # by whether they bought it within the last horizon
    owners: sparse.csr_matrix  # by whether they ever bought it


def pool(
    batches: Iterator[pa.RecordBatch], thresholds: Mapping[int, int], limit: int
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
        rows, items, weights, newest = newest_items(row[seen], item[seen], ages, limit)
        owners, lengths = np.unique(rows, return_counts=True)
        yield pa.RecordBatch.from_arrays(
            [
                timestamps(np.full(len(owners), anchor)),
                pa.array(names[owners], pa.int64()),
                lists(items, lengths, pa.int64()),
                lists(weights, lengths, pa.float32()),
                lists(newest.astype(np.float32), lengths, pa.float32()),
            ],
            names=[schema.ANCHOR_TIME, schema.ENTITY, schema.ITEMS, schema.WEIGHTS, schema.AGES],
        )


@lru_cache(maxsize=2)
def load(pool_files: tuple[str, ...], state_files: tuple[str, ...], anchor: int) -> Pool:
    """The pool of one anchor; the result is cached, and must not be changed."""
    states = item_state_files.load(state_files, anchor)
    wanted: Sequence[str] = (schema.ENTITY, schema.ITEMS, schema.WEIGHTS, schema.AGES)
    table = files.read(pool_files, wanted, moment(anchor)).sort_by(schema.ENTITY)
    entities = column(table, schema.ENTITY).astype(np.int64)
    items = table[schema.ITEMS].combine_chunks()
    owner = np.repeat(np.arange(len(entities)), items.value_lengths().to_numpy())
    place = states.position(items.flatten().to_numpy())
    here = place >= 0
    cells = (owner[here], place[here])
    shape = (len(entities), len(states.nodes))

    def matrix(name: str) -> sparse.csr_matrix:
        values = table[name].combine_chunks().flatten().to_numpy()[here]
        return sparse.csr_matrix((values.astype(np.float32), cells), shape=shape)

    weights = matrix(schema.WEIGHTS)
    owners = np.bincount(place[here], minlength=shape[1])
    rarity = np.log((len(entities) + 1) / (owners + 1)).astype(np.float32)
    return Pool(entities, directions(weights, rarity), weights, matrix(schema.AGES), rarity)


def directions(weights: sparse.csr_matrix, rarity: Array) -> sparse.csr_matrix:
    """Rows times `rarity`, scaled to length 1; a row of zeros stays."""
    scaled = (weights @ sparse.diags(rarity)).tocsr()
    lengths = np.sqrt(np.asarray(scaled.multiply(scaled).sum(axis=1)).ravel())
    return (sparse.diags(1 / np.maximum(lengths, 1e-12)) @ scaled).tocsr()


def votes(entities: Array, taste: sparse.csr_matrix, among: Pool, horizon_days: float) -> Votes:
    """What the nearest of the pool say, the entity itself left out; shares of a vote add to 1.

    Args:
        entities: int64 (S,), the seeds.
        taste: float32 (S, N), weights as the pool's.
        among: of the same anchor and items.
        horizon_days: purchases younger than this are recent.
    """
    seeds = len(entities)
    cosines = (directions(taste, among.rarity) @ among.directions.T).tocsr()
    cosines.sort_indices()
    row = np.repeat(np.arange(seeds), np.diff(cosines.indptr))
    other = among.entities[cosines.indices] != entities[row]
    nearest, similarity = top_per_row(
        row[other], cosines.indices[other], cosines.data[other], seeds, NEIGHBOURS
    )
    found = nearest >= 0
    total = np.maximum(similarity.sum(axis=1, keepdims=True), 1e-12)
    shares = sparse.csr_matrix(
        ((similarity / total)[found], (np.nonzero(found)[0], nearest[found])),
        shape=(seeds, len(among.entities)),
        dtype=np.float32,
    )
    owned, recent = among.weights.copy(), among.weights.copy()
    owned.data = np.ones_like(owned.data)
    recent.data = (among.ages.data < horizon_days).astype(np.float32)
    recent.eliminate_zeros()
    found_by = [(shares @ said).tocsr() for said in (among.weights, recent, owned)]
    for counted in found_by:
        counted.sort_indices()
    return Votes(*found_by)
