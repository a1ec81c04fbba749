"""Rows of `subgraphs` become tensors: a few groups of seeds of one anchor are one batch.

Axes: B seeds, N nodes of one (hop, table), E edges, K foreign keys, F numbers or pair features,
C candidates (or categories), L labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from recspark import schema
from recspark.encodings import Encodings
from recspark.gnn import arrow, candidates
from recspark.gnn.catalogue import Features

COLUMNS = (
    schema.ANCHOR_TIME, schema.NUM_SEEDS, schema.NODES, "edges", "candidate_offsets",
    schema.ITEMS, schema.FEATURES, schema.IS_LABEL, "label_offsets", schema.LABELS,
)  # fmt: skip

Place: TypeAlias = tuple[int, str]  # (hop, table) of a node list, (hop, relation) of an edge list
_Arrays: TypeAlias = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class NodeList:
    """The distinct nodes of one table at one hop, ascending except at hop 0 (the seeds' order)."""

    nodes_N: Tensor  # int64
    features: Features | None  # of the entity table only; of others the catalogue has them

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        features = None if self.features is None else self.features.to(device)
        return type(self)(nodes_N=self.nodes_N.to(device), features=features)


@dataclass(frozen=True, kw_only=True)
class Edges:
    """Events of one relation at one hop."""

    destinations_E: Tensor  # int64, position in the list of the hop before
    sources_EK: Tensor  # int64, position in the list of this hop per foreign key, -1 for none
    ages_E: Tensor  # float32 days before the anchor
    numbers_EF: Tensor  # float32, NaN where missing
    codes_EC: Tensor  # int64

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        return type(self)(**{name: value.to(device) for name, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Batch(candidates.Candidates):
    """Seeds of one anchor with their candidates and labels, and the subgraph around them."""

    nodes: Mapping[Place, NodeList]
    edges: Mapping[Place, Edges]


def read(rows: Sequence[pa.RecordBatch], encodings: Encodings) -> Batch:
    """Merge groups of one anchor to a batch; what several groups reach is held once.

    `rows` are batches with the columns `COLUMNS`, any number of rows in each. Seeds keep their
    order; the answer for a seed does not depend on which groups share its batch.
    """
    groups = [_Group(batch, row) for batch in rows for row in range(batch.num_rows)]
    nodes: dict[Place, NodeList] = {}
    for place in _node_places(encodings):
        nodes[place] = _merge_nodes(place, groups, encodings)
    edges = {place: _merge_edges(place, groups, encodings) for place in _edge_places(encodings)}
    return Batch(nodes=nodes, edges=edges, **candidates.merge(groups, encodings))


def source_tables(relation: str, encodings: Encodings) -> tuple[str, ...]:
    """The table that each foreign key of a relation's events points to, in declared order."""
    event_table = relation.partition(".")[0]
    return tuple(table for _, table in encodings.events[event_table].foreign_keys)


def _node_places(encodings: Encodings) -> list[Place]:
    """Every (hop, table) that a subgraph can have a list of."""
    places = {(0, encodings.entity_table): None}
    for hop, relation in _edge_places(encodings):
        places |= {(hop, table): None for table in source_tables(relation, encodings)}
    return list(places)


def _edge_places(encodings: Encodings) -> list[Place]:
    hops = (encodings.hop_1(), encodings.hop_2())
    return [(hop, relation) for hop in (1, 2) for relation in hops[hop - 1]]


class _Group(candidates.CandidateRow):
    """The whole row, and where its lists went in the batch."""

    def __init__(self, batch: pa.RecordBatch, row: int) -> None:
        super().__init__(batch, row)
        self.nodes = _structs(batch.column(schema.NODES)[row].values, "table")
        self.edges = _structs(batch.column("edges")[row].values, schema.RELATION)
        self.positions: dict[Place, np.ndarray] = {}  # of each list's nodes in the batch's list
        self.is_first: dict[Place, np.ndarray] = {}  # whether no group before has the node


def _structs(structs: pa.StructArray, name: str) -> dict[Place, _Arrays]:
    """The lists of each struct, by (hop, name)."""
    lists = [field.name for field in structs.type if pa.types.is_list(field.type)]
    columns = {column: structs.field(column) for column in lists}
    offsets = {column: columns[column].offsets.to_numpy() for column in lists}
    values = {column: columns[column].values.to_numpy(zero_copy_only=False) for column in lists}
    hops, names = structs.field(schema.HOP).to_pylist(), structs.field(name).to_pylist()
    return {
        (hop, names[i]): {c: values[c][offsets[c][i] : offsets[c][i + 1]] for c in lists}
        for i, hop in enumerate(hops)
    }


def _merge_nodes(place: Place, groups: list[_Group], encodings: Encodings) -> NodeList:
    hop, table = place
    lists = [group.nodes.get(place) for group in groups]
    nodes = arrow.joined([arrays[schema.NODE] for arrays in lists if arrays], np.int64)
    if hop == 0:
        kept = positions = np.arange(len(nodes))
    else:
        _, kept, positions = np.unique(nodes, return_index=True, return_inverse=True)
    is_first = np.zeros(len(nodes), np.bool_)
    is_first[kept] = True
    start = 0
    for group, arrays in zip(groups, lists, strict=True):
        end = start + (len(arrays[schema.NODE]) if arrays else 0)
        group.positions[place] = positions[start:end]
        group.is_first[place] = is_first[start:end]
        start = end
    features = None
    if table == encodings.entity_table:
        packed = _packed_features([arrays for arrays in lists if arrays], len(nodes), encodings)
        features = packed if hop == 0 else packed.rows(torch.from_numpy(kept))
    return NodeList(nodes_N=torch.from_numpy(nodes[kept]), features=features)


def _packed_features(lists: list[_Arrays], num_nodes: int, encodings: Encodings) -> Features:
    encoding = encodings.nodes[encodings.entity_table]

    def rows(column: str, width: int, dtype: Any) -> Tensor:
        values = arrow.joined([arrays[column] for arrays in lists], dtype)
        return torch.from_numpy(values.reshape(num_nodes, width))

    lengths = arrow.joined([np.diff(arrays["bucket_offsets"]) for arrays in lists], np.int64)
    if len(lengths) == 0:
        lengths = np.zeros(num_nodes, np.int64)
    return Features(
        numbers_NF=rows(schema.NUMBERS, len(encoding.numbers), np.float32),
        codes_NC=rows(schema.CODES, len(encoding.categories), np.int64),
        times_NT=rows(schema.TIMES, len(encoding.times), np.float64),
        buckets=torch.from_numpy(
            arrow.joined([arrays[schema.BUCKETS] for arrays in lists], np.int64)
        ),
        bucket_offsets=torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)])),
    )


