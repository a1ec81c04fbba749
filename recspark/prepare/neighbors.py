"""Neighbour sampling: the newest events of each (node, anchor) over each foreign key, two hops.

The draw is deterministic: newest first, equal times by a seeded hash of the event's id and then
by the id, so it is the same for any partitioning and any cluster size. Every (node, anchor) is
sampled once per hop and relation, however many seeds reach it.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recspark import schema, windows
from recspark.encodings import Encodings
from recspark.existence import exists_at
from recspark.prepare import neighbor_kernel as kernel

_NEWEST = (
    f"{schema.ANCHOR_TIME} timestamp, {schema.NODE} bigint, {schema.AGES} array<float>, "
    f"{schema.NODES} array<bigint>, {schema.NUMBERS} array<float>, {schema.CODES} array<int>"
)
_PACKED = f"{kernel.PARTITION} int, {kernel.EVENTS} binary, {kernel.QUERIES} binary"


def newest(
    events: DataFrame,
    queries: DataFrame,
    *,
    position: int,
    fanout: int,
    seed: int,
    num_partitions: int | None = None,
) -> DataFrame:
    """Draw, for each query, its node's newest `fanout` events at or before its anchor.

    Args:
        events: rows as `schema.EVENTS`; each hangs on the node at `position` (from 0) of its
            `nodes`. Rows where that node is null or negative, or where the time is null, are
            skipped. `nodes`, `numbers` and `codes` are never null and of one length each.
        queries: distinct rows (node bigint, anchor_time timestamp). Their distinct anchors, few
            by design, are collected at once.
        position: of the foreign key among those declared.
        fanout: events kept per query, at least 1.
        seed: orders events of equal time.
        num_partitions: of the shuffle, `spark.sql.shuffle.partitions` by default; the rows are the
            same for any.

    Returns:
        One row per query that sees an event: anchor_time, node, ages array<float> (days, newest
        first, >= 0), and the events' nodes array<bigint> (-1 for null), numbers array<float> and
        codes array<int>, each flat, neighbour by neighbour.
    """
    return _newest(
        events, queries, _anchors(queries), position, fanout, seed, num_partitions=num_partitions
    )


def hop_1(
    encodings: Encodings,
    events: Mapping[str, DataFrame],
    snapshots: DataFrame,
    *,
    fanout: int,
    seed: int,
) -> DataFrame:
    """Sample around the entities of all snapshots, over every relation of `encodings.hop_1`.

    `events` maps event tables to rows as `schema.EVENTS`, `nodes` in the order of the table's
    foreign keys in `encodings`; `snapshots` is as `schema.SNAPSHOTS`.

    Returns:
        Rows as `schema.NEIGHBORS` without run_date, hop 1. Store them before `hop_2` reads them.
    """
    entity = F.col(schema.ENTITY).alias(schema.NODE)
    queries = snapshots.select(entity, schema.ANCHOR_TIME).distinct()
    anchors = _anchors(snapshots)
    return _union(
        _of_relation(relation, 1, encodings, events, queries, anchors, fanout, seed)
        for relation in encodings.hop_1()
    )


def hop_2(
    encodings: Encodings,
    events: Mapping[str, DataFrame],
    hop_1_rows: DataFrame,
    *,
    nodes: Mapping[str, DataFrame],
    complete_anchors: Sequence[datetime],
    fanout: int,
    seed: int,
) -> DataFrame:
    """Sample around what hop 1 reached, over every relation of `encodings.hop_2`.

    At `complete_anchors` (UTC, without a zone), which are scored layer by layer, every node that
    exists then is sampled too, reached or not; the reached ones include nodes that exist no
    longer, such as items bought in the past and since withdrawn. `nodes` maps node tables to rows
    as `schema.nodes`, `hop_1_rows` are those of `hop_1`, read back from storage.

    Returns:
        Rows as `schema.NEIGHBORS` without run_date, hop 2.
    """
    anchors = sorted({*_anchors(hop_1_rows), *map(_microseconds, complete_anchors)})
    frontiers = {
        table: _reached(encodings, hop_1_rows, table)
        .union(_existing(nodes[table], complete_anchors))
        .distinct()
        for table in encodings.reached_tables()
    }
    return _union(
        _of_relation(relation, 2, encodings, events, queries, anchors, fanout, seed)
        for relation in encodings.hop_2()
        for queries in [frontiers[encodings.target_of(relation)]]
    )


def _of_relation(
    relation: str,
    hop: int,
    encodings: Encodings,
    events: Mapping[str, DataFrame],
    queries: DataFrame,
    anchors: Sequence[int],
    fanout: int,
    seed: int,
) -> DataFrame:
    """The rows of one relation and hop."""
    table, _, column = relation.partition(".")
    position = [key for key, _ in encodings.events[table].foreign_keys].index(column)
    drawn = _newest(events[table], queries, anchors, position, fanout, seed)
    return drawn.select(
        F.lit(hop).alias(schema.HOP), F.lit(relation).alias(schema.RELATION), *drawn.columns
    )


def _newest(
    events: DataFrame,
    queries: DataFrame,
    anchors: Sequence[int],
    position: int,
    fanout: int,
    seed: int,
    num_partitions: int | None = None,
) -> DataFrame:
    """`newest` with the queries' anchors known, ascending microseconds since 1970."""
    spark = events.sparkSession
    if not anchors:
        return spark.createDataFrame([], _NEWEST)
    num_partitions = num_partitions or int(str(spark.conf.get("spark.sql.shuffle.partitions")))
    draw = kernel.Draw(anchors=tuple(anchors), fanout=fanout, num_partitions=num_partitions)
    hanging = events.select(
        F.get(schema.NODES, F.lit(position)).alias(schema.NODE),
        F.unix_micros(schema.TIME).alias(schema.TIME),
        F.xxhash64(F.lit(seed).cast("bigint"), schema.EVENT).alias(kernel.DRAW),
        *[schema.EVENT, schema.NODES, schema.NUMBERS, schema.CODES],
    ).where((F.col(schema.NODE) >= 0) & windows.is_visible(F.col(schema.TIME), F.lit(anchors[-1])))
    asked = queries.select(schema.NODE, F.unix_micros(schema.ANCHOR_TIME))
    packed = hanging.mapInArrow(draw.pack_events, _PACKED).union(
        asked.mapInArrow(draw.pack_queries, _PACKED)
    )
    # By number and not by hash, so that each partition number is one task.
    shuffled = packed.repartitionById(num_partitions, kernel.PARTITION)
    return shuffled.mapInArrow(draw.newest, _NEWEST)


