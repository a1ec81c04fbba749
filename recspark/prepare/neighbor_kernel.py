"""The numpy kernel of neighbour sampling: newest visible events of many (node, anchor) at once.

Runs in Spark's Python workers, in two passes with one shuffle between them:

1. `Draw.pack_events` and `Draw.pack_queries` see any part of the rows, in any order. Of the events
   only the newest `fanout` per node and *interval* go on, an interval being the time after one
   anchor up to and including the next: every anchor takes whole intervals, so nothing older can
   be among its newest. A part's own newest contain the newest of all, so no hub ever meets in one
   task. What goes on is packed, one blob of Arrow rows per target partition, which Spark shuffles
   as bytes; shuffling and converting single rows costs more than the sampling.
2. `Draw.newest` gathers the blobs of one partition, sorts, and finds each query's events between
   two positions by binary search.

Times are int64 microseconds since 1970 UTC. There is no Python loop over rows. Imports no Spark.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recspark import schema

Ints = NDArray[np.int64]

DRAW = "draw"  # bigint seeded hash of the event's id: the order of events of equal time
PARTITION, EVENTS, QUERIES = "partition", "events", "queries"

PACK_ROWS = 262_144  # events pruned and packed at a time; bounds a worker's memory in pass 1
OUTPUT_ROWS = 8_192  # queries per record batch that leaves pass 2
MICROSECONDS_PER_DAY = 86_400e6

_EVENT_ROWS = pa.schema(
    [
        (schema.NODE, pa.int64()),
        (schema.TIME, pa.int64()),
        (DRAW, pa.int64()),
        (schema.EVENT, pa.int64()),
        (schema.NODES, pa.list_(pa.int64())),
        (schema.NUMBERS, pa.list_(pa.float32())),
        (schema.CODES, pa.list_(pa.int32())),
    ]
)
_QUERY_ROWS = pa.schema([(schema.NODE, pa.int64()), (schema.ANCHOR_TIME, pa.int64())])
_PACKED = pa.schema([(PARTITION, pa.int32()), (EVENTS, pa.binary()), (QUERIES, pa.binary())])
_NEWEST = pa.schema(
    [
        (schema.ANCHOR_TIME, pa.timestamp("us", tz="UTC")),
        (schema.NODE, pa.int64()),
        (schema.AGES, pa.list_(pa.float32())),
        (schema.NODES, pa.list_(pa.int64())),
        (schema.NUMBERS, pa.list_(pa.float32())),
        (schema.CODES, pa.list_(pa.int32())),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One draw of the newest `fanout` events per (node, anchor) over one foreign key."""

    anchors: tuple[int, ...]  # every distinct anchor of the queries, ascending
    fanout: int  # >= 1
    num_partitions: int  # of the shuffle between the passes

    def pack_events(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Prune events (columns as `_EVENT_ROWS`, node >= 0, time set) and pack what can matter."""
        for chunk in _chunks(batches, PACK_ROWS):
            rows = pa.RecordBatch.from_arrays(chunk.columns, names=_EVENT_ROWS.names)
            yield self._packed(rows.take(pa.array(self._survivors(rows))), EVENTS)

    def pack_queries(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Pack queries (columns as `_QUERY_ROWS`, no nulls)."""
        for chunk in _chunks(batches, PACK_ROWS):
            rows = pa.RecordBatch.from_arrays(chunk.columns, names=_QUERY_ROWS.names)
            yield self._packed(rows, QUERIES)

    def newest(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Answer the queries of one partition from its events, both packed, in batches.

        Queries without a visible event have no row. Rows are ordered by (node, anchor).
        """
        packed = list(batches)
        events = _unpacked(packed, EVENTS, _EVENT_ROWS)
        queries = _unpacked(packed, QUERIES, _QUERY_ROWS)
        if not events or not queries:
            return
        yield from self._answers(events, queries)

    def _survivors(self, rows: pa.RecordBatch) -> Ints:
        """Positions of the newest `fanout` events per (node, interval), none after all anchors."""
        node, time = _ints([rows], schema.NODE), _ints([rows], schema.TIME)
        draw, event = _ints([rows], DRAW), _ints([rows], schema.EVENT)
        order = _oldest_first(node, time, draw, event)
        key = self._keys(node[order], self._intervals(time[order]))
        ends = np.append(np.flatnonzero(np.diff(key)) + 1, len(key))
        rank = np.repeat(ends, np.diff(ends, prepend=0)) - np.arange(len(key))  # 1 is the newest
        seen_by_an_anchor = self._intervals(time[order]) < len(self.anchors)
        return order[(rank <= self.fanout) & seen_by_an_anchor]

    def _answers(
        self, events: list[pa.RecordBatch], queries: list[pa.RecordBatch]
    ) -> Iterator[pa.RecordBatch]:
        node, time = _ints(events, schema.NODE), _ints(events, schema.TIME)
        order = _oldest_first(node, time, _ints(events, DRAW), _ints(events, schema.EVENT))
        key = self._keys(node[order], self._intervals(time[order]))

        asked, anchor = _ints(queries, schema.NODE), _ints(queries, schema.ANCHOR_TIME)
        in_order = np.lexsort((anchor, asked))
        asked, anchor = asked[in_order], anchor[in_order]
        # An event of interval i is visible to anchors i, i + 1, ...: to the right of the last
        # event in the query's own interval lies the future.
        start = np.searchsorted(key, self._keys(asked, np.zeros_like(asked)), side="left")
        end = np.searchsorted(key, self._keys(asked, self._intervals(anchor)), side="right")
        count = np.minimum(end - start, self.fanout)
        answered = np.flatnonzero(count > 0)

        payload = [_matrix(events, name) for name in (schema.NODES, schema.NUMBERS, schema.CODES)]
        for first in range(0, len(answered), OUTPUT_ROWS):
            chosen = answered[first : first + OUTPUT_ROWS]
            counts = count[chosen]
            offsets = np.concatenate([[0], np.cumsum(counts)])
            steps_back = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
            drawn = order[np.repeat(end[chosen] - 1, counts) - steps_back]
            ages = (np.repeat(anchor[chosen], counts) - time[drawn]) / MICROSECONDS_PER_DAY
            columns = [
                pa.array(anchor[chosen]).cast(_NEWEST.field(schema.ANCHOR_TIME).type),
                pa.array(asked[chosen]),
                _lists(ages.astype(np.float32)[:, None], offsets),
                *[_lists(matrix[drawn], offsets) for matrix in payload],
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=_NEWEST)

    def _intervals(self, time: Ints) -> Ints:
        """Per time the position of the first anchor that sees it, by `windows.is_visible`.

        The left side makes the comparison `time <= anchor`; `len(anchors)` where none sees it.
        """
        return np.searchsorted(np.array(self.anchors, np.int64), time, side="left")

    def _keys(self, node: Ints, interval: Ints) -> Ints:
        """One int64 that orders like (node, interval); nodes are dense, so it cannot overflow."""
        return node * (len(self.anchors) + 1) + interval

    def _packed(self, rows: pa.RecordBatch, column: str) -> pa.RecordBatch:
        """One blob per target partition, which is a hash of the node."""
        node = _ints([rows], schema.NODE).astype(np.uint64)
        mixed = (node * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(33)  # Fibonacci hashing
        partition = (mixed % np.uint64(self.num_partitions)).astype(np.int32)
        rows = rows.take(pa.array(np.argsort(partition, kind="stable")))
        counts = np.bincount(partition, minlength=self.num_partitions)
        targets = np.flatnonzero(counts)
        starts = np.cumsum(counts) - counts
        blobs = [rows.slice(starts[p], counts[p]).serialize().to_pybytes() for p in targets]
        columns = {
            PARTITION: pa.array(targets.astype(np.int32)),
            EVENTS: pa.nulls(len(targets), pa.binary()),
            QUERIES: pa.nulls(len(targets), pa.binary()),
            column: pa.array(blobs, pa.binary()),
        }
        return pa.RecordBatch.from_pydict(columns, schema=_PACKED)


def _oldest_first(node: Ints, time: Ints, draw: Ints, event: Ints) -> Ints:
    """Positions by (node, time, then descending hash and id): read backwards, newest first."""
    return np.lexsort((~event, ~draw, time, node))


def _chunks(batches: Iterator[pa.RecordBatch], num_rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of at least `num_rows`, but for the last; none is empty."""
    pending: list[pa.RecordBatch] = []
    waiting = 0
    for batch in batches:
        pending.append(batch)
        waiting += batch.num_rows
        if waiting >= num_rows:
            yield pa.concat_batches(pending)
            pending, waiting = [], 0
    if waiting:
        yield pa.concat_batches(pending)


def _unpacked(packed: list[pa.RecordBatch], column: str, rows: pa.Schema) -> list[pa.RecordBatch]:
    """The rows of every blob in one column."""
    blobs = [blob for batch in packed for blob in batch.column(column) if blob.is_valid]
    return [pa.ipc.read_record_batch(blob.as_buffer(), rows) for blob in blobs]


def _ints(batches: list[pa.RecordBatch], column: str) -> Ints:
    assert all(b.column(column).null_count == 0 for b in batches), f"null in column {column}"
    return np.concatenate([b.column(column).to_numpy() for b in batches])


def _matrix(batches: list[pa.RecordBatch], column: str) -> NDArray[Any]:
    """A list column as (rows x width): all lists of one event table have the same length.

    Null entries, which only foreign keys can have, become -1.
    """
    lists = [b.column(column) for b in batches]
    assert all(array.null_count == 0 for array in lists), f"null array in column {column}"
    width = len(lists[0][0])
    assert all((array.value_lengths().to_numpy() == width).all() for array in lists), (
        f"column {column} holds arrays of other lengths than {width}"
    )
    flat = [array.flatten().fill_null(-1).to_numpy() for array in lists]
    return np.concatenate(flat).reshape(sum(map(len, lists)), width)


def _lists(matrix: NDArray[Any], row_offsets: Ints) -> pa.ListArray:
    """Rows `row_offsets[i]` to `row_offsets[i + 1]` of the matrix as flat list i."""
    offsets = (row_offsets * matrix.shape[1]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(matrix.reshape(-1)))
