"""Sums over the users of a snapshot, of which means and paired intervals are made.

They add up over dates, and over the seeds of a model. Sums are taken over integers (fixed-point
values), which add up to the same in any order: the numbers are identical for any partitioning.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import schema, windows
from recspark.evaluate import bootstrap, metrics, purchases, slices
from recspark.evaluate.bootstrap import REPLICATES, RESOLUTION, Interval
from recspark.evaluate.histories import Array, ragged, split
from recspark.evaluate.purchases import History

DRAWN_AS = "drawn_as"  # bigint  what a user is called over several dates: a hash of its key


@dataclass(frozen=True, kw_only=True, eq=False)
class Totals:
    """Sums over users, which add up over dates. Axes: slices of NAMES, methods, metrics."""

    methods: tuple[str, ...]
    k: int
    metric_steps: Array  # int64 (slices, methods, metrics), in the order of metrics.names
    map_steps: Array  # int64 (slices, methods, 1 + replicates), in steps
    weights: Array  # int64 (slices, 1 + replicates); column 0 counts users

    def __add__(self, other: "Totals") -> "Totals":
        """Both together, of the same methods."""
        assert (self.methods, self.k) == (other.methods, other.k), (self.methods, other.methods)
        return Totals(
            methods=self.methods,
            k=self.k,
            metric_steps=self.metric_steps + other.metric_steps,
            map_steps=self.map_steps + other.map_steps,
            weights=self.weights + other.weights,
        )

    def num_users(self, of_slice: str = slices.EVERYBODY) -> int:
        """Users with at least one label in a slice."""
        return int(self.weights[slices.NAMES.index(of_slice), 0])

    def means(self, of_slice: str = slices.EVERYBODY) -> dict[str, dict[str, float]]:
        """Method to metric to mean over the users of a slice; NaN where there are none."""
        users, place = self.num_users(of_slice), slices.NAMES.index(of_slice)
        names = metrics.names(self.k)
        return {
            method: {
                name: steps / RESOLUTION / users if users else math.nan
                for name, steps in zip(names, self.metric_steps[place, row].tolist(), strict=True)
            }
            for row, method in enumerate(self.methods)
        }

    def interval(self, ours: str, theirs: str, of_slice: str = slices.EVERYBODY) -> Interval | None:
        """MAP@K of one method minus that of another; None where a slice has no users."""
        place = slices.NAMES.index(of_slice)
        if not self.num_users(of_slice):
            return None
        mine, other = (self.map_steps[place, self.methods.index(m)] for m in (ours, theirs))
        return bootstrap.interval(mine, other, self.weights[place])


def add_up(
    judged: DataFrame,
    methods: Sequence[str],
    established: Mapping[int, Array],
    *,
    k: int,
    seed: int,
    replicates: int = REPLICATES,
) -> Totals:
    """Every slice, method and metric in one Spark job.

    Args:
        judged: entity, anchor_time, drawn_as, labels (not empty), `bought` and `codes` (see
            `purchases.beside`), and a column of lists per method; a null list holds nothing.
        methods: names of those columns.
        established: anchor in us to the ascending items that are not new then.
        k: length of the lists that are judged.
        seed: of the bootstrap.
        replicates: of the bootstrap.
    """
    num_slices, num_rows = len(slices.NAMES), 1 + len(methods)
    num_metrics = len(metrics.PER_USER)
    shared = judged.sparkSession.sparkContext.broadcast(dict(established))

    def judge(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        values = np.zeros((num_slices, len(methods), num_metrics), dtype=np.int64)
        sums = np.zeros((num_slices, num_rows, 1 + replicates), dtype=np.int64)
        for batch in batches:
            for part, rows in split(batch):
                truths = slices.truths(part, shared.value.get(rows.anchor, np.zeros(0)))
                lists = [ragged(part[m].fill_null([])) for m in methods]
                found = [[metrics.per_user(of, truth, k) for of in lists] for truth in truths]
                columns = [[bootstrap.steps(v) for m in of for v in m.values()] for of in found]
                every: Array = np.array(columns).reshape(num_slices, len(methods), num_metrics, -1)
                values += every.sum(axis=3).astype(np.int64)
                present = np.array([np.diff(offsets) > 0 for _, offsets in truths])
                beside = np.concatenate((present[:, None], every[:, :, 0]), axis=1)  # MAP is first
                flat = beside.reshape(num_slices * num_rows, -1)
                users = part[DRAWN_AS].to_numpy()
                drawn = bootstrap.replicate_sums(users, flat, seed, replicates)
                sums += drawn.reshape(sums.shape)
        yield _packed(values, sums)

    packed = judged.mapInArrow(judge, "place int, total bigint")
    added = packed.groupBy("place").agg(F.sum("total").alias("total")).toArrow()
    totals = np.zeros(num_slices * (len(methods) * num_metrics + num_rows * (1 + replicates)))
    totals = totals.astype(np.int64)
    totals[added["place"].to_numpy()] = added["total"].to_numpy()
    values, sums = np.split(totals, [num_slices * len(methods) * num_metrics])
    sums = sums.reshape(num_slices, num_rows, -1)
    return Totals(
        methods=tuple(methods),
        k=k,
        metric_steps=values.reshape(num_slices, len(methods), num_metrics),
        map_steps=sums[:, 1:],
        weights=sums[:, 0],
    )


def _packed(values: Array, sums: Array) -> pa.RecordBatch:
    flat = np.concatenate((values.ravel(), sums.ravel()))
    places = np.arange(len(flat), dtype=np.int32)
    return pa.RecordBatch.from_arrays([pa.array(places), pa.array(flat)], names=["place", "total"])


def established(history: History, anchors: DataFrame, horizon_days: int) -> dict[int, Array]:
    """Anchor in us to the items, ascending, first sold more than one horizon before it.

    What is collected grows with the number of items only.
    """
    first = purchases.purchases(history).groupBy(schema.ITEM).agg(F.min(schema.TIME).alias("first"))
    since = F.col(schema.ANCHOR_TIME) - F.make_interval(days=F.lit(horizon_days))
    known = first.crossJoin(F.broadcast(anchors)).where(windows.is_visible(F.col("first"), since))
    anchor = F.unix_micros(schema.ANCHOR_TIME).alias("anchor")
    table = known.select(anchor, schema.ITEM).toArrow()
    of, items = table["anchor"].to_numpy(), table[schema.ITEM].to_numpy()
    return {int(anchor): np.sort(items[of == anchor]) for anchor in np.unique(of)}
