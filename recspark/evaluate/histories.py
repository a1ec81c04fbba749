"""Purchases of many entities at one anchor as flat arrays, and lists made from scores of items.

Runs on Spark workers; needs numpy, scipy and pyarrow only. A purchase is one (entity, item, day).
Sums of floats depend on their order, so purchases are sorted before anything is added up.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from recspark import schema
from recspark.evaluate import metrics

Array: TypeAlias = NDArray[Any]
Popular: TypeAlias = Mapping[int, NDArray[np.int64]]  # anchor in us -> popular items, best first

AGE_DAYS = "age_days"  # int         whole days from purchase to anchor
WEIGHT = "weight"  # bigint      popularity of the item, in steps; null: not on sale at the anchor
BOUGHT = "bought"  # array<struct<item,age_days,weight>> distinct, in no order
SEED = [schema.ENTITY, schema.ANCHOR_TIME]
ROWS_AT_ONCE = 512  # seeds scored together: what a method holds for them stays below 0.5 GB


@dataclass(frozen=True, kw_only=True, eq=False)
class Purchases:
    """What the owners 0..N-1 bought, sorted by (owner, item, age)."""

    num_owners: int
    owners: Array  # int64
    items: Array  # int64, nodes
    ages: Array  # int64, days
    weights: Array  # int64, popularity of the item

    @classmethod
    def sort(
        cls, num_owners: int, owners: Array, items: Array, ages: Array, weights: Array
    ) -> "Purchases":
        """From purchases in any order."""
        order = np.lexsort((ages, items, owners))
        return cls(
            num_owners=num_owners,
            owners=owners[order],
            items=items[order],
            ages=ages[order],
            weights=weights[order],
        )

    def add_up(self, values: Array) -> tuple[Array, Array, Array, Array]:
        """Owner, item, sum of `values` (float64), and weight of each distinct (owner, item)."""
        changes = (np.diff(self.owners, prepend=-1) != 0) | (np.diff(self.items, prepend=-1) != 0)
        firsts = np.flatnonzero(changes)
        sums = np.add.reduceat(values, firsts) if firsts.size else values
        return self.owners[firsts], self.items[firsts], sums, self.weights[firsts]

    def vectors(self, values: Array, num_items: int) -> sparse.csr_matrix:
        """`add_up` as a matrix, (owners, num_items) float64; items beyond are left out."""
        owners, items, sums, _ = self.add_up(values)
        known = items < num_items
        cells = (sums[known], (owners[known], items[known]))
        return sparse.csr_matrix(cells, shape=(self.num_owners, num_items))


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Seeds of one anchor, and what they bought of what is on sale then."""

    anchor: int  # microseconds since 1970
    entities: Array  # int64 (seeds,)
    codes: Array  # int64 (seeds, category columns of the entity table)
    purchases: Purchases  # owners are places in `entities`


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """What a method says of some items of some seeds, each (seed, item) once."""

    owners: Array  # int64, places of seeds, ascending
    items: Array  # int64
    values: Array  # float64, more is better
    ties: Array | None = None  # orders equal values, more is better; what is left goes by item


class Method(Protocol):
    """A way to score items, with several choices of its parameters to try."""

    def score(self, rows: Rows) -> Iterator[Scores]:
        """One answer per choice, in their order."""


def decays(ages: Array, half_life: float | None) -> Array:
    """2^(-age / half_life), float64; 1 without a half-life."""
    return np.ones(len(ages)) if half_life is None else np.exp2(-ages / half_life)


