"""Of everything that a seed bought: what goes best with a candidate. numpy and scipy only."""

import numpy as np
from scipy import sparse

from recspark.prepare.arrow_rows import Array


def young(taste: sparse.csr_matrix, ages: Array, days: float) -> sparse.csr_matrix:
    """1 at the cells of `taste` that are younger than `days`; `ages` are aligned with its cells."""
    recent = taste.copy()
    recent.data = (ages < days).astype(np.float32)
    recent.eliminate_zeros()
    return recent


def closest(
    owned: sparse.csr_matrix, similar: sparse.csr_matrix, keys: Array
) -> tuple[Array, Array]:
    """The highest cosine of each candidate with an owned item, and that item.

    Args:
        owned: (S, N), a cell for each item that a seed owns.
        similar: (N, N), row i holds the cosines of the items like i.
        keys: int64, `seed * N + candidate`, distinct.

    Returns:
        float64 cosine, 0 where no owned item is like the candidate, and int64 position of the
        owned item, -1 there; of equals the lower position.
    """
    num_seeds, num_items = owned.shape
    seed = np.repeat(np.arange(num_seeds), np.diff(owned.indptr))
    lengths = np.diff(similar.indptr)[owned.indices]
    starts = similar.indptr[owned.indices]
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    cell = np.repeat(starts, lengths) + within
    order = np.argsort(keys)
    if not len(cell) or not len(keys):
        return np.zeros(len(keys)), np.full(len(keys), -1)
    wanted = keys[order]
    pair = np.repeat(seed, lengths) * num_items + similar.indices[cell]
    place = np.minimum(np.searchsorted(wanted, pair), len(wanted) - 1)
    here = wanted[place] == pair
    place, cosine = place[here], similar.data[cell[here]].astype(np.float32)
    owner = np.repeat(owned.indices, lengths)[here]
    # One integer orders by cosine, then by lower position: positive floats order as their bits.
    packed = (cosine.view(np.int32).astype(np.int64) << 32) | (num_items - owner)
    best = np.zeros(len(keys), dtype=np.int64)
    np.maximum.at(best, order[place], packed)
    found = best > 0
    because = np.where(found, num_items - (best & 0xFFFFFFFF), -1)
    return (best >> 32).astype(np.int32).view(np.float32).astype(np.float64), because
