"""What a customer's own columns tell of their class: an age band, a city, a branch they belong to.

Latent classes with concomitant variables (Dayton and Macready 1988, Journal of the American
Statistical Association 83): each value of a column shifts how likely the classes are, before any
purchase is seen. By how much is how the classes share the customers of the value, over how they
were expected to by the columns before it, found by expectation maximisation and drawn towards one
as if so many more customers were as expected. That many with which a customer's purchases are
likeliest given what the *other* customers of the value buy: so a column that tells nothing is not
used, and one that repeats another is not counted twice. numpy and scipy only.
Axes: U customers, K classes, W columns, V values of a column.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy import sparse
from scipy.special import logsumexp

from recspark.prepare.arrow_rows import Array
from recspark.prepare.trait_counts import UNKNOWN

_FEWEST = 5  # customers that a value needs to tell anything
_ROUNDS = 5  # of expectation maximisation
_STRENGTHS = (2.5, 10.0, 40.0, 160.0, 640.0)  # customers who are as expected


@dataclass(frozen=True, eq=False)
class Covariate:
    """How much likelier than before each class is, by the value of one column."""

    value_V: Array  # int64, ascending; other values tell nothing
    lift_VK: Array

    @classmethod
    def nothing(cls, num_classes: int) -> Self:
        """A column that tells nothing."""
        return cls(np.empty(0, dtype=np.int64), np.empty((0, num_classes)))

    def log_lifts(self, value_U: Array) -> Array:
        """Logarithm of the lift of each class for each customer, (U, K); 0 where none is known."""
        log_UK = np.zeros((len(value_U), self.lift_VK.shape[1]))
        place_U, found_U = _places(self.value_V, value_U)
        log_UK[found_U] = np.log(self.lift_VK[place_U[found_U]])
        return log_UK


def fit(log_chance_UK: Array, share_K: Array, columns_UW: Array) -> tuple[Covariate, ...]:
    """What each column tells, beyond those before it.

    Args:
        log_chance_UK: logarithm of the chance of each customer's purchases given each class.
        share_K: of the customers in each class, sum 1.
        columns_UW: int64, the customers' values, `UNKNOWN` where they have none.
    """
    prior_UK = np.log(share_K) + np.zeros((len(columns_UW), 1))
    found = []
    for value_U in columns_UW.T:
        customers = _Customers.of(value_U)
        best, evidence = Covariate.nothing(len(share_K)), _evidence(prior_UK, log_chance_UK)
        told_UK: Array = np.zeros(log_chance_UK.shape)
        for strength in _STRENGTHS if len(customers.value_V) else ():
            found_UK, held_out_UK = customers.fit(prior_UK, log_chance_UK, strength * share_K)
            reached = _evidence(prior_UK + held_out_UK, log_chance_UK)
            if reached > evidence:
                evidence, told_UK = reached, held_out_UK
                best = customers.covariate(prior_UK, found_UK, strength * share_K)
        found.append(best)
        prior_UK = prior_UK + told_UK
    return tuple(found)


def log_prior(share_K: Array, covariates: Sequence[Covariate], columns_UW: Array) -> Array:
    """Logarithm of how likely each class is before purchases, but for a constant, (U, K)."""
    log_UK = np.log(share_K) + np.zeros((len(columns_UW), 1))
    for covariate, value_U in zip(covariates, columns_UW.T, strict=False):  # or none at all
        log_UK = log_UK + covariate.log_lifts(value_U)
    return log_UK


@dataclass(frozen=True, eq=False)
class _Customers:
    """Those of each value that enough of them have."""

    value_V: Array
    has_UV: sparse.csr_matrix  # 1 where a customer has the value

    @classmethod
    def of(cls, value_U: Array) -> Self:
        values, counts = np.unique(value_U[value_U != UNKNOWN], return_counts=True)
        value_V = values[counts >= _FEWEST]
        place_U, found_U = _places(value_V, value_U)
        customer = np.flatnonzero(found_U)
        cells = (np.ones(len(customer)), (customer, place_U[found_U]))
        return cls(value_V, sparse.csr_matrix(cells, shape=(len(value_U), len(value_V))))

    def fit(self, prior_UK: Array, log_chance_UK: Array, more_K: Array) -> tuple[Array, Array]:
        """The chance that customers belong to each class, and `held_out`."""
        expected_UK, held_out_UK = np.exp(_normalised(prior_UK)), np.zeros(prior_UK.shape)
        for _ in range(_ROUNDS):
            found_UK = np.exp(_normalised(prior_UK + held_out_UK + log_chance_UK))
            held_out_UK = np.log(self._others(found_UK) + more_K)
            held_out_UK -= np.log(self._others(expected_UK) + more_K)
        return found_UK, held_out_UK

    def _others(self, chance_UK: Array) -> Array:
        """Sum over the other customers of the same value, (U, K)."""
        own_UK = np.diff(self.has_UV.indptr)[:, None] * chance_UK
        return np.asarray(self.has_UV @ (self.has_UV.T @ chance_UK) - own_UK)

    def covariate(self, prior_UK: Array, found_UK: Array, more_K: Array) -> Covariate:
        """What every value tells, from these chances to belong to each class."""
        expected_VK = self.has_UV.T @ np.exp(_normalised(prior_UK))
        lift_VK = (self.has_UV.T @ found_UK + more_K) / (expected_VK + more_K)
        return Covariate(self.value_V, lift_VK)


def _places(value_V: Array, value_U: Array) -> tuple[Array, Array]:
    """Where each customer's value stands among ascending ones, and whether it does."""
    if not len(value_V):
        return np.zeros(len(value_U), dtype=np.int64), np.zeros(len(value_U), dtype=bool)
    place_U = np.minimum(np.searchsorted(value_V, value_U), len(value_V) - 1)
    return place_U, value_V[place_U] == value_U


def _normalised(log_UK: Array) -> Array:
    return np.asarray(log_UK - logsumexp(log_UK, axis=1, keepdims=True))


def _evidence(prior_UK: Array, log_chance_UK: Array) -> float:
    """Logarithm of the chance of all purchases."""
    return float(logsumexp(_normalised(prior_UK) + log_chance_UK, axis=1).sum())
