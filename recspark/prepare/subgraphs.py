"""Seeds to training subgraphs: seeds of one anchor in groups, each group one row of flat arrays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

from recspark import files, schema
from recspark.encodings import Encodings
from recspark.prepare.arrow_rows import one_row, unpacked
from recspark.prepare.subgraph_kernel import Features, Ragged, Relation, Struct, attach

EDGE_COLUMNS = (schema.AGES, schema.NODES, schema.NUMBERS, schema.CODES)
FEATURE_COLUMNS = (schema.NUMBERS, schema.CODES, schema.TIMES, schema.BUCKETS)
GROUP_KEYS = (schema.SPLIT, schema.ANCHOR_TIME, schema.GROUP)
NODES_PER_GROUP = 512  # nodes of one row of `node_subgraphs`


@dataclass(frozen=True, kw_only=True)
class HopTwoFiles:
    """Where workers read hop 2 from: slices of `neighbors` (hop 2) and `frontier`."""

    neighbors: tuple[str, ...]
    frontier: tuple[str, ...]


def frontier(encodings: Encodings, hop_2: DataFrame, entities: DataFrame) -> DataFrame:
    """`schema.FRONTIER` without run date: distinct (entity, anchor) that hop 2 points to."""
    reached = None
    for relation in encodings.hop_2():
        table, _, own = relation.partition(".")
        keys = encodings.events[table].foreign_keys
        for position, (column, to) in enumerate(keys):
            if to != encodings.entity_table or column == own:
                continue
            every = F.sequence(F.lit(position), F.size(schema.NODES) - 1, F.lit(len(keys)))
            nodes = F.transform(every, lambda i: F.element_at(schema.NODES, (i + 1).cast("int")))
            part = hop_2.where(F.col(schema.RELATION) == relation).select(
                schema.ANCHOR_TIME, F.explode(nodes).alias(schema.NODE)
            )
            reached = part if reached is None else reached.unionByName(part)
    features = entities.select(schema.NODE, *FEATURE_COLUMNS)
    if reached is None:
        empty = features.limit(0).withColumn(schema.ANCHOR_TIME, F.lit(None).cast("timestamp"))
        return empty.select(schema.ANCHOR_TIME, schema.NODE, *FEATURE_COLUMNS)
    distinct = reached.groupBy(schema.ANCHOR_TIME, schema.NODE).agg(F.lit(1).alias("once"))
    joined = distinct.drop("once").join(features, on=schema.NODE, how="inner")
    return joined.select(schema.ANCHOR_TIME, schema.NODE, *FEATURE_COLUMNS)


def of_seeds(
    encodings: Encodings,
    *,
    snapshots: DataFrame,
    candidates: DataFrame,
    hop_1: DataFrame,
    entities: DataFrame,
    hop_2: HopTwoFiles | None,
    group_size: int,
    seed: int,
) -> DataFrame:
    """`schema.SUBGRAPHS` without run date, for the seeds of `snapshots`.

    With `hop_2` each row carries hop 2 around what its hop 1 reaches; without it (seeds that are
    scored layer by layer) hop 1 only. A seed's group is a hash of (seed, entity), so it does not
    depend on partitions.
    """
    key = [schema.ENTITY, schema.ANCHOR_TIME]
    around = (
        hop_1.withColumnRenamed(schema.NODE, schema.ENTITY)
        .groupBy(*key)
        .agg(F.sort_array(F.collect_list(F.struct(schema.RELATION, *EDGE_COLUMNS))).alias("hop_1"))
    )
    features = entities.select(
        F.col(schema.NODE).alias(schema.ENTITY),
        *[F.col(c).alias(f"own_{c}") for c in FEATURE_COLUMNS],
    )
    own = (
        snapshots.select(*key, schema.SPLIT, schema.LABELS)
        .join(around, on=key, how="left")
        .join(features, on=schema.ENTITY, how="inner")
    )
    # Two rows of every seed, brought together with its group: joined first, candidates, which are
    # by far the largest, would travel and be sorted twice.
    pairs = candidates.select(*key, schema.SPLIT, schema.ITEMS, schema.FEATURES, schema.IS_LABEL)
    rows = own.unionByName(pairs, allowMissingColumns=True)
    grouped = _in_groups(rows, snapshots, group_size, seed)
    arrow = _arrow_schema()
    text = encodings.model_dump_json()

    def kernel(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        parsed = Encodings.model_validate_json(text)
        for rows_of_group in _groups(batches):
            yield one_row(_seed_group(parsed, rows_of_group, hop_2), arrow)

    return grouped.mapInArrow(kernel, _spark_schema())


def of_nodes(
    encodings: Encodings, nodes_at_anchors: DataFrame, hop_2: HopTwoFiles, split: str
) -> DataFrame:
    """`schema.SUBGRAPHS` without run date, no seeds: hop 2 around nodes, for layer-wise scoring.

    `nodes_at_anchors` has (anchor_time, table, node): every node that hop 1 can reach.
    """
    grouped = (
        nodes_at_anchors.withColumn(schema.SPLIT, F.lit(split))
        .withColumn(schema.GROUP, (F.col(schema.NODE) / NODES_PER_GROUP).cast("int"))
        .repartition(*GROUP_KEYS, "table")
        .sortWithinPartitions(*GROUP_KEYS, "table", schema.NODE)
        .select(*GROUP_KEYS, "table", schema.NODE)
    )
    arrow = _arrow_schema()
    text = encodings.model_dump_json()

    def kernel(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        parsed = Encodings.model_validate_json(text)
        for rows_of_group in _groups(batches, extra_key="table"):
            yield one_row(_node_group(parsed, rows_of_group, hop_2), arrow)

    return grouped.mapInArrow(kernel, _spark_schema())


def _in_groups(rows: DataFrame, snapshots: DataFrame, group_size: int, seed: int) -> DataFrame:
    """Add the group number and bring the rows of a group together, ordered by entity.

    Groups come in the order of (split, anchor, group) over all partitions, so that training ranks
    that share the stored rows by position get the same ones for any number of partitions.
    """
    counts = snapshots.groupBy(schema.SPLIT, schema.ANCHOR_TIME).count()
    before, found = 0, []
    for row in counts.orderBy(schema.SPLIT, schema.ANCHOR_TIME).collect():
        num_groups = -(-row["count"] // group_size)
        found.append((row[schema.SPLIT], row[schema.ANCHOR_TIME], num_groups, before))
        before += num_groups
    ddl = f"{schema.SPLIT} string, {schema.ANCHOR_TIME} timestamp, num_groups int, before int"
    sizes = rows.sparkSession.createDataFrame(found, ddl)
    num_partitions = int(str(rows.sparkSession.conf.get("spark.sql.shuffle.partitions")))
    group = F.pmod(F.xxhash64(F.lit(seed), F.col(schema.ENTITY)), F.col("num_groups")).cast("int")
    place = (F.col("before") + F.col(schema.GROUP)) * num_partitions / F.lit(max(before, 1))
    return (
        rows.join(F.broadcast(sizes), on=[schema.SPLIT, schema.ANCHOR_TIME], how="inner")
        .withColumn(schema.GROUP, group)
        .withColumn("place", F.floor(place).cast("int"))
        .repartitionById(num_partitions, F.col("place"))
        .sortWithinPartitions(*GROUP_KEYS, schema.ENTITY)
        .drop("num_groups", "before", "place")
    )


def _spark_schema() -> StructType:
    every = cast(StructType, StructType.fromDDL(schema.SUBGRAPHS))
    return StructType([field for field in every.fields if field.name != schema.RUN_DATE])


def _arrow_schema() -> pa.Schema:
    return to_arrow_schema(_spark_schema(), timezone="UTC")


def _groups(batches: Iterator[pa.RecordBatch], extra_key: str | None = None) -> Iterator[pa.Table]:
    """Consecutive rows with equal group keys, whole, though batches do not align to groups."""
    keys = [*GROUP_KEYS, *([extra_key] if extra_key else [])]
    pending: list[pa.RecordBatch] = []
    last: tuple[Any, ...] | None = None
    for batch in batches:
        columns = [batch.column(key).to_pylist() for key in keys]
        row_keys = list(zip(*columns, strict=True))
        start = 0
        for row, row_key in enumerate(row_keys):
            if last is not None and row_key != last:
                pending.append(batch.slice(start, row - start))
                yield pa.Table.from_batches(pending).combine_chunks()
                pending, start = [], row
            last = row_key
        pending.append(batch.slice(start))
    if last is not None:
        yield pa.Table.from_batches(pending).combine_chunks()


def ragged(column: pa.ChunkedArray | pa.Array) -> Ragged:
    """A list column without nulls as flat numpy values and offsets."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    sizes = pc.list_value_length(array).to_numpy(zero_copy_only=False).astype(np.int64)
    values = pc.list_flatten(array).to_numpy(zero_copy_only=False)
    return Ragged(values, np.concatenate([[0], np.cumsum(sizes)]))