def _reached(encodings: Encodings, hop_1_rows: DataFrame, table: str) -> DataFrame:
    """The (node, anchor_time) of a node table that events of hop 1 point to; not distinct."""
    return _union(
        hop_1_rows.where(F.col(schema.RELATION) == relation).select(
            F.explode(_entries(positions, len(keys))).alias(schema.NODE), schema.ANCHOR_TIME
        )
        for relation in encodings.hop_1()
        for keys in [encodings.events[relation.partition(".")[0]].foreign_keys]
        for positions in [[i for i, (_, target) in enumerate(keys) if target == table]]
        if positions
    )


def _entries(positions: Sequence[int], num_keys: int) -> Column:
    """The distinct nodes that the flat array holds for these of its `num_keys` foreign keys."""
    return F.array_distinct(
        F.filter(schema.NODES, lambda node, i: (i % num_keys).isin(positions) & (node >= 0))
    )


def _existing(nodes: DataFrame, anchors: Sequence[datetime]) -> DataFrame:
    """The (node, anchor_time) of all nodes that exist at each anchor."""
    moments = F.array(*map(F.lit, anchors)).cast("array<timestamp>")
    anchor = F.col(schema.ANCHOR_TIME)
    at_moments = nodes.withColumn(schema.ANCHOR_TIME, F.explode(moments))
    return at_moments.where(exists_at(anchor)).select(schema.NODE, schema.ANCHOR_TIME)


def _anchors(frame: DataFrame) -> list[int]:
    """The distinct anchor times, ascending, as microseconds since 1970."""
    moments = frame.select(F.unix_micros(schema.ANCHOR_TIME).alias("moment")).distinct()
    return sorted(int(row["moment"]) for row in moments.collect())


def _microseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1)  # noqa: DTZ001 - UTC


def _union(frames: Iterable[DataFrame]) -> DataFrame:
    return reduce(DataFrame.union, frames)
