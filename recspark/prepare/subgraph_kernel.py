"""Groups of seeds to flat arrays: distinct nodes once, edges as positions. numpy and pyarrow only.

Hop 2 around a node depends on (node, anchor) only, so a worker reads the sampled hop 2 of an
anchor once and every group takes its part of it by position. What a worker holds grows with the
nodes that hop 1 can reach (items) times the fanout, not with entities or events.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recspark import schema
from recspark.encodings import Encodings

Ints = NDArray[np.int64]
Struct = dict[str, Any]


@dataclass(frozen=True)
class Ragged:
    """Lists of one column as flat values and offsets; `offsets[i]:offsets[i + 1]` is list i."""

    values: NDArray[Any]
    offsets: Ints

    def take(self, lists: Ints) -> "Ragged":
        """The lists at these positions, in this order."""
        starts, sizes = self.offsets[lists], self.offsets[lists + 1] - self.offsets[lists]
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        shift = np.repeat(starts - offsets[:-1], sizes)
        return Ragged(self.values[np.arange(offsets[-1]) + shift], offsets)


@dataclass(frozen=True)
class Relation:
    """Sampled events of one relation at one anchor; rows are nodes, ascending."""

    name: str
    node: Ints
    columns: Mapping[str, Ragged]  # ages, nodes, numbers, codes

    def around(self, nodes: Ints) -> tuple[Ints, Struct]:
        """Events around these nodes: each event's position in `nodes`, and its flat columns."""
        found = np.searchsorted(self.node, nodes)
        found = np.minimum(found, max(len(self.node) - 1, 0))
        hit = np.flatnonzero(self.node[found] == nodes) if len(self.node) else np.empty(0, np.int64)
        taken = {name: column.take(found[hit]) for name, column in self.columns.items()}
        degrees = np.diff(taken[schema.AGES].offsets)
        return np.repeat(hit, degrees), {name: column.values for name, column in taken.items()}


@dataclass(frozen=True)
class Features:
    """Encoded features of nodes of one table; rows are nodes, ascending."""

    node: Ints
    columns: Mapping[str, Ragged]  # numbers, codes, times, buckets

    def of(self, nodes: Ints) -> Struct:
        """The packed features of these nodes, each of which must be here."""
        found = np.searchsorted(self.node, nodes)
        assert np.array_equal(self.node[found], nodes), "a frontier node without features"
        taken = {name: column.take(found) for name, column in self.columns.items()}
        packed = {name: column.values for name, column in taken.items()}
        return packed | {"bucket_offsets": taken[schema.BUCKETS].offsets}


EMPTY_FEATURES: Struct = {
    schema.NUMBERS: [], schema.CODES: [], schema.TIMES: [], schema.BUCKETS: [],
    "bucket_offsets": [],
}  # fmt: skip


def attach(
    encodings: Encodings,
    hop: int,
    inner: Mapping[str, Ints],
    relations: Sequence[Relation],
    entity_features: Features | None,
) -> tuple[list[Struct], list[Struct]]:
    """One hop: the events around the `inner` nodes, and the distinct nodes those point to.

    Without `entity_features` (hop 1), keys from an entity's event to further entities are not
    followed: their features would have to be held for all entities.

    Returns:
        (nodes, edges) as the structs of `schema.SUBGRAPHS` with this hop's number.
    """
    around = {r.name: r.around(inner[encodings.target_of(r.name)]) for r in relations}
    followed = {name: _followed(encodings, name, entity_features is not None) for name in around}
    outer = _distinct_sources(followed, around)
    edges = [
        {
            "hop": hop,
            schema.RELATION: name,
            "destinations": destinations,
            "sources": _positions(followed[name], columns, outer),
            schema.AGES: columns[schema.AGES],
            schema.NUMBERS: columns[schema.NUMBERS],
            schema.CODES: columns[schema.CODES],
        }
        for name, (destinations, columns) in around.items()
    ]
    nodes = [
        {"hop": hop, "table": table, schema.NODE: found}
        | (
            entity_features.of(found)
            if table == encodings.entity_table and entity_features is not None
            else EMPTY_FEATURES
        )
        for table, found in outer.items()
    ]
    return nodes, edges


def _followed(encodings: Encodings, relation: str, to_entities: bool) -> list[str | None]:
    """Per foreign key of the relation's table, the table that messages come from, if any."""
    table, _, own = relation.partition(".")
    return [
        None if column == own or (to == encodings.entity_table and not to_entities) else to
        for column, to in encodings.events[table].foreign_keys
    ]


def _distinct_sources(
    followed: Mapping[str, Sequence[str | None]], around: Mapping[str, tuple[Ints, Struct]]
) -> dict[str, Ints]:
    found: dict[str, list[Ints]] = {}
    for relation, (_, columns) in around.items():
        tables = followed[relation]
        flat = columns[schema.NODES].reshape(-1, len(tables))
        for position, table in enumerate(tables):
            if table is not None:
                found.setdefault(table, []).append(flat[:, position])
    return {table: np.unique(np.concatenate(parts)) for table, parts in sorted(found.items())}


def _positions(tables: Sequence[str | None], columns: Struct, outer: Mapping[str, Ints]) -> Ints:
    """Flat positions in `outer` of what each event's keys point to, -1 for keys not followed."""
    flat = columns[schema.NODES].reshape(-1, len(tables))
    positions = np.full(flat.shape, -1, np.int64)
    for position, table in enumerate(tables):
        if table is not None:
            positions[:, position] = np.searchsorted(outer[table], flat[:, position])
    return positions.ravel()