def _seed_group(encodings: Encodings, rows: pa.Table, hop_2: HopTwoFiles | None) -> Struct:
    is_pairs = pc.is_valid(rows[schema.ITEMS])
    pairs, rows = rows.filter(is_pairs), rows.filter(pc.invert(is_pairs))
    entities = rows[schema.ENTITY].to_numpy()
    assert np.array_equal(entities, pairs[schema.ENTITY].to_numpy()), "a seed without candidates"
    own = Features(entities, {c: ragged(rows[f"own_{c}"]) for c in FEATURE_COLUMNS})
    seeds = {"hop": 0, "table": encodings.entity_table, schema.NODE: entities} | own.of(entities)
    relations = _hop_1_relations(encodings, entities, rows["hop_1"])
    nodes, edges = attach(encodings, 1, {encodings.entity_table: entities}, relations, None)
    anchor = rows[schema.ANCHOR_TIME][0].as_py()
    outer_nodes: list[Struct] = []
    outer_edges: list[Struct] = []
    if hop_2 is not None:
        outer_nodes, outer_edges = _attach_hop_2(encodings, anchor, nodes, hop_2)
    items, labels = ragged(pairs[schema.ITEMS]), ragged(rows[schema.LABELS])
    return {
        schema.SPLIT: rows[schema.SPLIT][0].as_py(),
        schema.ANCHOR_TIME: anchor,
        schema.GROUP: rows[schema.GROUP][0].as_py(),
        schema.NUM_SEEDS: len(entities),
        schema.NODES: [seeds, *nodes, *outer_nodes],
        "edges": [*edges, *outer_edges],
        "candidate_offsets": items.offsets,
        schema.ITEMS: items.values,
        schema.FEATURES: unpacked(pairs[schema.FEATURES]).tobytes(),
        schema.IS_LABEL: ragged(pairs[schema.IS_LABEL]).values,
        "label_offsets": labels.offsets,
        schema.LABELS: labels.values,
    }


