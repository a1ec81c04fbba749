"""How good ranked lists are, from flat numpy arrays.

A *ragged* pair `(values, offsets)` holds the list of user u in `values[offsets[u]:offsets[u + 1]]`;
offsets (int64, users + 1) start at 0 and end at the length of values. Imports neither Spark nor
torch, so that Spark workers and training ranks measure with the same code.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Ragged: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]

MAP = "map"
NDCG = "ndcg"
RECALL = "recall"
PRECISION = "precision"
HIT_RATE = "hit_rate"
COVERAGE = "coverage"  # of all lists together, so not among the per-user metrics
POPULARITY_SHARE = "popularity_share"  # likewise: places that the K most popular items take
PER_USER = (MAP, NDCG, RECALL, PRECISION, HIT_RATE)


def name(metric: str, k: int) -> str:
    """How a metric is called in tables, in MLflow and in JSON: `map_at_12`."""
    return f"{metric}_at_{k}"


def names(k: int) -> tuple[str, ...]:
    """The names of the per-user metrics, in the order of tables: `map_at_12`, ..."""
    return tuple(name(metric, k) for metric in PER_USER)


def per_user(ranked: Ragged, truths: Ragged, k: int) -> dict[str, NDArray[np.float64]]:
    """Every per-user metric at K, by its name, each float64 (users,) in [0, 1].

    With `hit_r` 1 where the item at rank r = 1..K is a truth, T the number of truths and
    P_r = (hit_1 + ... + hit_r) / r:

    - map: sum_r hit_r P_r / min(T, K); RelBench's `link_prediction_map` (Robinson et al. 2024,
      arXiv 2407.20060).
    - ndcg: sum_r hit_r / log2(r + 1), divided by sum_{r <= min(T, K)} 1 / log2(r + 1); binary
      gains (Järvelin and Kekäläinen 2002, doi 10.1145/582415.582418).
    - recall: sum_r hit_r / T; RelBench's `link_prediction_recall`.
    - precision: sum_r hit_r / K, also for lists shorter than K; RelBench's
      `link_prediction_precision`.
    - hit_rate: 1 if any hit_r (Deshpande and Karypis 2004, doi 10.1145/963770.963776).

    Args:
        ranked: item lists, best first; what lies beyond K is ignored, and lists may be shorter or
            empty. An item that comes twice counts at its first rank only.
        truths: what was bought, in any order; an item that comes twice counts once.
        k: length of the lists that are judged, >= 1.

    Users without truths are NaN everywhere: they belong to no mean.
    """
    assert k >= 1, k
    assert ranked[1].size == truths[1].size, "one list and one set of truths per user"
    num_users = truths[1].size - 1
    hits, num_truths = _hits(ranked, truths, k)
    most = np.minimum(num_truths, k)  # hits that a perfect list has
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate(([0.0], np.cumsum(discounts)))[most]
    num_hits = hits.sum(axis=1)
    precisions = np.cumsum(hits, axis=1) / np.arange(1, k + 1)
    known = num_truths > 0

    def share(part: NDArray[np.float64], whole: NDArray[np.generic]) -> NDArray[np.float64]:
        quotient = np.full(num_users, np.nan)
        np.divide(part, whole, out=quotient, where=known)
        return quotient

    everything = np.ones(num_users)
    values = {
        MAP: share((precisions * hits).sum(axis=1), most),
        NDCG: share((hits * discounts).sum(axis=1), ideal),
        RECALL: share(num_hits, num_truths),
        PRECISION: share(num_hits, everything * k),
        HIT_RATE: share((num_hits > 0).astype(np.float64), everything),
    }
    return {name(metric, k): values[metric] for metric in PER_USER}


def _hits(ranked: Ragged, truths: Ragged, k: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Whether each rank holds a truth (users, k), and the number of distinct truths (users,)."""
    num_users = truths[1].size - 1
    users, ranks, items = _top(ranked, k)
    true_users = np.repeat(np.arange(num_users), np.diff(truths[1]))
    distinct, codes = np.unique(np.concatenate((items, truths[0])), return_inverse=True)
    keys = np.concatenate((users, true_users)) * distinct.size + codes  # one number per pair
    listed, true_keys = keys[: items.size], np.unique(keys[items.size :])
    is_first = np.zeros(items.size, dtype=bool)
    is_first[np.unique(listed, return_index=True)[1]] = True
    hits = np.zeros((num_users, k))
    hits[users, ranks] = is_first & np.isin(listed, true_keys)
    num_truths = np.bincount(true_keys // max(distinct.size, 1), minlength=num_users)
    return hits, num_truths.astype(np.int64)


def _top(ranked: Ragged, k: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """User, rank from 0, and item of every entry among the first K of its list."""
    values, offsets = ranked
    lengths = np.diff(offsets)
    users = np.repeat(np.arange(lengths.size), lengths)
    ranks = np.arange(values.size) - np.repeat(offsets[:-1], lengths)
    kept = ranks < k
    return users[kept], ranks[kept], values[kept]
