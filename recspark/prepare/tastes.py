"""What a seed likes: the categories, merchants and prices of which it buys more than others do.

A trait of an item is a category column, a row that a foreign key points to, or the tier of its
price. A seed's taste for a value of a trait is the logarithm of how large a share of its next
purchases has the value, over the share among everybody's. It comes from the class of customers that
the seed seems to belong to (`prepare.latent_classes`) and from its own purchases: the posterior
mean under a Dirichlet prior, as if it had bought so many more items, like its class (Gelman et al.
2013, Bayesian Data Analysis, section 3.4). Of a seed without a history only its own columns tell.

numpy and scipy only; NaN where the item has no such trait.
Axes: N items, S seeds, R pairs of a seed and a candidate, K classes.
"""

from collections.abc import Sequence

import numpy as np

from recspark.encodings import TASTE
from recspark.prepare.arrow_rows import Array, Columns, differs
from recspark.prepare.latent_classes import Classes
from recspark.prepare.pair_history import Pairs
from recspark.prepare.trait_counts import UNKNOWN

PRICE_TIERS = 8  # of equally many items each
TIERS_WITHIN = 3  # of the items of one value, likewise
_UNSEEN = 0.5  # first buyers that an item has beside those it has
_FEWEST_LEFT = 0.05  # share of the customers who have yet to buy an item that all own
OVERALL = f"{TASTE}_overall"


def names(item_traits: Sequence[str]) -> tuple[str, ...]:
    """The columns of `tastes`, in order; that of all traits and demand is named as the reason.

    Where there is no trait but the price, the taste for that is the one over all.
    """
    of_traits = tuple(f"{TASTE}_of_{trait}" for trait in item_traits)
    return (*of_traits, f"{TASTE}_by_price", *((OVERALL,) if item_traits else ()), TASTE)


def tastes(
    pairs: Pairs,
    log_demand_N: Array,
    classes: Classes,
    *,
    item_traits: Sequence[str],
    seed: Array,
    item: Array,
    columns_SW: Array,
) -> Columns:
    """`names` for every pair of `seed` and `item`, float64 (R,).

    `taste_overall` is the taste for the item, from all of its traits together; `taste` adds how
    much others want it.

    Args:
        pairs: what the seeds bought.
        log_demand_N: of the items, `log_demand`.
        classes: of the anchor's customers, by `item_traits` and the price (`with_price`).
        item_traits: names of the traits.
        seed: int64 (R,), positions.
        item: int64 (R,), positions.
        columns_SW: int64, the seeds' own categories and what they point to, `UNKNOWN` for none.
    """
    traits = classes.traits
    counts = traits.counts(*np.divmod(pairs.key, len(traits.usual_N)), len(columns_SW))
    belongs_RK = classes.belongs(counts, columns_SW)[seed]
    overall_RK = belongs_RK * classes.lift_KN[:, item].T
    found: Columns = {}
    of_traits = names(item_traits)[: len(counts)]
    for number, (name, of_trait) in enumerate(zip(of_traits, counts, strict=True)):
        value = traits.values[number][item]
        known, value = value != UNKNOWN, np.maximum(value, 0)
        class_RK = classes.shares[number][:, value].T
        strength = classes.strength_T[number]
        own = of_trait.at(seed, value)[:, None] / np.where(class_RK > 0, class_RK, 1.0)
        against_class_RK = (own + strength) / (of_trait.total_U[seed][:, None] + strength)
        usual_R = classes.usual[number][value]
        lift_RK = against_class_RK * class_RK / np.where(usual_R > 0, usual_R, 1.0)[:, None]
        found[name] = np.where(known, _log((belongs_RK * lift_RK).sum(axis=1)), np.nan)
        overall_RK *= np.where(known[:, None], against_class_RK, 1.0)
    overall = _log(overall_RK.sum(axis=1))
    over_all = {OVERALL: overall} if item_traits else {}
    return found | over_all | {TASTE: log_demand_N[item] + overall}


def log_demand(log_first_buyers_N: Array, owner_share_N: Array) -> Array:
    """Logarithm of how many find an item of late, among those who have yet to buy it.

    Sales would say too much of what its owners need again, and first buyers alone too little of
    what most have bought already.

    Args:
        log_first_buyers_N: log1p of the (decayed) customers who bought the item for the first time.
        owner_share_N: share of the customers who own it.
    """
    left_N = np.maximum(1 - owner_share_N, _FEWEST_LEFT)
    return np.asarray(np.log((np.expm1(log_first_buyers_N.astype(float)) + _UNSEEN) / left_N))


def with_price(item_traits: Sequence[Array], log_price_N: Array) -> list[Array]:
    """The values of the traits, and behind them the tiers of the price, int64 (N,) each.

    Prices are compared within the trait that tells most of them; over all items where none has
    enough of them to a value.
    """
    within = [tiers_within(value_N, log_price_N) for value_N in item_traits]
    both = zip(item_traits, within, strict=True)
    told = [_told(value_N, log_price_N, tier_N) for value_N, tier_N in both]
    if max(told, default=0.0) > 0:
        return [*item_traits, within[int(np.argmax(told))]]
    return [*item_traits, price_tiers(log_price_N)]


def _told(value_N: Array, log_price_N: Array, tier_N: Array) -> float:
    """Sum of squares of the prices that the values tell, over items that have a tier."""
    known = tier_N != UNKNOWN
    if not known.any():
        return 0.0
    value, price = value_N[known], log_price_N[known] - log_price_N[known].mean()
    totals = np.bincount(value, price)
    return float((totals**2 / np.maximum(np.bincount(value), 1)).sum())


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


def _log(lift: Array) -> Array:
    return np.log(np.maximum(lift, np.finfo(float).tiny))
