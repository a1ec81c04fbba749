"""Several methods on the same users: means, paired intervals, slices, and what their lists hold.

Sums over users are taken over integers (fixed-point values), which add up to the same in any
order: the numbers are identical for any partitioning.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recspark import schema
from recspark.evaluate import metrics, slices
from recspark.evaluate.bootstrap import RESOLUTION, Interval
from recspark.evaluate.histories import SEED, ragged
from recspark.evaluate.totals import Totals


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One part of a snapshot."""

    name: str  # one of slices.NAMES
    num_users: int
    maps: dict[str, float]  # method -> MAP@K; NaN without users
    interval: Interval | None  # ours minus the best baseline of the whole; None: no users

    def to_json(self) -> dict[str, Any]:
        """The numbers of one slice; NaN becomes null."""
        return {
            "num_users": self.num_users,
            "map": without_nan(self.maps),
            "interval": self.interval.to_json() if self.interval is not None else None,
        }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What each method reached on the users who bought something after one date."""

    as_of: date
    num_users: int
    seconds: float  # of the whole run for this date
    methods: dict[str, dict[str, float]]  # method -> metric -> mean over users, ours first
    intervals: dict[str, Interval]  # baseline -> ours minus it in MAP@K; empty: nobody bought
    slices: tuple[Slice, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What a backtest writes of one date and seed; NaN becomes null."""
        return {
            "as_of": self.as_of.isoformat(),
            "num_users": self.num_users,
            "seconds": self.seconds,
            "methods": {name: without_nan(values) for name, values in self.methods.items()},
            "intervals": {name: i.to_json() for name, i in self.intervals.items()},
            "slices": {part.name: part.to_json() for part in self.slices},
        }


def without_nan(values: Mapping[str, float]) -> dict[str, float | None]:
    """The same numbers as JSON can hold them."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def slices_of(totals: Totals, ours: str, best: str) -> tuple[Slice, ...]:
    """Every slice but everybody, `ours` against the baseline `best`."""
    map_name = metrics.name(metrics.MAP, totals.k)
    return tuple(
        Slice(
            name=name,
            num_users=totals.num_users(name),
            maps={method: of[map_name] for method, of in totals.means(name).items()},
            interval=totals.interval(ours, best, name),
        )
        for name in slices.NAMES[1:]
    )


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


def means(per_user: DataFrame) -> dict[str, float]:
    """The mean over the rows of every metric column that `score` made; NaN without rows.

    Exact to 1e-9 and the same for any partitioning.
    """
    columns = [name for name in per_user.columns if name not in SEED]
    sums = [F.sum(_fixed_point(name)).alias(name) for name in columns]
    row = per_user.agg(F.count("*").alias("users"), *sums).collect()[0]
    users = row["users"]
    return {c: row[c] / RESOLUTION / users if users else math.nan for c in columns}


def _fixed_point(column: str) -> Column:
    """A double column in steps of 2^-30, as bigint, whose sums do not depend on their order."""
    return F.round(F.col(column) * F.lit(RESOLUTION)).cast("bigint")


def holdings(
    judged: DataFrame, methods: Sequence[str], popular: str, *, k: int, num_on_sale: int
) -> dict[str, dict[str, float]]:
    """Coverage and popularity share of every method, over the lists of all rows, in one Spark job.

    Coverage is the share of the items on sale that any list holds (Herlocker et al. 2004, section
    4.2.1, doi 10.1145/963770.963772); popularity share that of all places that the K most popular
    items take.

    Args:
        judged: a column of lists per method, at most K long.
        methods: names of those columns.
        popular: name of the column with the K most popular items.
        k: length of the lists, for the names of the metrics.
        num_on_sale: items on sale at the anchor.
    """
    each = [
        F.struct(F.lit(m).alias("method"), F.col(m).alias("items"), F.col(popular).alias("popular"))
        for m in methods
    ]
    lists = judged.select(F.explode(F.array(*each)).alias("list")).select("list.*")
    places = lists.select("method", F.explode("items").alias(schema.ITEM), "popular")
    rows = (
        places.withColumn("is_popular", F.array_contains("popular", F.col(schema.ITEM)).cast("int"))
        .groupBy("method")
        .agg(
            F.count_distinct(schema.ITEM).alias("items"),
            F.count("*").alias("places"),
            F.sum("is_popular").alias("popular"),
        )
        .collect()
    )
    found = {row["method"]: row for row in rows}
    coverage, share = (metrics.name(m, k) for m in (metrics.COVERAGE, metrics.POPULARITY_SHARE))
    return {
        m: {
            coverage: found[m]["items"] / num_on_sale if m in found else 0.0,
            share: found[m]["popular"] / found[m]["places"] if m in found else math.nan,
        }
        for m in methods
    }
