"""Which items a seed looks at: five sources, merged by best rank. numpy and scipy only."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from recspark.prepare import closest, nearest_users
from recspark.prepare.arrow_rows import Array, Columns, differs
from recspark.prepare.item_state_files import ItemStates
from recspark.prepare.nearest_users import Pool
from recspark.prepare.pair_history import History, Pairs
from recspark.prepare.ranking import top_per_row
from recspark.prepare.similarity import product, tastes

SOURCES = (
    "bought",
    "copurchased",
    "neighbours",
    "popular",
    "new",
)  # equal ranks merge in this order
_NEW_FOR_HORIZONS = 2.0  # an item is new for so long after it first sold or went on sale
_NEW_SHARE = 5  # one in so many candidates, at most, is there because it is new
_FAINT = 1e-30  # keeps purchases of long ago above 0 in float32


@dataclass(frozen=True, eq=False)
class Retrieved:
    """Candidates of a block of S seeds, C each, C = min(per_seed, N); best merged rank first."""

    items: Array  # int64 (S, C), positions among the existing items
    columns: Columns  # float (S * C,): ranks from 1 (NaN: not retrieved) and scores
    because: Array  # int64 (S, C), position of the own item most like the candidate, -1 for none


def retrieve(
    history: History,
    pairs: Pairs,
    states: ItemStates,
    trend: Columns,
    entities: Array,
    pool: Pool,
    *,
    horizon_days: float,
    per_seed: int,
    history_per_entity: int,
) -> Retrieved:
    """Exactly min(per_seed, N) distinct existing items for every seed, ties by item.

    `entities` (S,) are the seeds' nodes, `pool` is of the same anchor.
    """
    seeds, num_items = history.num_seeds, history.num_items
    limit = min(per_seed, num_items)
    owner, owned = np.divmod(pairs.key, max(num_items, 1))
    frequency = np.maximum(pairs.columns["decayed_three"], _FAINT)
    bought, _ = top_per_row(owner, owned, frequency, seeds, limit)
    taste, ages = _taste(history, history_per_entity)
    together = product(taste, states.similar)
    votes = nearest_users.votes(entities, _rates(pairs, seeds, num_items), pool, horizon_days)
    copurchased, neighbours = _best(together, limit), _best(votes.rate, limit)
    popular = np.lexsort((np.arange(num_items), -trend["log_decayed_sales_horizon"]))
    new = _new_items(trend, horizon_days)[: max(limit // _NEW_SHARE, 1)]
    lists = {
        "bought": bought,
        "copurchased": copurchased,
        "neighbours": neighbours,
        "popular": np.broadcast_to(popular[:limit], (seeds, limit)),
        "new": np.broadcast_to(new, (seeds, len(new))),
    }
    items = _merge(lists, seeds, num_items, limit)
    keys = (np.arange(seeds)[:, None] * num_items + items).ravel()
    columns = {f"{name}_rank": _ranks(lists[name], num_items, keys) for name in SOURCES}
    popularity = np.empty(num_items)
    popularity[popular] = np.arange(1, num_items + 1)
    columns["popularity_place"] = popularity[items.ravel()]
    columns["copurchase_score"] = _cells(together, keys)
    weight = np.repeat(np.asarray(taste.sum(axis=1)).ravel(), limit)
    share = columns["copurchase_score"] / np.where(weight > 0, weight, 1)
    columns["copurchase_mean"] = np.where(weight > 0, share, np.nan)
    columns["basket_similarity"] = _cells(product(_last_basket(history), states.similar), keys)
    columns |= {f"neighbours_{name}": _cells(said, keys) for name, said in vars(votes).items()}
    best, because = closest.closest(taste, states.similar, keys)
    young = closest.young(taste, ages, horizon_days)
    columns["closest_similarity"] = best
    columns["closest_recent_similarity"], _ = closest.closest(young, states.similar, keys)
    columns["recent_copurchase"] = _cells(product(young, states.similar), keys)
    return Retrieved(items, columns, because.reshape(items.shape))


def _best(scores: sparse.csr_matrix, limit: int) -> Array:
    """Columns of the highest positive entries of each row, (S, limit)."""
    rows = np.repeat(np.arange(scores.shape[0]), np.diff(scores.indptr))
    return top_per_row(rows, scores.indices, scores.data, scores.shape[0], limit)[0]


def _taste(history: History, limit: int) -> tuple[sparse.csr_matrix, Array]:
    """Seeds x items: weights of the newest distinct items; and the age of each cell, days."""
    here = history.item >= 0
    rows, items, weights, ages = tastes(
        history.seed[here], history.item[here], history.age[here], limit
    )
    shape = (history.num_seeds, history.num_items)
    return sparse.csr_matrix((weights, (rows, items)), shape=shape), ages


def _rates(pairs: Pairs, seeds: int, num_items: int) -> sparse.csr_matrix:
    """Seeds x items: decayed purchases, as those of the pool but not per basket."""
    cells = np.divmod(pairs.key, max(num_items, 1))
    rates = pairs.columns["decayed_by_basket"].astype(np.float32)
    return sparse.csr_matrix((rates, cells), shape=(seeds, num_items))


def _last_basket(history: History) -> sparse.csr_matrix:
    newest = (history.item >= 0) & (history.baskets_ago == 0)
    cells = np.unique(history.seed[newest] * history.num_items + history.item[newest])
    rows, items = np.divmod(cells, max(history.num_items, 1))
    ones = np.ones(len(cells), dtype=np.float32)
    return sparse.csr_matrix((ones, (rows, items)), shape=(history.num_seeds, history.num_items))


def _cells(matrix: sparse.csr_matrix, keys: Array) -> Array:
    """Entries at `row * columns + column`, 0 where there is none."""
    assert matrix.has_sorted_indices, "looked up by bisection"
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return _look_up(rows * matrix.shape[1] + matrix.indices, matrix.data, keys, 0.0)


def _new_items(trend: Columns, horizon_days: float) -> Array:
    """Recently started items, by sales per day since; ties by item."""
    age = np.fmin(trend["days_on_sale"], np.inf)
    age = np.where(np.isnan(age), trend["days_since_first_sale"], age)
    recent = np.flatnonzero(age < _NEW_FOR_HORIZONS * horizon_days)
    # A week in the denominator keeps the first sale of a day-old item from topping the list.
    pace = (np.expm1(trend["log_sales_365"][recent]) + 0.5) / (age[recent] + 7)
    return recent[np.lexsort((recent, -pace))]


def _merge(lists: dict[str, Array], num_seeds: int, num_items: int, limit: int) -> Array:
    """Positions (S, limit) by best rank over the sources, equal ranks in their order."""
    width = sum(found.shape[1] for found in lists.values())
    rank = np.concatenate([np.arange(found.shape[1]) for found in lists.values()])
    source = np.repeat(np.arange(len(lists)), [found.shape[1] for found in lists.values()])
    priority = np.broadcast_to(rank * len(SOURCES) + source, (num_seeds, width))
    items = np.concatenate(list(lists.values()), axis=1)
    seeds = np.broadcast_to(np.arange(num_seeds)[:, None], (num_seeds, width))
    real = items >= 0
    seeds, items, priority = seeds[real], items[real], priority[real]
    order = np.lexsort((priority, seeds * max(num_items, 1) + items))
    seeds, items, priority = seeds[order], items[order], priority[order]
    best = differs(seeds, items)
    seeds, items, priority = seeds[best], items[best], priority[best]
    order = np.lexsort((priority, seeds))
    counts = np.bincount(seeds, minlength=num_seeds)
    place = np.arange(len(seeds)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.asarray(items[order][place < limit].reshape(num_seeds, limit))


def _ranks(found: Array, num_items: int, keys: Array) -> Array:
    seeds, place = np.nonzero(found >= 0)
    listed = seeds * num_items + found[seeds, place]
    order = np.argsort(listed, kind="stable")
    return _look_up(listed[order], place[order] + 1.0, keys, np.nan)


def _look_up(sorted_keys: Array, values: Array, keys: Array, missing: float) -> Array:
    if not len(sorted_keys):
        return np.full(len(keys), missing)
    place = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return np.where(sorted_keys[place] == keys, values[place], missing)
