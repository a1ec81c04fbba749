"""The best few of every row, for many rows at once, with ties broken by item."""

import numpy as np

from recspark.prepare.arrow_rows import Array

_LOW_BITS = np.int64((1 << 32) - 1)


def top_per_row(
    rows: Array, items: Array, scores: Array, num_rows: int, limit: int
) -> tuple[Array, Array]:
    """The `limit` highest positive scores of each row, best first, equal scores by item.

    Args:
        rows: int, ascending, in 0..num_rows-1.
        items: int, in 0..2^32-2, distinct within a row.
        scores: float, compared as float32; those not above 0 are left out.
        num_rows: R.
        limit: L.

    Returns:
        items int64 (R, L), -1 where a row has fewer, and scores float32 (R, L), 0 there.
    """
    scores = scores.astype(np.float32)
    positive = scores > 0
    rows, items, scores = rows[positive], items[positive], scores[positive]
    counts = np.bincount(rows, minlength=num_rows)
    ends = np.cumsum(counts)
    # The bits of positive floats order as integers, so one integer holds score, then item.
    packed = (scores.view(np.int32).astype(np.int64) << 32) | (_LOW_BITS - items)
    keys = np.zeros((num_rows, limit), dtype=np.int64)
    place = np.arange(len(rows)) - np.repeat(ends - counts, counts)
    short = np.repeat(counts <= limit, counts)
    keys[rows[short], place[short]] = packed[short]
    # Row by row: as one matrix they would have to be padded, and equal values slow a partition.
    for row in np.flatnonzero(counts > limit):
        of_row = packed[ends[row] - counts[row] : ends[row]]
        of_row.partition(len(of_row) - limit)
        keys[row] = of_row[len(of_row) - limit :]
    keys = np.sort(keys, axis=1)[:, ::-1]
    found = keys > 0
    best = np.where(found, _LOW_BITS - (keys & _LOW_BITS), -1)
    return best, (keys >> 32).astype(np.int32).view(np.float32)
