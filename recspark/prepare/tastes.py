"""What a seed likes: the categories, merchants and prices of which it buys more than others do.

A trait of an item is a category column, a row that a foreign key points to, or the tier of its
price. A seed's taste for a value of a trait is the logarithm of the value's share among the
distinct items that the seed bought over its share among everybody's. The seed's share is the
posterior mean under a Dirichlet prior: as if it had bought `PRIOR` more items, like everybody
(Gelman et al. 2013, Bayesian Data Analysis, section 3.4). So it is 0 without a history.

numpy only; NaN where the item has no such trait.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from recspark.encodings import Encodings
from recspark.prepare.arrow_rows import Array, Columns
from recspark.prepare.pair_history import Pairs, ratio

PRIOR = 6.0  # items
PRICE_TIERS = 8  # of equally many items each
UNKNOWN = -1  # value of a trait that the item does not have
OF_ALL = "taste"  # the name of what all traits say together, and how those of one start
_UNSEEN = 0.5  # sales that an item without any counts as


def traits(encodings: Encodings) -> tuple[str, ...]:
    """The columns of `traits` in the item states."""
    items = encodings.nodes[encodings.item_table]
    categories = (category.column for category in items.categories)
    return (*categories, *(column for column, _ in items.foreign_keys))


def names(item_traits: Sequence[str]) -> tuple[str, ...]:
    """The columns of `tastes`, in order."""
    return (*(f"{OF_ALL}_of_{trait}" for trait in item_traits), f"{OF_ALL}_by_price", OF_ALL)


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
        counts = _Counts.of(bought_by[known], value_N[bought][known], num_seeds)
        share = _shares(value_N, owners_N)
        found[name] = counts.taste(seed, value_N[item], share[item])
    sold_N = np.log(np.expm1(trend["log_decayed_sales_30"]) + _UNSEEN)
    return found | {OF_ALL: sold_N[item] + sum(map(np.nan_to_num, found.values()))}


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


@dataclass(frozen=True, eq=False)
class _Counts:
    """How many distinct items of each value every seed bought."""

    num_values: int
    key: Array  # int64, ascending: seed * num_values + value
    count: Array  # float64
    total_S: Array  # float64

    @classmethod
    def of(cls, seed: Array, value: Array, num_seeds: int) -> Self:
        num_values = int(value.max(initial=-1)) + 1
        key, count = np.unique(seed * num_values + value, return_counts=True)
        total = np.bincount(seed, minlength=num_seeds).astype(float)
        return cls(num_values, key, count.astype(float), total)

    def taste(self, seed: Array, value: Array, share: Array) -> Array:
        """For every (seed, value), with the value's share among everybody's purchases."""
        wanted = np.where(value < self.num_values, seed * self.num_values + value, -1)
        place = np.searchsorted(self.key, wanted)
        here = np.append(self.key, -2)[place] == wanted
        bought = np.append(self.count, 0.0)[np.where(here, place, len(self.key))]
        likes = ratio(bought, share)
        taste = np.log((np.nan_to_num(likes) + PRIOR) / (self.total_S[seed] + PRIOR))
        return np.where(value != UNKNOWN, taste, np.nan)
