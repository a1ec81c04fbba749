"""What a seed likes: the categories, merchants and prices of which it buys more than others do.

A trait of an item is a category column, a row that a foreign key points to, or the tier of its
price. A seed's taste for a value of a trait is the logarithm of the value's share among the
distinct items that the seed bought over its share among everybody's. The seed's share is the
posterior mean under a Dirichlet prior: as if it had bought `PRIOR` more items, like everybody
(Gelman et al. 2013, Bayesian Data Analysis, section 3.4). So it is 0 without a history.

Within each value of a trait, a category say, there is a taste for cheap or dear ones too: one tier
of `TIERS_WITHIN` against the others of the value. The seed's share is smoothed there by everybody's
times how much the seed is inclined to the tier wherever it buys.

numpy only; NaN where the item has no such trait.
Axes: N items, S seeds, R pairs of a seed and a candidate.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recspark.encodings import TASTE, Encodings
from recspark.prepare.arrow_rows import Array, Columns, differs
from recspark.prepare.pair_history import Pairs, ratio

PRIOR = 6.0  # items
PRICE_TIERS = 8  # of equally many items each
TIERS_WITHIN = 3  # of the items of one value, likewise
_PRIOR_WITHIN = 4.0  # items that everybody's share of a tier counts as within a value
_PRIOR_INCLINED = 3.0  # purchases of a tier, likewise in all values together
UNKNOWN = -1  # value of a trait that the item does not have
_UNSEEN = 0.5  # sales that an item without any counts as


def traits(encodings: Encodings) -> tuple[str, ...]:
    """The columns of `traits` in the item states."""
    items = encodings.nodes[encodings.item_table]
    categories = (category.column for category in items.categories)
    return (*categories, *(column for column, _ in items.foreign_keys))


def names(item_traits: Sequence[str]) -> tuple[str, ...]:
    """The columns of `tastes`, in order; that of all traits together is named as the reason."""
    return (
        *(f"{TASTE}_of_{trait}" for trait in item_traits),
        *(f"{TASTE}_by_price_within_{trait}" for trait in item_traits),
        f"{TASTE}_by_price",
        TASTE,
    )


def tastes(
    pairs: Pairs,
    trend: Columns,
    item_traits: Columns,
    *,
    seed: Array,
    item: Array,
    num_seeds: int,
) -> Columns:
    """`names` for every pair of `seed` and `item`, float64 (R,).

    `taste` is what naive Bayes makes of them: the logarithm of the item's sales of late, the
    tastes for its traits, and that for its price, within its traits where it has some.

    Args:
        pairs: what the seeds bought.
        trend: what is known of the items by position.
        item_traits: value of each trait by position of the item, or `UNKNOWN`; int64 (N,).
        seed: int64 (R,), positions.
        item: int64 (R,), positions.
        num_seeds: S.
    """
    asked = _Asked(
        *np.divmod(pairs.key, len(trend["log_owners"])),
        owners_N=np.expm1(np.nan_to_num(trend["log_owners"])),
        seed=seed, item=item, num_seeds=num_seeds,
    )  # fmt: skip
    log_price_N = trend["log_price"]
    of_traits = {name: asked.of_trait(value_N) for name, value_N in item_traits.items()}
    within = {n: asked.of_price_within(v, log_price_N) for n, v in item_traits.items()}
    by_price = asked.of_trait(price_tiers(log_price_N))
    values = (*of_traits.values(), *within.values(), by_price)
    found: Columns = dict(zip(names(list(item_traits))[:-1], values, strict=True))
    known = sum((~np.isnan(taste) for taste in within.values()), np.zeros(len(seed)))
    mean_within = ratio(sum(map(np.nan_to_num, within.values()), np.zeros(len(seed))), known)
    of_price = np.nan_to_num(np.where(known > 0, mean_within, by_price))
    sold_N = np.log(np.expm1(trend["log_decayed_sales_30"]) + _UNSEEN)
    return found | {TASTE: sold_N[item] + of_price + sum(map(np.nan_to_num, of_traits.values()))}


@dataclass(frozen=True, eq=False)
class _Asked:
    """What the seeds bought, and of which items their taste is asked."""

    bought_by: Array  # int64 (P,), seeds of the pairs bought
    bought: Array  # int64 (P,), items
    owners_N: Array
    seed: Array  # int64 (R,)
    item: Array  # int64 (R,)
    num_seeds: int

    def of_trait(self, value_N: Array) -> Array:
        """Taste for the value of one trait, float64 (R,)."""
        asked_R = value_N[self.item]
        share_R = _shares(value_N, self.owners_N)[self.item]
        mine_R = self._counts(value_N, asked_R[:, None])[:, 0]
        total_S = np.bincount(self._bought_of(value_N)[0], minlength=self.num_seeds)
        likes = np.nan_to_num(ratio(mine_R, share_R))
        taste = np.log((likes + PRIOR) / (total_S[self.seed] + PRIOR))
        return np.where(asked_R != UNKNOWN, taste, np.nan)

    def of_price_within(self, value_N: Array, log_price_N: Array) -> Array:
        """Taste for the item's tier of prices among the items of its value, float64 (R,)."""
        tier_N = tiers_within(value_N, log_price_N)
        known_N = tier_N != UNKNOWN
        if not known_N.any():
            return np.full(len(self.item), np.nan)
        value_N, num_values = np.where(known_N, value_N, UNKNOWN), int(value_N.max()) + 1
        cell_N = np.where(known_N, value_N * TIERS_WITHIN + tier_N, UNKNOWN)
        sold = np.bincount(
            cell_N[known_N], self.owners_N[known_N], minlength=num_values * TIERS_WITHIN
        )
        sold_VT = sold.reshape(-1, TIERS_WITHIN) + _UNSEEN
        usual_VT = sold_VT / sold_VT.sum(axis=1, keepdims=True)
        inclined_ST = self._inclined(value_N, tier_N, usual_VT)
        value = np.maximum(value_N, 0)[self.item]
        cells_RT = value[:, None] * TIERS_WITHIN + np.arange(TIERS_WITHIN)
        counts_RT = self._counts(cell_N, cells_RT)
        prior_RT = usual_VT[value] * inclined_ST[self.seed]
        prior_RT *= _PRIOR_WITHIN / prior_RT.sum(axis=1, keepdims=True)
        share_RT = (counts_RT + prior_RT) / (counts_RT.sum(axis=1, keepdims=True) + _PRIOR_WITHIN)
        tier = np.maximum(tier_N, 0)[self.item][:, None]
        taste_RT = np.log(share_RT / usual_VT[value])
        taste = np.take_along_axis(taste_RT, tier, axis=1)[:, 0]
        return np.where(known_N[self.item], taste, np.nan)

    def _inclined(self, value_N: Array, tier_N: Array, usual_VT: Array) -> Array:
        """Purchases of each tier over those that everybody's shares promise, (S, T)."""
        buyer, item = self._bought_of(value_N)
        cell, size = buyer * TIERS_WITHIN + tier_N[item], self.num_seeds * TIERS_WITHIN
        bought_ST = np.bincount(cell, minlength=size).reshape(-1, TIERS_WITHIN)
        promised_ST = np.stack(
            [
                np.bincount(buyer, usual_VT[value_N[item], tier], self.num_seeds)
                for tier in range(TIERS_WITHIN)
            ],
            axis=1,
        )
        return np.asarray((bought_ST + _PRIOR_INCLINED) / (promised_ST + _PRIOR_INCLINED))

    def _counts(self, value_N: Array, asked_RT: Array) -> Array:
        """How many items of each of these values the pair's seed bought, float64 (R, T)."""
        buyer, item = self._bought_of(value_N)
        num_values = int(value_N.max(initial=UNKNOWN)) + 1
        key, counts = np.unique(buyer * num_values + value_N[item], return_counts=True)
        of_value = Pairs(key, {"items": counts.astype(float)})
        wanted_RT = self.seed[:, None] * num_values + asked_RT
        rows_RT = of_value.find(np.where(asked_RT < num_values, wanted_RT, -1))
        return of_value.at(rows_RT, "items", 0.0)

    def _bought_of(self, value_N: Array) -> tuple[Array, Array]:
        """The seeds and items of the pairs bought whose item has a value."""
        known = value_N[self.bought] != UNKNOWN
        return self.bought_by[known], self.bought[known]


def tiers_within(value_N: Array, log_price_N: Array) -> Array:
    """Tier of each item's price among those of its value, int64 (N,), 0 for the cheapest.

    `UNKNOWN` where value or price is, or where a value has fewer than two items to a tier.
    """
    known = np.flatnonzero((value_N != UNKNOWN) & ~np.isnan(log_price_N))
    order = known[np.lexsort((log_price_N[known], value_N[known]))]
    value = value_N[order]
    first = np.searchsorted(value, value)
    size = np.searchsorted(value, value, side="right") - first
    # The place of the first of equals, so that equal prices are of one tier.
    opens = np.flatnonzero(differs(value, log_price_N[order]))
    place = np.repeat(opens, np.diff(opens, append=len(order))) - first
    tier_N = np.full(len(value_N), UNKNOWN)
    tier_N[order] = np.where(size >= 2 * TIERS_WITHIN, place * TIERS_WITHIN // size, UNKNOWN)
    return tier_N


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