def best(scores: Scores, num_owners: int, fill: Array, k: int) -> metrics.Ragged:
    """The K best items of each seed, filled up with those of `fill` (best first) it lacks."""
    high = _high(scores, num_owners, k)
    owners, items, values = scores.owners[high], scores.items[high], scores.values[high]
    ties = np.zeros(len(items)) if scores.ties is None else -scores.ties[high]
    order = np.lexsort((items, ties, -values, owners))
    owners, items = owners[order], items[order]
    kept = _places(owners, num_owners) < k
    owners, items = owners[kept], items[kept]

    fill_owners = np.repeat(np.arange(num_owners), len(fill))
    fill_items = np.tile(fill, num_owners)
    width = int(max(items.max(initial=0), fill.max(initial=0))) + 1
    new = ~np.isin(fill_owners * width + fill_items, owners * width + items)
    owners = np.concatenate((owners, fill_owners[new]))
    items = np.concatenate((items, fill_items[new]))
    order = np.argsort(owners, kind="stable")  # own items stay before the fill
    owners, items = owners[order], items[order]
    kept = _places(owners, num_owners) < k
    return items[kept], np.searchsorted(owners[kept], np.arange(num_owners + 1))


def _high(scores: Scores, num_owners: int, k: int) -> Array:
    """Which scores reach their seed's K-th best: sorting them all would take most of the time."""
    bounds = np.searchsorted(scores.owners, np.arange(num_owners + 1))
    lengths = np.diff(bounds)
    least = np.full(num_owners, -np.inf)
    for owner in np.flatnonzero(lengths > k):
        values = scores.values[bounds[owner] : bounds[owner + 1]]
        least[owner] = np.partition(values, len(values) - k)[len(values) - k]
    return np.flatnonzero(scores.values >= np.repeat(least, lengths))


def _places(owners: Array, num_owners: int) -> Array:
    """Place, from 0, of each entry among those of its owner; `owners` ascending."""
    starts = np.searchsorted(owners, np.arange(num_owners))
    return np.arange(len(owners)) - starts[owners]


def split(batch: pa.RecordBatch) -> Iterator[tuple[pa.RecordBatch, Rows]]:
    """Parts of a batch with one anchor each and ROWS_AT_ONCE seeds at most, with what they hold."""
    anchors = batch[schema.ANCHOR_TIME].cast(pa.int64()).to_numpy()
    for anchor in np.unique(anchors):
        places = np.flatnonzero(anchors == anchor)
        for start in range(0, len(places), ROWS_AT_ONCE):
            part = batch.take(pa.array(places[start : start + ROWS_AT_ONCE]))
            yield part, _rows(part, int(anchor))


def _rows(part: pa.RecordBatch, anchor: int) -> Rows:
    owners, items, ages, weights, on_sale = bought(part)
    codes = part[schema.CODES].flatten().to_numpy(zero_copy_only=False).astype(np.int64)
    return Rows(
        anchor=anchor,
        entities=part[schema.ENTITY].to_numpy(),
        codes=codes.reshape(part.num_rows, -1),
        purchases=Purchases.sort(
            part.num_rows, owners[on_sale], items[on_sale], ages[on_sale], weights[on_sale]
        ),
    )


def bought(part: pa.RecordBatch) -> tuple[Array, Array, Array, Array, Array]:
    """Row, item, age and weight of every purchase, and whether the item is on sale."""
    lists = part[BOUGHT]
    purchases = lists.flatten()
    owners = np.repeat(np.arange(len(lists)), lists.value_lengths().fill_null(0).to_numpy())
    weights = purchases.field(WEIGHT)
    items, ages, steps = (
        values.to_numpy(zero_copy_only=False).astype(np.int64)
        for values in (
            purchases.field(schema.ITEM), purchases.field(AGE_DAYS), weights.fill_null(0)
        )
    )  # fmt: skip
    return owners, items, ages, steps, weights.is_valid().to_numpy(zero_copy_only=False)


def ragged(lists: pa.ListArray) -> metrics.Ragged:
    """A column of lists without nulls as (values, offsets from 0), also where it is a slice."""
    offsets = lists.offsets.to_numpy().astype(np.int64)
    values = lists.values.slice(offsets[0], offsets[-1] - offsets[0])
    return values.to_numpy(zero_copy_only=False), offsets - offsets[0]
