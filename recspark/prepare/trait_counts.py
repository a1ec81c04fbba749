"""How many distinct items of each value of one trait each customer bought. numpy and scipy only.

Counts are Dirichlet-multinomial around the shares of a class (`prepare.latent_classes`).
Axes: N items, U customers, K classes, V values of the trait, C cells of distinct (customer, value).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from scipy import sparse
from scipy.special import gammaln

from recspark.prepare.arrow_rows import Array
from recspark.prepare.pair_history import Pairs

UNKNOWN = -1  # value of a trait that an item does not have


@dataclass(frozen=True, eq=False)
class Counts:
    """How many distinct items of each value of one trait each customer bought."""

    cells: Pairs  # (customer, value) pairs that were bought, with `count`
    num_values: int
    total_U: Array  # int64

    @classmethod
    def of(cls, customer: Array, item: Array, value_N: Array, num_customers: int) -> Self:
        """From distinct (customer, item); items without the trait are left out."""
        known = value_N[item] != UNKNOWN
        num_values = size_of(value_N)
        cells = customer[known] * num_values + value_N[item[known]]
        cell_C, count_C = np.unique(cells, return_counts=True)
        total_U = np.bincount(customer[known], minlength=num_customers)
        return cls(Pairs(cell_C, {"count": count_C}), num_values, total_U)

    @cached_property
    def customer_C(self) -> Array:
        """int64, ascending."""
        return self.cells.key // self.num_values

    @cached_property
    def value_C(self) -> Array:
        """int64."""
        return self.cells.key % self.num_values

    def at(self, customer: Array, value: Array) -> Array:
        """The counts of these customers and values of the trait, 0 where there are none."""
        rows = self.cells.find(customer * self.num_values + value)
        return self.cells.at(rows, "count", 0.0)

    def log_chance(self, shares_KV: Array, strength: float) -> Array:
        """Logarithm of the chance of each customer's counts given each class, (U, K)."""
        prior_CK = strength * shares_KV[:, self.value_C].T
        log_CK = np.zeros(prior_CK.shape)
        for more, at_C in self._steps:
            log_CK[at_C] += np.log(prior_CK[at_C] + more)
        of_total_U = gammaln(strength) - gammaln(self.total_U + strength)
        return np.asarray(self._by_customer @ log_CK + of_total_U[:, None])

    def tables(self, shares_KV: Array, strength: float, belongs_UK: Array) -> Array:
        """How many of the counts speak of each class's shares, not of persons, (K, V).

        The expected number of tables of a Chinese restaurant: its maximum is Minka's fixed point.
        """
        prior_CK = strength * shares_KV[:, self.value_C].T
        tables_CK = np.zeros(prior_CK.shape)
        for more, at_C in self._steps:
            tables_CK[at_C] += prior_CK[at_C] / (prior_CK[at_C] + more)
        tables_CK *= belongs_UK[self.customer_C]
        size = shares_KV.shape[1]
        return np.stack([np.bincount(self.value_C, of_C, size) for of_C in tables_CK.T])

    @cached_property
    def _steps(self) -> list[tuple[int, Array]]:
        """0, 1, ... and the cells that count more than that."""
        count_C = self.cells.columns["count"]
        most = int(count_C.max(initial=0))
        return [(more, np.flatnonzero(count_C > more)) for more in range(most)]

    @cached_property
    def _by_customer(self) -> sparse.csr_matrix:
        ones, num_cells = np.ones(len(self.customer_C)), len(self.customer_C)
        cells = (self.customer_C, np.arange(num_cells))
        return sparse.csr_matrix((ones, cells), shape=(len(self.total_U), num_cells))


def size_of(value_N: Array) -> int:
    """One more than the largest value, at least one."""
    return max(int(value_N.max(initial=UNKNOWN)) + 1, 1)
