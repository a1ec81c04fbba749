"""Paired bootstrap intervals from sums that add up over partitions and over dates.

Each replicate weighs each user by a Poisson(1) draw in place of the multinomial counts of
resampling (Hanley and MacGibbon 2006, doi 10.1016/j.cmpb.2006.04.006). The draw is a hash of
(seed, replicate, user), so an interval is the same for any partitioning, and all rows of one user
(several dates) are drawn together. What is kept of a method is a sum per replicate, in whole
steps: sums of two methods give the interval of their difference, and sums of several dates the
interval of all of them.
"""

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

REPLICATES = 2000
RESOLUTION = 2.0**30  # fixed-point steps per unit: sums of 8e9 users fit 64 bits
# Matrix products of whole numbers are exact in float64 below 2^53: here 2^30 * 2^4 * 2^10.
BLOCK_ROWS = 1024

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_POISSON_CDF = np.exp(-1) * np.cumsum([1 / math.factorial(count) for count in range(12)])
_POISSON_TABLE = np.searchsorted(_POISSON_CDF, (np.arange(2**16) + 0.5) / 2**16).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean difference, ours minus theirs, with its bootstrap percentile interval."""

    mean_difference: float
    low: float
    high: float
    level: float = 0.95

    def to_json(self) -> dict[str, float]:
        """The numbers of one interval."""
        return {"mean_difference": self.mean_difference, "low": self.low, "high": self.high}


def steps(values: Array) -> Array:
    """Values in [-1, 1] as whole steps, float64; NaN as 0."""
    return np.round(np.nan_to_num(values) * RESOLUTION)


def replicate_sums(users: Array, columns: Array, seed: int, replicates: int) -> Array:
    """Weighted sums of each column, int64 (columns, 1 + replicates); column 0 weighs all by 1.

    Args:
        users: int64 (rows,), what is drawn together has the same number.
        columns: (columns, rows), whole numbers of at most 2^30.
        seed: any integer.
        replicates: at least 100.
    """
    assert replicates >= 100, f"{replicates} replicates make no interval"
    sums = np.zeros((len(columns), 1 + replicates), dtype=np.int64)
    for start in range(0, len(users), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        weights = np.ones((len(users[block]), 1 + replicates))
        weights[:, 1:] = _poisson_weights(users[block], seed, replicates)
        sums += (columns[:, block] @ weights).astype(np.int64)
    return sums


def interval(ours: Array, theirs: Array, weights: Array, level: float = 0.95) -> Interval:
    """From three rows of `replicate_sums`: steps of two methods, and ones for every user.

    Raises:
        ValueError: no users.
    """
    if weights.size == 0 or weights[0] == 0:
        raise ValueError(
            "paired bootstrap: no users with labels; choose a date followed by purchases."
        )
    some = weights > 0  # of a few users a replicate may draw none
    ratios = (ours - theirs)[some] / weights[some] / RESOLUTION
    low, high = np.quantile(ratios[1:], [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean_difference=float(ratios[0]), low=float(low), high=float(high), level=level)


def paired_interval(
    ours: Array, theirs: Array, *, seed: int, replicates: int = REPLICATES, level: float = 0.95
) -> Interval:
    """The interval of two arrays (users,) in the same order of users; user u is number u."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    columns = np.stack((steps(ours), steps(theirs), np.ones(ours.size)))
    mine, other, weights = replicate_sums(np.arange(ours.size), columns, seed, replicates)
    return interval(mine, other, weights, level=level)


def _poisson_weights(users: NDArray[np.int64], seed: int, replicates: int) -> NDArray[np.uint8]:
    """A Poisson(1) draw per user and replicate, (users, replicates), by a hash of them.

    A hash of 64 bits makes four draws of 16 bits: the distribution is exact to 2^-17 per value.
    """
    start = _mix(np.array([seed & (2**64 - 1)], dtype=np.uint64))
    state = _mix(users.astype(np.uint64) ^ start)
    quadruples = np.arange(1, -(-replicates // 4) + 1, dtype=np.uint64) * _GOLDEN
    draws = _mix(state[:, None] + quadruples).view(np.uint16)[:, :replicates]
    return _POISSON_TABLE[draws]


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of SplitMix64 (Steele et al. 2014, doi 10.1145/2660193.2660195)."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
