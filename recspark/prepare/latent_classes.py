"""Latent classes of customers: who buys alike, by the traits of what they buy.

A customer belongs to one of `NUM_CLASSES` classes, of which is not known. What a class buys differs
from what everybody buys by one factor per value of a trait, so that an item is bought in proportion
to everybody's purchases times the factors of its category, its merchant, ... (a log-linear model,
fitted by iterative proportional fitting: Deming and Stephan 1940). A person deviates from their
class: the counts of a trait's values are Dirichlet-multinomial around the class's shares, with a
strength per trait (Minka 2000, Estimating a Dirichlet distribution). Classes are found by
expectation maximisation (Dempster, Laird and Rubin 1977); the strengths, and how far a class may
lie from everybody, are the most likely of a grid (empirical Bayes). What customers' own columns
tell of their class is added in the end (`class_covariates`). numpy and scipy only.
Axes: N items, U customers, K classes, T traits, V values of a trait, W columns of the customers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from scipy.special import gammaln, softmax

from recspark.prepare import class_covariates
from recspark.prepare.arrow_rows import Array
from recspark.prepare.class_covariates import Covariate
from recspark.prepare.trait_counts import UNKNOWN, Counts, size_of

NUM_CLASSES = 12
_ROUNDS = 20
_FIRST_LEARN, _LEARN_EVERY = 10, 5  # rounds until strengths are chosen, and chosen again
_STRENGTHS = (2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0)  # purchases
_DISTANCES = (5.0, 20.0, 80.0, 320.0, 1280.0, 5120.0)  # purchases that promised shares count as
STRENGTH_ALONE = 6.0  # purchases that everybody's shares count as where there are no classes
_FIRST_STRENGTH, _FIRST_DISTANCE = 40.0, 20.0
_FIRST_PRIOR = 5.0  # purchases that everybody's shares count as where a class starts
_MANY = 0.7  # quantile of purchases above which a customer may be the start of a class
_DRAW_SEED = 7
_UNSOLD = 0.5  # purchases that every item counts as having, beside its own


@dataclass(frozen=True, eq=False)
class Traits:
    """The items' traits, and how often everybody buys each item."""

    values: tuple[Array, ...]  # of each trait (N,), `UNKNOWN` where an item has none
    usual_N: Array  # everybody's share of purchases, sum 1

    @classmethod
    def of(cls, values: Sequence[Array], owners_N: Array) -> Self:
        """From how many customers bought each item, float64 (N,)."""
        sold_N = owners_N + _UNSOLD
        return cls(tuple(values), sold_N / max(sold_N.sum(), 1.0))

    def counts(self, customer: Array, item: Array, num_customers: int) -> list[Counts]:
        """What customers bought of each trait, from distinct (customer, item)."""
        return [Counts.of(customer, item, value_N, num_customers) for value_N in self.values]

    def sums(self, lift_KN: Array, number: int) -> Array:
        """Share of each value of one trait where items are bought so much more, (K, V)."""
        value_N = self.values[number]
        known, size = value_N != UNKNOWN, size_of(value_N)
        found_KV = np.stack(
            [
                np.bincount(value_N[known], of_class_N[known], size)
                for of_class_N in lift_KN * self.usual_N
            ]
        )
        total_K1 = found_KV.sum(axis=1, keepdims=True)
        return np.asarray(found_KV / np.where(total_K1 > 0, total_K1, 1.0))


@dataclass(frozen=True, eq=False)
class Classes:
    """What each class buys, and how far its customers deviate from it."""

    traits: Traits
    share_K: Array  # of the customers, sum 1
    strength_T: Array  # purchases that a class's shares of a trait count as, for one customer
    factors: tuple[Array, ...]  # of each trait (K, V): times everybody's purchases of the value
    covariates: tuple[Covariate, ...] = ()  # of each column of the customers, or none at all

    @cached_property
    def lift_KN(self) -> Array:
        """How much more than everybody each class buys of each item."""
        return self.lifts(without=None)

    @cached_property
    def shares(self) -> list[Array]:
        """Share of each value of each trait in what each class buys, (K, V); rows sum to 1."""
        return [self.traits.sums(self.lift_KN, number) for number in range(len(self.factors))]

    @cached_property
    def usual(self) -> list[Array]:
        """Share of each value of each trait in what everybody buys, (V,)."""
        return [of_all_1V[0] for of_all_1V in none(self.traits).shares]

    def lifts(self, without: int | None) -> Array:
        """`lift_KN` without the factors of one trait."""
        lift_KN = np.ones((len(self.share_K), len(self.traits.usual_N)))
        of_traits = zip(self.traits.values, self.factors, strict=True)
        for number, (value_N, factor_KV) in enumerate(of_traits):
            if number != without:
                factor_KN = factor_KV[:, np.maximum(value_N, 0)]
                lift_KN *= np.where(value_N != UNKNOWN, factor_KN, 1.0)
        return np.asarray(lift_KN / (lift_KN * self.traits.usual_N).sum(axis=1, keepdims=True))

    def belongs(self, counts: Sequence[Counts], columns_UW: Array) -> Array:
        """Chance that each customer belongs to each class, (U, K); rows sum to 1.

        `columns_UW` are the customers' own, int64, `UNKNOWN` where they have no value.
        """
        prior_UK = class_covariates.log_prior(self.share_K, self.covariates, columns_UW)
        log_UK = prior_UK + self._log_chance(counts, len(columns_UW))
        return np.asarray(softmax(log_UK, axis=1))

    def with_covariates(self, counts: Sequence[Counts], columns_UW: Array) -> Self:
        """These classes, and what the columns of the customers tell of them."""
        log_chance_UK = self._log_chance(counts, len(columns_UW))
        found = class_covariates.fit(log_chance_UK, self.share_K, columns_UW)
        return replace(self, covariates=found)

    def _log_chance(self, counts: Sequence[Counts], num_customers: int) -> Array:
        """Logarithm of the chance of each customer's purchases given each class, (U, K)."""
        log_UK = np.zeros((num_customers, len(self.share_K)))
        of_traits = zip(counts, self.shares, self.strength_T, strict=True)
        for of_trait, shares_KV, strength in of_traits:
            log_UK = log_UK + of_trait.log_chance(shares_KV, strength)
        return log_UK


