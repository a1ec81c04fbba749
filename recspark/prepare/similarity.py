"""Items bought by the same entities: cosine of decayed entity vectors, block by block of items.

A block is a range of item nodes. The task of one (anchor, block) holds every history that touches
an item of the block, and the length of every item's vector, so no task sees the whole
item-by-item matrix. Runs on Spark workers; needs numpy, scipy and pyarrow only.
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from scipy import sparse

from recspark import schema, windows
from recspark.prepare.arrow_rows import DAY, Array, column, differs, gather, lists, timestamps
from recspark.prepare.ranking import top_per_row

BLOCK = "item_block"
HISTORIES = (
    f"{schema.ANCHOR_TIME} timestamp, {BLOCK} int, {schema.ENTITY} bigint, "
    f"{schema.ITEMS} array<bigint>, {schema.WEIGHTS} array<float>"
)
SIMILAR = (
    f"{schema.ANCHOR_TIME} timestamp, {schema.ITEM} bigint, "
    f"{schema.SIMILAR_ITEMS} array<bigint>, {schema.SIMILARITIES} array<float>"
)
ITEMS_PER_BLOCK = 20_000
WEIGHT_HALF_LIFE_DAYS = 180.0  # tastes outlive a season; half a year keeps two of them apart
_CELLS_AT_ONCE = 16_000_000  # of the product of a block, so that one task stays below 0.5 GB


def product(left: sparse.csr_matrix, right: sparse.csr_matrix) -> sparse.csr_matrix:
    """The product with each row's columns ascending, which it is not by itself.

    Two transposes order it in a time that is linear in its entries.
    """
    return (left @ right).tocsc().tocsr()


def tastes(rows: Array, items: Array, ages: Array, limit: int) -> tuple[Array, Array, Array, Array]:
    """`newest_items` with weights (float32): log1p of the count that decays with age."""
    decayed = np.exp2(-ages / WEIGHT_HALF_LIFE_DAYS)
    rows, items, counts, newest = newest_items(rows, items, ages, decayed, limit)
    return rows, items, np.log1p(counts).astype(np.float32), newest


def newest_items(
    rows: Array, items: Array, ages: Array, amounts: Array, limit: int
) -> tuple[Array, Array, Array, Array]:
    """The `limit` newest distinct items of each row, with the sum of their amounts.

    Args:
        rows: int, whose history an event belongs to.
        items: int, what was bought.
        ages: float64, days, >= 0; oldest first within a row, in an order that is fixed.
        amounts: float64, what each event counts.
        limit: items kept per row; equal ages by item.

    Returns:
        rows, items, sums (float64), newest ages; sorted by (row, item).
    """
    order = np.lexsort((items, rows))
    rows, items, ages, amounts = rows[order], items[order], ages[order], amounts[order]
    first = differs(rows, items)
    pair = np.cumsum(first) - 1
    sums = np.bincount(pair, amounts)
    last = np.append(np.flatnonzero(first)[1:] - 1, len(rows) - 1)[: len(sums)]
    rows, items, newest = rows[first], items[first], ages[last]
    by_age = np.lexsort((items, newest, rows))
    sizes = np.bincount(rows, minlength=1)
    place = np.arange(len(rows)) - (np.cumsum(sizes) - sizes)[rows[by_age]]
    keep = np.sort(by_age[place < limit])
    return rows[keep], items[keep], sums[keep], newest[keep]


def oldest_first(table: pa.Table, *names: str) -> list[Array]:
    """Columns of purchases by entity, oldest first, equal times by event."""
    keys = (schema.EVENT, schema.TIME, schema.ENTITY)
    order = np.lexsort(tuple(column(table, key) for key in keys))
    return [column(table, name)[order] for name in names]


def histories(
    batches: Iterator[pa.RecordBatch], anchors: Sequence[int], limit: int
) -> Iterator[pa.RecordBatch]:
    """Kernel over a partition of purchases by entity: HISTORIES, one row per block touched.

    `anchors` are microseconds since 1970; a history holds the whole entity, not the block's part.
    """
    table = gather(batches)
    if table is None:
        return
    entity, item, time = oldest_first(table, schema.ENTITY, schema.ITEM, schema.TIME)
    names, row = np.unique(entity, return_inverse=True)
    for anchor in anchors:
        seen = windows.is_visible(time, anchor)
        ages = (anchor - time[seen]) / DAY
        rows, items, weights, _ = tastes(row[seen], item[seen], ages, limit)
        if not len(rows):
            continue
        num_blocks = int(items.max()) // ITEMS_PER_BLOCK + 1
        touched = np.unique(rows * num_blocks + items // ITEMS_PER_BLOCK)
        owner, block = np.divmod(touched, num_blocks)
        sizes = np.bincount(rows)
        starts = np.cumsum(sizes) - sizes
        lengths = sizes[owner]
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        take = np.repeat(starts[owner], lengths) + within
        yield pa.RecordBatch.from_arrays(
            [
                timestamps(np.full(len(owner), anchor)),
                pa.array(block, pa.int32()),
                pa.array(names[owner], pa.int64()),
                lists(items[take], lengths, pa.int64()),
                lists(weights[take], lengths, pa.float32()),
            ],
            names=[schema.ANCHOR_TIME, BLOCK, schema.ENTITY, schema.ITEMS, schema.WEIGHTS],
        )


def similar(
    batches: Iterator[pa.RecordBatch], per_item: int, *, norms_given: bool
) -> Iterator[pa.RecordBatch]:
    """Kernel over whole (anchor, block) groups of HISTORIES: SIMILAR, best first, ties by item.

    With `norms_given`, rows of entity -1 hold the squared lengths of all items; without, there is
    one block, whose histories say them.
    """
    table = gather(batches)
    if table is None:
        return
    table = table.sort_by(
        [(name, "ascending") for name in (schema.ANCHOR_TIME, BLOCK, schema.ENTITY)]
    )
    anchor, block = column(table, schema.ANCHOR_TIME), column(table, BLOCK)
    changes = np.flatnonzero((np.diff(anchor) != 0) | (np.diff(block) != 0)) + 1
    bounds = np.concatenate([[0], changes, [len(anchor)]])
    for start, stop in itertools.pairwise(bounds):
        group = table.slice(start, stop - start)
        yield from _similar_in_block(
            group, int(anchor[start]), int(block[start]), per_item, norms_given
        )


def _similar_in_block(
    group: pa.Table, anchor: int, block: int, per_item: int, norms_given: bool
) -> Iterator[pa.RecordBatch]:
    entity = column(group, schema.ENTITY)
    flat = group[schema.ITEMS].combine_chunks()
    lengths = flat.value_lengths().to_numpy()
    items = flat.flatten().to_numpy()
    weights = group[schema.WEIGHTS].combine_chunks().flatten().to_numpy().astype(np.float64)
    is_norm = np.repeat(entity < 0, lengths)
    rows = np.repeat(np.arange(len(entity)), lengths)
    names, place = np.unique(items, return_inverse=True)
    of_history = ~is_norm
    shape = (len(entity), len(names))
    vectors = sparse.csr_matrix(
        (weights[of_history], (rows[of_history], place[of_history])), shape=shape
    )
    squares = weights[is_norm] if norms_given else vectors.data**2
    owners = place[is_norm] if norms_given else vectors.indices
    norms = np.sqrt(np.bincount(owners, squares, minlength=len(names)))
    scaled = (vectors @ sparse.diags(1 / np.maximum(norms, 1e-12))).tocsr()
    by_item = scaled.T.tocsr()
    mine = np.flatnonzero(names // ITEMS_PER_BLOCK == block)
    step = max(1, _CELLS_AT_ONCE // max(len(names), 1))
    for start in range(0, len(mine), step):
        chunk = mine[start : start + step]
        cosines = (by_item[chunk] @ scaled).tocsr()
        row = np.repeat(np.arange(len(chunk)), np.diff(cosines.indptr))
        other = chunk[row] != cosines.indices
        best, scores = top_per_row(
            row[other], cosines.indices[other], cosines.data[other], len(chunk), per_item
        )
        found = best >= 0
        yield pa.RecordBatch.from_arrays(
            [
                timestamps(np.full(len(chunk), anchor)),
                pa.array(names[chunk], pa.int64()),
                lists(names[best[found]], found.sum(axis=1), pa.int64()),
                lists(scores[found], found.sum(axis=1), pa.float32()),
            ],
            names=[
                schema.ANCHOR_TIME,
                schema.ITEM,
                schema.SIMILAR_ITEMS,
                schema.SIMILARITIES,
            ],
        )
