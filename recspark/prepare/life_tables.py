"""Life tables of items: when those who bought one bought it again, and when they could have.

A spell starts when an entity buys an item, and ends when it buys the item again; at the anchor it
may still be open. Each line that the entity buys during a spell, of whatever item, is a chance to
buy this one: it is at risk in the interval (`EDGES`) of the days since the spell began. Counting
lines instead of days leaves out how often an entity comes at all.

Runs on Spark workers; needs numpy and pyarrow only.
Axes: P purchases, N items, I intervals.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa

from recspark import schema
from recspark.prepare.arrow_rows import Array, column, differs, gather, lists, timestamps

PER_DOUBLING = 4  # intervals, from one day on
EDGES = np.concatenate([[0.0], 2.0 ** (np.arange(39) / PER_DOUBLING)])  # days, up to two years
NUM_INTERVALS = len(EDGES)  # the last one has no end
TABLES = (
    f"{schema.ANCHOR_TIME} timestamp, {schema.ITEM} bigint, {schema.REPEATS} array<int>, "
    f"{schema.AT_RISK} array<int>"
)
_SECOND = 1_000_000  # microseconds
_DAY = 86_400  # seconds
_EDGE_SECONDS = np.ceil(EDGES * _DAY).astype(np.int64)
_PURCHASES_AT_ONCE = 1_000_000  # 160 MB of places


@dataclass(frozen=True, eq=False)
class _Purchases:
    """Distinct purchases of some entities, by item; places are among the lines of all of them."""

    item: Array  # int64 (P,), ascending
    second: Array  # int64 (P,), since 1970, rounded up
    again: Array  # int64 (P,): seconds until the same pair's next purchase, -1: none
    opens: Array  # int64 (P,): lines of the entities before its own
    closes: Array  # int64 (P,): lines of its entity, and before
    places: Array  # int32 (P, I + 1): lines of its entity, and before, until each edge or the next
    line_second: Array  # int64 (L,), by entity

    @classmethod
    def of(cls, entity: Array, item: Array, second: Array) -> Self:
        """From rows in any order; `entity` counts from 0."""
        order = np.lexsort((second, item, entity))
        order = order[differs(entity[order], item[order], second[order])]
        entity, item, second = entity[order], item[order], second[order]
        goes_on = ~differs(entity, item)[1:]
        again = np.append(np.where(goes_on, np.diff(second), -1), -1)
        by_time = np.lexsort((second, entity))
        first = int(second.min(initial=0))
        span = int(second.max(initial=0)) - first + int(_EDGE_SECONDS[-1]) + 2
        keys = entity * span + (second - first)
        lines = keys[by_time]
        end = keys + np.where(again >= 0, again, span)
        reached = [keys, *(keys + seconds - 1 for seconds in _EDGE_SECONDS[1:])]
        opens = np.searchsorted(entity[by_time], entity)
        closes = np.searchsorted(entity[by_time], entity, side="right")
        places = np.empty((len(keys), NUM_INTERVALS + 1), dtype=np.int32)
        for place, key in enumerate((*reached, end)):
            until = np.searchsorted(lines, np.minimum(key, end), side="right")
            places[:, place] = np.minimum(until, closes)
        by_item = np.argsort(item, kind="stable")
        return cls(
            item=item[by_item],
            second=second[by_item],
            again=again[by_item],
            opens=opens[by_item],
            closes=closes[by_item],
            places=places[by_item],
            line_second=second[by_time],
        )

    def at(self, anchor: int) -> tuple[Array, Array, Array]:
        """Items, repeats and lines at risk, int64 (N,), (N, I) and (N, I); `anchor` in seconds."""
        visible = self.second <= anchor
        item = self.item[visible]
        starts = np.flatnonzero(differs(item)) if len(item) else np.empty(0, dtype=np.int64)
        if not len(item):
            empty = np.zeros((0, NUM_INTERVALS), dtype=np.int64)
            return item, empty, empty
        # Lines are ordered by entity: those until the anchor lie before this place.
        before = np.append(0, np.cumsum(self.line_second <= anchor))
        opens, closes = self.opens[visible], self.closes[visible]
        until = (opens + before[closes] - before[opens]).astype(np.int32)
        inside = np.diff(np.minimum(self.places[visible], until[:, None]), axis=1)
        at_risk = np.add.reduceat(inside, starts, axis=0, dtype=np.int64)
        again = self.again[visible]
        closed = (again >= 0) & (self.second[visible] + again <= anchor)
        number = np.cumsum(differs(item)) - 1
        interval = np.searchsorted(_EDGE_SECONDS, again[closed], side="right") - 1
        cells = number[closed] * NUM_INTERVALS + interval
        repeats = np.bincount(cells, minlength=at_risk.size).reshape(at_risk.shape)
        return item[starts], repeats, at_risk


def tables(batches: Iterator[pa.RecordBatch], anchors: Sequence[int]) -> Iterator[pa.RecordBatch]:
    """Kernel over a partition of purchases by entity: TABLES, each a part of its item's table.

    `anchors` are microseconds since 1970, in whole seconds. Parts of one item and anchor are to be
    added.
    """
    table = gather(batches)
    if table is None:
        return
    rows = [column(table, name) for name in (schema.ENTITY, schema.ITEM, schema.TIME)]
    order = np.argsort(rows[0], kind="stable")
    entity, item, time = (values[order] for values in rows)
    second = -(-time // _SECOND)  # rounded up, so that what is visible stays visible
    number = np.cumsum(differs(entity)) - 1
    opens = np.flatnonzero(differs(entity))
    chunk = opens // _PURCHASES_AT_ONCE
    bounds = [*opens[differs(chunk)], len(entity)]
    for start, stop in itertools.pairwise(bounds):
        part = slice(start, stop)
        found = _Purchases.of(number[part] - number[start], item[part], second[part])
        for anchor in anchors:
            assert anchor % _SECOND == 0, anchor
            items, repeats, at_risk = found.at(anchor // _SECOND)
            lengths = np.full(len(items), NUM_INTERVALS)
            yield pa.RecordBatch.from_arrays(
                [
                    timestamps(np.full(len(items), anchor)),
                    pa.array(items, pa.int64()),
                    lists(repeats.ravel().astype(np.int32), lengths, pa.int32()),
                    lists(at_risk.ravel().astype(np.int32), lengths, pa.int32()),
                ],
                names=[schema.ANCHOR_TIME, schema.ITEM, schema.REPEATS, schema.AT_RISK],
            )