def _merge_edges(place: Place, groups: list[_Group], encodings: Encodings) -> Edges:
    hop, relation = place
    event = encodings.events[relation.partition(".")[0]]
    hangs_on = (hop - 1, encodings.target_of(relation))
    tables = source_tables(relation, encodings)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in Edges.__annotations__}
    for group in groups:
        arrays = group.edges.get(place)
        if arrays is None:
            continue
        destinations = arrays["destinations"]
        num_edges = len(destinations)
        # The events of a (node, anchor) are the same in every group that reaches it.
        kept = group.is_first[hangs_on][destinations]
        sources = arrays["sources"].reshape(num_edges, len(tables))[kept].astype(np.int64)
        for column, table in enumerate(tables):
            known = sources[:, column] >= 0
            sources[known, column] = group.positions[hop, table][sources[known, column]]
        parts["destinations_E"].append(group.positions[hangs_on][destinations[kept]])
        parts["sources_EK"].append(sources.ravel())
        parts["ages_E"].append(arrays[schema.AGES][kept])
        for name, feature in (("numbers_EF", schema.NUMBERS), ("codes_EC", schema.CODES)):
            width = len(arrays[feature]) // num_edges if num_edges else 0
            parts[name].append(arrays[feature].reshape(num_edges, width)[kept].ravel())
    destinations_E = torch.from_numpy(arrow.joined(parts["destinations_E"], np.int64))

    def wide(name: str, width: int, dtype: Any) -> Tensor:
        return torch.from_numpy(
            arrow.joined(parts[name], dtype).reshape(len(destinations_E), width)
        )

    return Edges(
        destinations_E=destinations_E,
        sources_EK=wide("sources_EK", len(tables), np.int64),
        ages_E=torch.from_numpy(arrow.joined(parts["ages_E"], np.float32)),
        numbers_EF=wide("numbers_EF", len(event.numbers), np.float32),
        codes_EC=wide("codes_EC", len(event.categories), np.int64),
    )