def _node_group(encodings: Encodings, rows: pa.Table, hop_2: HopTwoFiles) -> Struct:
    table = rows["table"][0].as_py()
    inner = {"hop": 1, "table": table, schema.NODE: rows[schema.NODE].to_numpy()}
    inner |= {name: [] for name in (*FEATURE_COLUMNS, "bucket_offsets")}
    anchor = rows[schema.ANCHOR_TIME][0].as_py()
    nodes, edges = _attach_hop_2(encodings, anchor, [inner], hop_2)
    return {
        schema.SPLIT: rows[schema.SPLIT][0].as_py(),
        schema.ANCHOR_TIME: anchor,
        schema.GROUP: rows[schema.GROUP][0].as_py(),
        schema.NUM_SEEDS: 0,
        schema.NODES: [inner, *nodes],
        "edges": edges,
        "candidate_offsets": [0],
        schema.ITEMS: [],
        schema.FEATURES: b"",
        schema.IS_LABEL: [],
        "label_offsets": [0],
        schema.LABELS: [],
    }


def _hop_1_relations(
    encodings: Encodings, entities: np.ndarray[Any, Any], hop_1: pa.ChunkedArray
) -> list[Relation]:
    """The seeds' sampled events by relation; seeds without events have a null list."""
    lists = hop_1.combine_chunks()
    sizes = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    owner = np.repeat(entities, sizes)
    structs = pc.list_flatten(lists)
    names = pc.struct_field(structs, schema.RELATION).to_numpy(zero_copy_only=False)
    relations = []
    for relation in encodings.hop_1():
        rows = np.flatnonzero(names == relation)
        columns = {c: ragged(pc.struct_field(structs, c)).take(rows) for c in EDGE_COLUMNS}
        relations.append(Relation(relation, owner[rows], columns))
    return relations


def _attach_hop_2(
    encodings: Encodings, anchor: datetime, hop_1_nodes: Sequence[Struct], hop_2: HopTwoFiles
) -> tuple[list[Struct], list[Struct]]:
    relations, features = _hop_2_at(hop_2, anchor.astimezone(UTC).replace(tzinfo=None))
    inner = {part["table"]: part[schema.NODE] for part in hop_1_nodes}
    reachable = [r for r in relations if encodings.target_of(r.name) in inner]
    return attach(encodings, 2, inner, reachable, features)


@lru_cache(maxsize=2)  # groups arrive ordered by anchor
def _hop_2_at(hop_2: HopTwoFiles, anchor: datetime) -> tuple[list[Relation], Features]:
    """Hop 2 and the features of its entities at one anchor, read once per worker."""
    wanted = [schema.RELATION, schema.NODE, *EDGE_COLUMNS]
    rows = files.read(hop_2.neighbors, wanted, anchor).sort_by(
        [(schema.RELATION, "ascending"), (schema.NODE, "ascending")]
    )
    relations = []
    for relation in pc.unique(rows[schema.RELATION]).to_pylist():
        part = rows.filter(pc.equal(rows[schema.RELATION], relation))
        columns = {c: ragged(part[c]) for c in EDGE_COLUMNS}
        relations.append(Relation(relation, part[schema.NODE].to_numpy(), columns))
    reached = files.read(hop_2.frontier, [schema.NODE, *FEATURE_COLUMNS], anchor)
    reached = reached.sort_by([(schema.NODE, "ascending")])
    columns = {c: ragged(reached[c]) for c in FEATURE_COLUMNS}
    return relations, Features(reached[schema.NODE].to_numpy(), columns)
