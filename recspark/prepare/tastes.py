"""What a seed likes: the categories, merchants and prices of which it buys more than others do.

A trait of an item is a category column, a row that a foreign key points to, or the tier of its
price. A seed's taste for a value of a trait is the logarithm of the value's share among the
distinct items that the seed bought over its share among everybody's. The seed's share is the
posterior mean under a Dirichlet prior: as if it had bought `PRIOR` more items, like everybody
(Gelman et al. 2013, Bayesian Data Analysis, section 3.4). So it is 0 without a history.

numpy only; NaN where the item has no such trait.
"""

from collections.abc import Sequence

import numpy as np

from recspark.encodings import TASTE, Encodings
from recspark.prepare.arrow_rows import Array, Columns
from recspark.prepare.pair_history import Pairs, ratio

PRIOR = 6.0  # items
PRICE_TIERS = 8  # of equally many items each
UNKNOWN = -1  # value of a trait that the item does not have
_UNSEEN = 0.5  # sales that an item without any counts as


def traits(encodings: Encodings) -> tuple[str, ...]:
    """The columns of `traits` in the item states."""
    items = encodings.nodes[encodings.item_table]
    categories = (category.column for category in items.categories)
    return (*categories, *(column for column, _ in items.foreign_keys))


def names(item_traits: Sequence[str]) -> tuple[str, ...]:
    """The columns of `tastes`, in order; that of all traits together is named as the reason."""
    return (*(f"{TASTE}_of_{trait}" for trait in item_traits), f"{TASTE}_by_price", TASTE)


def tastes(
    pairs: Pairs,
    trend: Columns,
    item_traits: Columns,
    *,
    seed: Array,
    item: Array,
    num_seeds: int,
) -> Columns:
    """`names` for every pair of `seed` and `item`, float64 (S * C,).

    `taste` is what naive Bayes makes of all of them: the logarithm of the item's sales of late,
    and the tastes for its traits.

    Args:
        pairs: what the seeds bought.
        trend: what is known of the items by position.
        item_traits: value of each trait by position of the item, or `UNKNOWN`; int64 (N,).
        seed: int64 (S * C,), positions.
        item: int64 (S * C,), positions.
        num_seeds: S.
    """
    owners_N = np.expm1(np.nan_to_num(trend["log_owners"]))
    bought_by, bought = np.divmod(pairs.key, len(owners_N))
    values = (*item_traits.values(), price_tiers(trend["log_price"]))
    found: Columns = {}
    for name, value_N in zip(names(list(item_traits))[:-1], values, strict=True):
        known = value_N[bought] != UNKNOWN
        buyer, num_values = bought_by[known], int(value_N.max(initial=UNKNOWN)) + 1
        key, counts = np.unique(buyer * num_values + value_N[bought[known]], return_counts=True)
        of_value = Pairs(key, {"items": counts.astype(float)})
        mine = of_value.at(of_value.find(seed * num_values + value_N[item]), "items", 0.0)
        total_S = np.bincount(buyer, minlength=num_seeds)
        likes = np.nan_to_num(ratio(mine, _shares(value_N, owners_N)[item]))
        taste = np.log((likes + PRIOR) / (total_S[seed] + PRIOR))
        found[name] = np.where(value_N[item] != UNKNOWN, taste, np.nan)
    sold_N = np.log(np.expm1(trend["log_decayed_sales_30"]) + _UNSEEN)
    return found | {TASTE: sold_N[item] + sum(map(np.nan_to_num, found.values()))}


def price_tiers(log_price_N: Array) -> Array:
    """Tier of each item's usual price, int64 (N,), from 0 for the cheapest."""
    known = ~np.isnan(log_price_N)
    tier_N = np.full(len(log_price_N), UNKNOWN)
    if known.any():
        inner = np.arange(1, PRICE_TIERS) / PRICE_TIERS
        edges = np.quantile(log_price_N[known], inner)
        tier_N[known] = np.searchsorted(edges, log_price_N[known], side="right")
    return tier_N


def _shares(value_N: Array, owners_N: Array) -> Array:
    """Share of each item's value among everybody's purchases, float64 (N,)."""
    known = value_N != UNKNOWN
    by_value = np.bincount(value_N[known], owners_N[known], minlength=1)
    return np.asarray(by_value[np.maximum(value_N, 0)] / max(by_value.sum(), 1.0))
