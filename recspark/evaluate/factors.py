"""Implicit ALS (Hu et al. 2008, doi 10.1109/ICDM.2008.22), as Spark's MLlib fits it.

The rating of a pair is its decayed number of days. Items get their vectors from a hash sample of
entities of a fixed size; every seed, in the sample or not, gets the vector that solves Spark's own
equations for what it bought, given the items'. Own items stay in. Spark adds up floats in the
order in which they arrive, so the last digits of a fit are not the same for every partitioning.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pyspark.ml.recommendation import ALS
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import schema
from recspark.evaluate.histories import AGE_DAYS, Array, Rows, Scores, decays

BLOCKS = 2  # of entities and of items: fixed, so that the cluster's size does not choose
DIGITS = 6  # scores are rounded, so that equal ones stay equal


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The parameters of a fit, as MLlib names them, and how fast purchases are forgotten."""

    rank: int  # width of the vectors
    regularization: float  # times the number of items or entities that a vector is solved for
    alpha: float  # confidence is 1 + alpha * rating
    half_life: float | None  # days; None: no decay
    iterations: int = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class ItemFactors:
    """The items' vectors at one anchor, (items, rank) float64, by ascending node."""

    items: Array  # int64
    vectors: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Factors:
    """Fitted vectors per choice and anchor (in us)."""

    choices: tuple[Choice, ...]
    fitted: tuple[Mapping[int, ItemFactors], ...]
    k: int  # only the K best items of a seed are told

    def score(self, rows: Rows) -> Iterator[Scores]:
        """The best of all items that the sample bought, for seeds that bought any of them."""
        for choice, by_anchor in zip(self.choices, self.fitted, strict=True):
            factors = by_anchor.get(rows.anchor)
            if factors is None:
                nothing = np.zeros(0, dtype=np.int64)
                yield Scores(owners=nothing, items=nothing, values=nothing)
                continue
            owners, vectors = _fold_in(rows, factors, choice)
            values = np.round(vectors @ factors.vectors.T, DIGITS)
            order = np.argsort(-values, axis=1, kind="stable")[:, : self.k]
            yield Scores(
                owners=np.repeat(owners, order.shape[1]),
                items=factors.items[order].ravel(),
                values=np.take_along_axis(values, order, axis=1).ravel(),
            )


def fit(sampled: DataFrame, choices: Sequence[Choice], k: int, seed: int) -> Factors:
    """Fit every choice at every anchor of the sample, as of `purchases.sample`.

    Items' vectors are collected; the driver holds nothing that grows with entities.
    """
    anchors = sampled.groupBy(schema.ANCHOR_TIME).agg(F.count("*"))
    micros = [row[0] for row in anchors.select(F.unix_micros(schema.ANCHOR_TIME)).collect()]
    fitted = tuple(
        {
            micro: _fit_one(sampled.where(F.unix_micros(schema.ANCHOR_TIME) == micro), choice, seed)
            for micro in sorted(micros)
        }
        for choice in choices
    )
    return Factors(choices=tuple(choices), fitted=fitted, k=k)


def _fit_one(sampled: DataFrame, choice: Choice, seed: int) -> ItemFactors:
    decay = F.lit(1.0)
    if choice.half_life is not None:
        decay = F.pow(F.lit(2.0), -F.col(AGE_DAYS) / F.lit(float(choice.half_life)))
    ratings = sampled.groupBy(
        F.col(schema.ENTITY).cast("int").alias(schema.ENTITY),
        F.col(schema.ITEM).cast("int").alias(schema.ITEM),
    ).agg(F.sum(decay).cast("float").alias("rating"))
    model = ALS(
        rank=choice.rank,
        maxIter=choice.iterations,
        regParam=choice.regularization,
        alpha=choice.alpha,
        implicitPrefs=True,
        numUserBlocks=BLOCKS,
        numItemBlocks=BLOCKS,
        userCol=schema.ENTITY,
        itemCol=schema.ITEM,
        ratingCol="rating",
        seed=seed,
    ).fit(ratings)
    table = model.itemFactors.toArrow().sort_by("id")
    vectors = table["features"].combine_chunks().flatten().to_numpy()
    return ItemFactors(
        items=table["id"].to_numpy().astype(np.int64),
        vectors=vectors.reshape(table.num_rows, -1).astype(np.float64),
    )


def _fold_in(rows: Rows, factors: ItemFactors, choice: Choice) -> tuple[Array, Array]:
    """Seeds that bought items with a vector, ascending, and their own vectors (seeds, rank).

    x = (Y'Y + sum_i c_i y_i y_i' + lambda n I)^-1 sum_i (1 + c_i) y_i over the n items bought,
    with c_i = alpha * rating_i: MLlib's half step.
    """
    owners, items, ratings, _ = rows.purchases.add_up(decays(rows.purchases.ages, choice.half_life))
    places = np.minimum(np.searchsorted(factors.items, items), len(factors.items) - 1)
    known = factors.items[places] == items
    owners, places, confidences = owners[known], places[known], choice.alpha * ratings[known]
    everything = factors.vectors.T @ factors.vectors
    found, starts = np.unique(owners, return_index=True)
    bounds = np.append(starts, len(owners))
    vectors = np.zeros((len(found), factors.vectors.shape[1]))
    for row in range(len(found)):
        mine = slice(bounds[row], bounds[row + 1])
        bought, confidence = factors.vectors[places[mine]], confidences[mine]
        ridge = choice.regularization * len(bought) * np.eye(len(everything))
        gram = everything + (bought.T * confidence) @ bought + ridge
        vectors[row] = np.linalg.solve(gram, (1 + confidence) @ bought)
    return found, vectors
