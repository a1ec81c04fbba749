"""Ranked lists against what was bought, and one method against another on the same users.

Sums over users are taken over integers (fixed-point values), which add up to the same in any
order: the numbers are identical for any partitioning.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recspark import schema
from recspark.evaluate import metrics

DIFFERENCE = "difference"  # double  ours minus theirs, of one user
RESOLUTION = 2.0**30  # fixed-point steps per unit: sums of 8e9 users fit 64 bits
# Matrix products of whole numbers are exact in float64 below 2^53: here 2^30 * 2^4 * 2^10.
BLOCK_ROWS = 1024

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_POISSON_CDF = np.exp(-1) * np.cumsum([1 / math.factorial(count) for count in range(12)])
_POISSON_TABLE = np.searchsorted(_POISSON_CDF, (np.arange(2**16) + 0.5) / 2**16).astype(np.uint8)

SEED = [schema.ENTITY, schema.ANCHOR_TIME]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean difference, ours minus theirs, with its bootstrap percentile interval."""

    mean_difference: float
    low: float
    high: float
    level: float = 0.95


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What each method reached on the users who bought something after one date."""

    as_of: date
    num_users: int
    seconds: float  # of the whole run for this date
    methods: dict[str, dict[str, float]]  # method -> metric -> mean over users

    def to_json(self) -> dict[str, Any]:
        """One object of the list that a backtest writes."""
        return {
            "as_of": self.as_of.isoformat(),
            "num_users": self.num_users,
            "seconds": self.seconds,
            "methods": self.methods,
        }


def score(ranked: DataFrame, snapshots: DataFrame, k: int) -> DataFrame:
    """Every per-user metric at K of the seeds with labels, one double column per `metrics.names`.

    Args:
        ranked: entity, anchor_time, items (array<bigint>, best first), at most one row per seed.
        snapshots: entity, anchor_time, labels. A seed without a list counts as zero.
        k: length of the lists that are judged.

    Returns:
        entity, anchor_time, then the metrics, one row per seed with at least one label.
    """
    judged = snapshots.where(F.size(schema.LABELS) > 0).select(*SEED, schema.LABELS)
    joined = judged.join(ranked.select(*SEED, schema.ITEMS), on=SEED, how="left")
    nothing = F.array().cast("array<bigint>")
    lists = joined.select(
        *SEED, F.coalesce(schema.ITEMS, nothing).alias(schema.ITEMS), schema.LABELS
    )
    columns = ", ".join(f"{name} double" for name in metrics.names(k))

    def judge(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            found = metrics.per_user(ragged(batch[schema.ITEMS]), ragged(batch[schema.LABELS]), k)
            seeds = {name: batch[name] for name in SEED}
            yield pa.RecordBatch.from_pydict(seeds | {n: pa.array(v) for n, v in found.items()})

    ddl = f"{schema.ENTITY} bigint, {schema.ANCHOR_TIME} timestamp, {columns}"
    return lists.mapInArrow(judge, ddl)


def ragged(lists: pa.ListArray) -> metrics.Ragged:
    """A column of lists without nulls as (values, offsets from 0), also where it is a slice."""
    offsets = lists.offsets.to_numpy().astype(np.int64)
    values = lists.values.slice(offsets[0], offsets[-1] - offsets[0])
    return values.to_numpy(zero_copy_only=False), offsets - offsets[0]


def means(per_user: DataFrame) -> dict[str, float]:
    """The mean over the rows of every metric column that `score` made; NaN without rows.

    Exact to 1e-9 and the same for any partitioning.
    """
    return means_of_methods({"": per_user})[1][""]


def means_of_methods(
    per_user: Mapping[str, DataFrame],
) -> tuple[int, dict[str, dict[str, float]]]:
    """`means` of several methods in one Spark job, and the number of users they share.

    Args:
        per_user: method to its frame of `score`, all of the same snapshots and K.
    """
    labelled = [frame.withColumn("method", F.lit(name)) for name, frame in per_user.items()]
    together = labelled[0]
    for frame in labelled[1:]:
        together = together.unionByName(frame)
    columns = [name for name in together.columns if name not in (*SEED, "method")]
    sums = [F.sum(_fixed_point(name)).alias(name) for name in columns]
    totals = together.groupBy("method").agg(F.count("*").alias("users"), *sums).collect()
    found = {row["method"]: row.asDict() for row in totals}
    nobody = {"users": 0} | dict.fromkeys(columns, 0)
    rows = {name: found.get(name, nobody) for name in per_user}
    num_users = {row["users"] for row in rows.values()}
    assert len(num_users) == 1, f"methods judged on different numbers of users: {num_users}"
    users = num_users.pop()
    return users, {
        name: {c: row[c] / RESOLUTION / users if users else math.nan for c in columns}
        for name, row in rows.items()
    }


def _fixed_point(column: str) -> Column:
    """A double column in steps of 2^-30, as bigint, whose sums do not depend on their order."""
    return F.round(F.col(column) * F.lit(RESOLUTION)).cast("bigint")


def coverage(ranked: DataFrame, k: int, num_on_sale: int) -> float:
    """Share of the `num_on_sale` items that the first K of any list hold; 0 where nothing is."""
    listed = ranked.select(F.explode(F.slice(schema.ITEMS, 1, k)).alias(schema.ITEM))
    found = listed.agg(F.count_distinct(schema.ITEM).alias("items")).collect()[0]["items"]
    return float(found / num_on_sale) if num_on_sale else 0.0


def differences(ours: DataFrame, theirs: DataFrame, metric: str) -> DataFrame:
    """Entity and difference, ours minus theirs, of one metric column of two `score` frames."""
    mine = ours.select(*SEED, F.col(metric).alias("ours"))
    other = theirs.select(*SEED, F.col(metric).alias("theirs"))
    joined = mine.join(other, on=SEED, how="inner")
    return joined.select(schema.ENTITY, (F.col("ours") - F.col("theirs")).alias(DIFFERENCE))


def bootstrap_difference(
    per_user: DataFrame, *, seed: int, resamples: int = 2000, level: float = 0.95
) -> Interval:
    """Paired bootstrap over users of a mean difference, without moving users to the driver.

    Each replicate weighs each user by a Poisson(1) draw in place of the multinomial counts of
    resampling (Hanley and MacGibbon 2006, doi 10.1016/j.cmpb.2006.04.006). The draw is a hash of
    (seed, replicate, entity), so the interval is the same for any partitioning, and all rows of
    one entity (several dates) are drawn together.

    Args:
        per_user: entity (bigint) and difference (double in [-1, 1], no nulls).
        seed: any integer.
        resamples: number of replicates.
        level: share of the replicates inside the interval, in (0, 1).

    Raises:
        ValueError: no rows.
    """

    def replicate(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        sums = np.zeros((2, 1 + resamples), dtype=np.int64)
        for batch in batches:
            entities, values = batch[schema.ENTITY].to_numpy(), batch[DIFFERENCE].to_numpy()
            sums += _replicate_sums(entities, values, seed, resamples)
        columns = (np.arange(1 + resamples, dtype=np.int32), *sums)
        yield pa.RecordBatch.from_arrays(
            [pa.array(column) for column in columns], names=["replicate", "users", "total"]
        )

    frame = per_user.select(schema.ENTITY, DIFFERENCE)
    sums = frame.mapInArrow(replicate, "replicate int, users bigint, total bigint")
    added = sums.groupBy("replicate").agg(
        F.sum("users").alias("users"), F.sum("total").alias("total")
    )
    rows = sorted((r["replicate"], r["users"], r["total"]) for r in added.collect())
    counts = np.array([row[1:] for row in rows], dtype=np.int64).reshape(-1, 2).T
    return _interval(counts, level)


def paired_interval(
    ours: NDArray[np.float64],
    theirs: NDArray[np.float64],
    *,
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """`bootstrap_difference` of two arrays (users,) in the same order of users, without Spark.

    User u counts as entity u: frames whose entities are 0..users-1 give the same interval.
    """
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    entities = np.arange(ours.size, dtype=np.int64)
    return _interval(_replicate_sums(entities, ours - theirs, seed, resamples), level)


def _interval(sums: NDArray[np.int64], level: float) -> Interval:
    """From (2, 1 + resamples) sums of weights and of weighted steps; column 0 is the sample."""
    if sums.size == 0 or sums[0, 0] == 0:
        raise ValueError(
            "paired bootstrap: no users with labels; choose a date followed by purchases."
        )
    weights, totals = sums[:, sums[0] > 0]  # of a few users a replicate may draw none
    ratios = totals / weights / RESOLUTION
    low, high = np.quantile(ratios[1:], [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean_difference=float(ratios[0]), low=float(low), high=float(high), level=level)


def _replicate_sums(
    entities: NDArray[np.int64], differences: NDArray[np.float64], seed: int, resamples: int
) -> NDArray[np.int64]:
    """Sums of weights and of weighted steps, (2, 1 + resamples); column 0 weighs all by 1."""
    assert resamples >= 100, f"{resamples} replicates make no interval"
    steps = np.round(differences * RESOLUTION)
    sums = np.zeros((2, 1 + resamples), dtype=np.int64)
    for start in range(0, steps.size, BLOCK_ROWS):
        block = steps[start : start + BLOCK_ROWS]
        weights = np.ones((block.size, 1 + resamples))
        weights[:, 1:] = _poisson_weights(entities[start : start + BLOCK_ROWS], seed, resamples)
        sums += (np.stack((np.ones(block.size), block)) @ weights).astype(np.int64)
    return sums


def _poisson_weights(entities: NDArray[np.int64], seed: int, resamples: int) -> NDArray[np.uint8]:
    """A Poisson(1) draw per entity and replicate, (entities, resamples), by a hash of them.

    A hash of 64 bits makes four draws of 16 bits: the distribution is exact to 2^-17 per value.
    """
    start = _mix(np.array([seed & (2**64 - 1)], dtype=np.uint64))
    state = _mix(entities.astype(np.uint64) ^ start)
    quadruples = np.arange(1, -(-resamples // 4) + 1, dtype=np.uint64) * _GOLDEN
    draws = _mix(state[:, None] + quadruples).view(np.uint16)[:, :resamples]
    return _POISSON_TABLE[draws]


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of SplitMix64 (Steele et al. 2014, doi 10.1145/2660193.2660195)."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
