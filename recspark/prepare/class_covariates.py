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
from recspark.prepare.pair_history import Pairs
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
        nothing_1K = np.zeros((1, self.lift_VK.shape[1]))
        log_VK = np.concatenate([np.log(self.lift_VK), nothing_1K])
        return np.asarray(log_VK[Pairs(self.value_V, {}).find(value_U)])


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
        customers = _Customers.of(value_U, prior_UK)
        best, evidence = Covariate.nothing(len(share_K)), _evidence(prior_UK, log_chance_UK)
        told_UK: Array = np.zeros(log_chance_UK.shape)
        for strength in _STRENGTHS:
            found_UK, held_out_UK = customers.fit(log_chance_UK, strength * share_K)
            reached = _evidence(prior_UK + held_out_UK, log_chance_UK)
            if reached > evidence:
                evidence, told_UK = reached, held_out_UK
                best = customers.covariate(found_UK, strength * share_K)
        found.append(best)
        prior_UK = prior_UK + told_UK
    return tuple(found)


def log_prior(share_K: Array, covariates: Sequence[Covariate], columns_UW: Array) -> Array:
    """Logarithm of how likely each class is before purchases, but for a constant, (U, K)."""
    log_UK = np.log(share_K) + np.zeros((len(columns_UW), 1))
    columns = columns_UW.T if covariates else ()  # a single class has none
    for covariate, value_U in zip(covariates, columns, strict=True):
        log_UK = log_UK + covariate.log_lifts(value_U)
    return log_UK


@dataclass(frozen=True, eq=False)
class _Customers:
    """Those of each value that enough of them have, and which classes are expected of them."""

    value_V: Array
    has_UV: sparse.csr_matrix  # 1 where a customer has the value
    prior_UK: Array  # logarithm of the chance of each class, but for a constant
    expected_UK: Array  # that chance

    @classmethod
    def of(cls, value_U: Array, prior_UK: Array) -> Self:
        values, counts = np.unique(value_U[value_U != UNKNOWN], return_counts=True)
        value_V = values[counts >= _FEWEST]
        place_U = Pairs(value_V, {}).find(value_U)
        customer = np.flatnonzero(place_U < len(value_V))
        cells = (np.ones(len(customer)), (customer, place_U[customer]))
        has_UV = sparse.csr_matrix(cells, shape=(len(value_U), len(value_V)))
        return cls(value_V, has_UV, prior_UK, np.exp(_normalised(prior_UK)))

    def fit(self, log_chance_UK: Array, more_K: Array) -> tuple[Array, Array]:
        """Chances that customers belong to each class, and the logarithm of their lifts, (U, K).

        What a customer's value tells comes from the others who have it.
        """
        held_out_UK: Array = np.zeros(log_chance_UK.shape)
        log_expected_UK = np.log(self._others(self.expected_UK) + more_K)
        for _ in range(_ROUNDS):
            found_UK = np.exp(_normalised(self.prior_UK + held_out_UK + log_chance_UK))
            held_out_UK = np.log(self._others(found_UK) + more_K) - log_expected_UK
        return found_UK, held_out_UK

    def _others(self, chance_UK: Array) -> Array:
        """Sum over the other customers of the same value, (U, K)."""
        own_UK = np.diff(self.has_UV.indptr)[:, None] * chance_UK
        return np.asarray(self.has_UV @ (self.has_UV.T @ chance_UK) - own_UK)

    def covariate(self, found_UK: Array, more_K: Array) -> Covariate:
        """What every value tells, from these chances to belong to each class."""
        expected_VK = self.has_UV.T @ self.expected_UK
        lift_VK = (self.has_UV.T @ found_UK + more_K) / (expected_VK + more_K)
        return Covariate(self.value_V, lift_VK)


def _normalised(log_UK: Array) -> Array:
    return np.asarray(log_UK - logsumexp(log_UK, axis=1, keepdims=True))


def _evidence(prior_UK: Array, log_chance_UK: Array) -> float:
    """Logarithm of the chance of all purchases."""
    return float(logsumexp(_normalised(prior_UK) + log_chance_UK, axis=1).sum())
