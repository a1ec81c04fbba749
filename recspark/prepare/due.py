"""What is due: how likely a line is an item because the entity has used up the last one.

Who bought an item may buy it again for two reasons. Anybody may want it, owners in proportion to
how many buy it for the first time; that says nothing of when. Or it is used up: then the rate of
repeats follows one curve over the days since, the same for all items but for how far it is shifted
in the logarithm of time (an accelerated failure time model: Cox and Oakes 1984, Analysis of
Survival Data, section 5.2) and how high it is; of some items there is nothing due ever. Both rates
add, so each repeat is shared between them, and curve, shifts, heights and shares are found by
expectation maximisation (Dempster, Laird and Rubin 1977) from the items' life tables.

numpy and scipy only.
Axes: N items, I intervals of `life_tables.EDGES`, M kinds of items (a shift and a height; the last:
nothing is due), X places on the curve, C cells of the life tables that have repeats, R pairs.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from scipy import sparse
from scipy.special import softmax

from recspark.prepare.arrow_rows import Array
from recspark.prepare.life_tables import EDGES, NUM_INTERVALS, PER_DOUBLING

_SHIFTS = range(2 * PER_DOUBLING, 15 * PER_DOUBLING // 2 + 1)  # from 4 days to half a year
_HEIGHTS = np.array([0.25, 0.5, 1.0, 2.0])  # of the curve
_WIDTH = PER_DOUBLING / 2  # of the first guess of an item's shift, intervals
_NOTHING_DUE = 0.3  # share of the items of which nothing is due, as a first guess
_FEWEST_REPEATS = 3  # of an item that says where its curve may lie
_PRIOR_REPEATS = 2.0  # that a fifth of the usual rate counts as at each place of the curve
_PRIOR_OF_USUAL = 0.2
_UNSEEN = 0.5  # first buyers that an item has beside those it has
_ROUNDS = 20
_MOST_ITEMS = 2_000  # from which the curve is learnt
_ITEMS_AT_ONCE = 10_000  # whose kinds are told: some 100 MB
_SMALLEST = 1e-5  # chance that a line is what is hardly ever bought again


@dataclass(frozen=True, eq=False)
class Tables:
    """Life tables of items, and how much others want them."""

    repeats: sparse.csr_matrix  # (N, I)
    at_risk: Array  # float64 (N, I), lines
    wanted_N: Array  # share of first purchases that are of the item, > 0

    @classmethod
    def of(cls, repeats: Array, at_risk: Array, first_buyers_N: Array) -> Self:
        """From what `life_tables` counts, and how many bought each item at all."""
        wanted_N = first_buyers_N + _UNSEEN
        return cls(
            sparse.csr_matrix(repeats.astype(float)),
            at_risk.astype(float),
            wanted_N / max(wanted_N.sum(), 1.0),
        )

    def some(self, rows: slice) -> Self:
        """Of some of the items."""
        return replace(
            self,
            repeats=self.repeats[rows],
            at_risk=self.at_risk[rows],
            wanted_N=self.wanted_N[rows],
        )

    @cached_property
    def item_C(self) -> Array:
        """The item of each cell with repeats, ascending."""
        return np.repeat(np.arange(len(self.wanted_N)), np.diff(self.repeats.indptr))

    @property
    def interval_C(self) -> Array:
        """The interval of each cell with repeats."""
        return np.asarray(self.repeats.indices)

    @property
    def count_C(self) -> Array:
        """The repeats of each cell that has any."""
        return np.asarray(self.repeats.data)

    def by_item(self, values_CM: Array) -> Array:
        """Sums over the cells of each item, (N, M)."""
        size = len(self.count_C)
        of_item = sparse.csr_matrix(
            (np.ones(size), np.arange(size), self.repeats.indptr), (len(self.wanted_N), size)
        )
        return np.asarray(of_item @ values_CM)


@dataclass(frozen=True, eq=False)
class Curve:
    """How all items are bought again."""

    rate_X: Array  # per line, by interval after the shift
    of_others: float  # times what others want: what owners buy again without need
    share_M: Array  # of the items

    @property
    def due_MI(self) -> Array:
        """Rate of each kind in each interval, because it is due."""
        shifted = [
            height * self.rate_X[_place(shift) : _place(shift) + NUM_INTERVALS]
            for shift in _SHIFTS
            for height in _HEIGHTS
        ]
        return np.stack([*shifted, np.zeros(NUM_INTERVALS)])

    def due_share(self, tables: Tables) -> Array:
        """Of the repeats in each cell, the share that is due in each kind, (C, M)."""
        due_CM = self.due_MI[:, tables.interval_C].T
        return np.asarray(due_CM / (due_CM + self._others_C(tables)[:, None]))

    def belongs(self, tables: Tables) -> Array:
        """Chance that an item is of each kind, (N, M): repeats are Poisson given it."""
        due_MI = self.due_MI
        rate_CM = due_MI[:, tables.interval_C].T + self._others_C(tables)[:, None]
        found = tables.by_item(tables.count_C[:, None] * np.log(rate_CM))
        log_NM = found - tables.at_risk @ due_MI.T + np.log(self.share_M)
        return np.asarray(softmax(log_NM, axis=1))

    def _others_C(self, tables: Tables) -> Array:
        return np.asarray(self.of_others * tables.wanted_N[tables.item_C])


def rates(repeats: Array, at_risk: Array, first_buyers_N: Array) -> Array:
    """Chance that a line is the item because it is due, float64 (N, I), by days since.

    Args:
        repeats: (N, I), as `life_tables.tables` counts them.
        at_risk: lines, likewise.
        first_buyers_N: how many ever bought each item.
    """
    tables = Tables.of(repeats, at_risk, first_buyers_N)
    if not len(tables.count_C):
        return np.zeros(at_risk.shape)
    step = -(-len(tables.wanted_N) // _MOST_ITEMS)
    learnt = tables.some(slice(None, None, step))
    if not len(learnt.count_C):
        learnt = tables
    curve = _learn(learnt)
    blocks = range(0, len(tables.wanted_N), _ITEMS_AT_ONCE)
    some = (tables.some(slice(first, first + _ITEMS_AT_ONCE)) for first in blocks)
    return np.concatenate([curve.belongs(part) @ curve.due_MI for part in some])


def _learn(tables: Tables) -> Curve:
    belongs_NM = _first_guess(tables)
    half = 0.5 * tables.count_C.sum() / (tables.at_risk.sum(axis=1) @ tables.wanted_N)
    due_CM = np.ones((len(tables.count_C), len(belongs_NM.T)))
    curve = replace(_fitted(tables, belongs_NM, due_CM), of_others=float(half))
    for _ in range(_ROUNDS):
        belongs_NM = curve.belongs(tables)
        curve = _fitted(tables, belongs_NM, curve.due_share(tables))
    return curve


def _first_guess(tables: Tables) -> Array:
    """How much each item belongs to each kind: by when it is mostly bought again; 0: not told."""
    count_N = np.asarray(tables.repeats.sum(axis=1)).ravel()
    telling = count_N >= min(_FEWEST_REPEATS, count_N.max())
    mean_N = (tables.repeats @ np.arange(NUM_INTERVALS)) / np.maximum(count_N, 1.0)
    near_NS = np.exp(-0.5 * ((mean_N[:, None] - np.array(_SHIFTS)) / _WIDTH) ** 2) + 1e-12
    near_NS *= (1 - _NOTHING_DUE) / len(_HEIGHTS) / near_NS.sum(axis=1, keepdims=True)
    guess_NM = np.repeat(near_NS, len(_HEIGHTS), axis=1)
    nothing_N1 = np.full((len(guess_NM), 1), _NOTHING_DUE)
    return np.asarray(np.concatenate([guess_NM, nothing_N1], axis=1) * telling[:, None])


def _fitted(tables: Tables, belongs_NM: Array, due_CM: Array) -> Curve:
    """The curve that items of these kinds follow, given which of their repeats are due."""
    mine_CM = belongs_NM[tables.item_C] * tables.count_C[:, None]
    size = len(tables.count_C)
    of_interval = sparse.csr_matrix(
        (np.ones(size), (tables.interval_C, np.arange(size))), (NUM_INTERVALS, size)
    )
    found_IM = of_interval @ (mine_CM * due_CM)
    heights_M = np.append(np.tile(_HEIGHTS, len(_SHIFTS)), 0.0)
    spent_IM = (tables.at_risk.T @ belongs_NM) * heights_M
    found_X, spent_X = np.zeros(_size()), np.zeros(_size())
    for number, shift in enumerate(_SHIFTS):
        here = slice(_place(shift), _place(shift) + NUM_INTERVALS)
        mine = slice(number * len(_HEIGHTS), (number + 1) * len(_HEIGHTS))
        found_X[here] += found_IM[:, mine].sum(axis=1)
        spent_X[here] += spent_IM[:, mine].sum(axis=1)
    usual = max(found_X.sum(), _SMALLEST) / max(spent_X.sum(), 1.0)
    known_N = belongs_NM.sum(axis=1)
    others = (mine_CM * (1 - due_CM)).sum() + 1.0
    wanted = (known_N * tables.at_risk.sum(axis=1)) @ tables.wanted_N + 1.0
    share_M = belongs_NM.sum(axis=0) + 0.5
    return Curve(
        rate_X=(found_X + _PRIOR_OF_USUAL * _PRIOR_REPEATS) / (spent_X + _PRIOR_REPEATS / usual),
        of_others=float(others / wanted),
        share_M=share_M / share_M.sum(),
    )


def _place(shift: int) -> int:
    """Where the first interval of an item with this shift lies on the curve."""
    return _SHIFTS[-1] - shift


def _size() -> int:
    return _place(_SHIFTS[0]) + NUM_INTERVALS


def mean_chance(rates_RI: Array, days: Array, horizon: float) -> Array:
    """Mean chance that a line of the next `horizon` days is the item because it is due, (R,).

    Args:
        rates_RI: of the item, as `rates` gives them, one row per pair.
        days: days since the pair's last purchase, NaN without any: then the result is 0.
        horizon: days.
    """
    expected = np.zeros(len(days))
    for place in range(NUM_INTERVALS):
        inside = _spent(days + horizon, place) - _spent(days, place)
        expected += rates_RI[:, place] * inside
    return np.where(np.isnan(days), 0.0, expected / horizon)


def log_chance(chance_R: Array) -> Array:
    """Logarithm of a chance, which is never below a smallest one."""
    return np.asarray(np.log(chance_R + _SMALLEST))


def _spent(days: Array, place: int) -> Array:
    """How many of the days since a purchase lie in an interval."""
    longest = EDGES[place + 1] - EDGES[place] if place + 1 < NUM_INTERVALS else np.inf
    return np.asarray(np.clip(days - EDGES[place], 0.0, longest))