def none(traits: Traits) -> Classes:
    """A single class, which buys as everybody does."""
    factors = tuple(np.ones((1, size_of(value_N))) for value_N in traits.values)
    return Classes(traits, np.ones(1), np.full(len(factors), STRENGTH_ALONE), factors)


def fit(traits: Traits, customer: Array, item: Array, columns_UW: Array) -> Classes:
    """Find the classes of these customers; a single trait has none, as nothing goes with it.

    Args:
        traits: of the items.
        customer: int64, positions of customers who bought something.
        item: int64, positions of what they bought; no pair twice.
        columns_UW: int64, the customers' own values, `UNKNOWN` where they have none.
    """
    num_customers = len(columns_UW)
    counts = traits.counts(customer, item, num_customers)
    if len(counts) < 2 or not num_customers:
        return none(traits)
    found = _first_guess(traits, counts)
    distance_T = np.full(len(counts), _FIRST_DISTANCE)
    for number in range(1, _ROUNDS + 1):
        belongs_UK = found.belongs(counts, columns_UW)
        share_K = (belongs_UK.sum(axis=0) + 1.0) / (num_customers + len(found.share_K))
        found = replace(found, share_K=share_K)
        learns = number >= _FIRST_LEARN and number % _LEARN_EVERY == 0
        for trait in range(len(counts)):
            found = _refitted(found, counts, belongs_UK, distance_T, trait, learns=learns)
    return found.with_covariates(counts, columns_UW)


def _first_guess(traits: Traits, counts: Sequence[Counts]) -> Classes:
    """Each class starts as one customer who bought much; they are drawn, always alike."""
    total_U = counts[0].total_U
    many = np.flatnonzero(total_U >= np.quantile(total_U, _MANY))
    size = min(NUM_CLASSES, len(many))
    chosen_K = np.random.default_rng(_DRAW_SEED).permutation(many)[:size]
    factors = []
    for usual_1V, of_trait in zip(none(traits).shares, counts, strict=True):
        own_KV = np.zeros((size, usual_1V.shape[1]))
        for place, customer in enumerate(chosen_K):
            mine = of_trait.customer_C == customer
            own_KV[place, of_trait.value_C[mine]] = of_trait.cells.columns["count"][mine]
        smoothed_KV = own_KV + _FIRST_PRIOR * usual_1V
        factors.append(_over(smoothed_KV, usual_1V))
    strength_T = np.full(len(counts), _FIRST_STRENGTH)
    return Classes(traits, np.full(size, 1 / size), strength_T, tuple(factors))


def _refitted(
    classes: Classes,
    counts: Sequence[Counts],
    belongs_UK: Array,
    distance_T: Array,
    trait: int,
    *,
    learns: bool,
) -> Classes:
    """The factors of one trait, and where `learns` its strength and distance, fitted anew."""
    shares_KV = classes.traits.sums(classes.lift_KN, trait)
    strength_T = classes.strength_T.copy()
    tables_KV = counts[trait].tables(shares_KV, strength_T[trait], belongs_UK)
    promised_KV = classes.traits.sums(classes.lifts(without=trait), trait)
    if learns:
        distance_T[trait] = max(
            _DISTANCES, key=lambda distance: _evidence(tables_KV, distance * promised_KV)
        )
    factors = list(classes.factors)
    factors[trait] = _over(tables_KV + distance_T[trait] * promised_KV, promised_KV)
    if learns:
        strength_T[trait] = max(
            _STRENGTHS,
            key=lambda strength: (belongs_UK * counts[trait].log_chance(shares_KV, strength)).sum(),
        )
    return replace(classes, strength_T=strength_T, factors=tuple(factors))


def _evidence(tables_KV: Array, prior_KV: Array) -> float:
    """Logarithm of the chance of counts around a prior: Dirichlet-multinomial, all classes."""
    prior_KV = np.maximum(prior_KV, np.finfo(float).tiny)
    total_K, of_prior_K = tables_KV.sum(axis=1), prior_KV.sum(axis=1)
    of_values = (gammaln(tables_KV + prior_KV) - gammaln(prior_KV)).sum()
    return float(of_values + (gammaln(of_prior_K) - gammaln(total_K + of_prior_K)).sum())


def _over(found_KV: Array, promised_KV: Array) -> Array:
    """Shares of what was found over promised ones; 1 where nothing is promised."""
    share_KV = found_KV / np.maximum(found_KV.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    return np.where(promised_KV > 0, share_KV / np.where(promised_KV > 0, promised_KV, 1.0), 1.0)
