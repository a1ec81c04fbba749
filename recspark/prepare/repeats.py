"""When an item is bought again: gaps between purchases, and a life table of every item.

A spell starts when an entity buys an item. It ends when the same entity buys it again, on a later
day; at the anchor it may still be open. In each interval of a spell's length (`EDGES`) the rate of
an item is its repeats over the days that its spells spent there, open ones included: the maximum
likelihood of a piecewise exponential model (Holford 1980, Biometrics 36).

Few repeats are smoothed. Items differ in how soon they are used up, so the prior is no single curve
but a mixture of `NUM_CURVES`, found by expectation maximisation (Dempster, Laird and Rubin 1977):
given its curve, an item's rate in an interval is Gamma distributed around the curve's. numpy and
scipy only.
Axes: N items, I intervals, K curves, R pairs.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.special import softmax

from recspark.prepare.arrow_rows import Array, differs
from recspark.prepare.pair_history import ratio

# Days since the purchase: about 41 % longer from one to the next, from two days to two years.
EDGES = np.concatenate([[0.0], 2.0 ** np.arange(1, 10, 0.5)])
NUM_INTERVALS = len(EDGES)  # the last one has no end
NUM_CURVES = 6
_PRIOR_REPEATS = 4.0  # that a curve counts as, in each interval
_PRIOR_REPEATS_OF_CURVE = 2.0  # that the rate of all items counts as in a curve
_ROUNDS = 30
_MOST_ITEMS = 20_000  # from which curves are learnt
_FEWEST_REPEATS = 3  # of an item that says where a curve may lie
_SMALLEST = 1e-6  # purchases expected of what is hardly ever bought again


@dataclass(frozen=True, eq=False)
class Spells:
    """From a purchase of an item to the next one by the same entity, or to the anchor."""

    num_items: int
    item: Array  # int64 (G,), positions, ascending
    days: Array  # float64 (G,), > 0
    open_item: Array  # int64 (O,), of the spells that are open at the anchor
    open_days: Array  # float64 (O,), >= 0
    is_again: Array  # boolean (O,), there was an earlier one of the same pair

    @classmethod
    def of(cls, item: Array, entity: Array, age: Array, num_items: int) -> Self:
        """From purchases ordered by item, entity and time (oldest first); ages in days."""
        days = differs(item, entity, np.floor(age))
        item, entity, age = item[days], entity[days], age[days]
        first = differs(item, entity)
        last = np.append(first, True)[1:]
        return cls(
            num_items=num_items,
            item=item[~first],
            days=age[np.flatnonzero(~first) - 1] - age[~first],
            open_item=item[last],
            open_days=age[last],
            is_again=~first[last],
        )

    def repeat_rate(self) -> Array:
        """Share of an item's buyers who bought it on several days, float64 (N,); NaN: no buyers."""
        again = np.bincount(self.open_item[self.is_again], minlength=self.num_items)
        return ratio(again, np.bincount(self.open_item, minlength=self.num_items))

    def median_days(self) -> Array:
        """The lower median of each item's closed spells, float64 (N,); NaN without any."""
        days = np.append(self.days[np.lexsort((self.days, self.item))], np.nan)
        counts = np.bincount(self.item, minlength=self.num_items)
        start = np.cumsum(counts) - counts
        return np.where(counts > 0, days[start + (counts - 1) // 2 * (counts > 0)], np.nan)

    def table(self) -> tuple[Array, Array]:
        """Repeats, and days at risk, of each item in each interval; float64 (N, NUM_INTERVALS)."""
        interval = np.searchsorted(EDGES, self.days, side="right") - 1
        cell = self.item * NUM_INTERVALS + interval
        repeats = np.bincount(cell, minlength=self.num_items * NUM_INTERVALS).astype(float)
        at_risk = np.zeros((self.num_items, NUM_INTERVALS))
        for place in range(NUM_INTERVALS):
            for item, days in ((self.item, self.days), (self.open_item, self.open_days)):
                at_risk[:, place] += np.bincount(item, _spent(days, place), self.num_items)
        return repeats.reshape(at_risk.shape), at_risk


def hazards(repeats: Array, at_risk: Array) -> Array:
    """Purchases per day in each interval, smoothed; float64 (N, NUM_INTERVALS).

    Args:
        repeats: float64 (N, NUM_INTERVALS), as `Spells.table` counts them.
        at_risk: days, likewise.
    """
    step = -(-len(repeats) // _MOST_ITEMS) or 1
    curves_KI, shares_K = _curves(repeats[::step], at_risk[::step])
    belongs_NK = _belongs(repeats, at_risk, curves_KI, shares_K)
    rates = np.zeros(repeats.shape)
    for curve_I, belongs_N in zip(curves_KI, belongs_NK.T, strict=True):
        smoothed = (repeats + _PRIOR_REPEATS) / (at_risk + _PRIOR_REPEATS / curve_I)
        rates += belongs_N[:, None] * smoothed
    return rates


def _curves(repeats: Array, at_risk: Array) -> tuple[Array, Array]:
    """Purchases per day of each curve (K, I), and the share of items that follow it (K,)."""
    # Without any purchases, one in as long as the last interval is after the first.
    of_all_I = (repeats.sum(axis=0) + 1.0) / (at_risk.sum(axis=0) + EDGES[-1])
    belongs_NK = _first_guess(repeats)
    for _ in range(_ROUNDS):
        curves_KI = (belongs_NK.T @ repeats + _PRIOR_REPEATS_OF_CURVE) / (
            belongs_NK.T @ at_risk + _PRIOR_REPEATS_OF_CURVE / of_all_I
        )
        shares_K = (belongs_NK.sum(axis=0) + 1.0) / (len(belongs_NK) + NUM_CURVES)
        belongs_NK = _belongs(repeats, at_risk, curves_KI, shares_K)
    return curves_KI, shares_K


def _first_guess(repeats: Array) -> Array:
    """How much each item belongs to each curve, (N, K): by how soon it is bought again."""
    counts = repeats.sum(axis=1)
    interval = ratio(repeats @ np.arange(NUM_INTERVALS), counts)
    telling = interval[counts >= _FEWEST_REPEATS]
    mostly = np.zeros((len(repeats), NUM_CURVES))
    if len(telling):
        middle = np.median(telling)
        inner = np.quantile(telling, np.arange(1, NUM_CURVES) / NUM_CURVES)
        nearest = np.searchsorted(inner, np.where(np.isnan(interval), middle, interval))
        mostly[np.arange(len(repeats)), nearest] = 1.0
    return np.asarray((mostly + 1 / (2 * NUM_CURVES)) / (mostly.sum(axis=1, keepdims=True) + 0.5))


def _belongs(repeats: Array, at_risk: Array, curves_KI: Array, shares_K: Array) -> Array:
    """Chance that an item follows each curve, (N, K): repeats are negative binomial given it."""
    log_chance = np.empty((len(repeats), len(curves_KI)))
    for place, curve_I in enumerate(curves_KI):
        prior_days_I = _PRIOR_REPEATS / curve_I
        spent = -(repeats + _PRIOR_REPEATS) * np.log(at_risk / prior_days_I + 1)
        log_chance[:, place] = (spent - repeats * np.log(prior_days_I)).sum(axis=1)
    return np.asarray(softmax(log_chance + np.log(shares_K), axis=1))


def log_expected(hazards_RI: Array, days: Array, horizon: float) -> Array:
    """Logarithm of how many purchases the next `horizon` days promise, float64 (R,).

    Args:
        hazards_RI: the item's rate in each interval, one row per pair.
        days: days since the pair's last purchase, NaN without any: then the result is NaN.
        horizon: days.
    """
    expected = np.zeros(len(days))
    for place in range(NUM_INTERVALS):
        inside = _spent(days + horizon, place) - _spent(days, place)
        expected += hazards_RI[:, place] * inside
    return np.asarray(np.log(expected + _SMALLEST))


def _spent(days: Array, place: int) -> Array:
    """How many of the days since a purchase lie in an interval."""
    longest = EDGES[place + 1] - EDGES[place] if place + 1 < NUM_INTERVALS else np.inf
    return np.asarray(np.clip(days - EDGES[place], 0.0, longest))
