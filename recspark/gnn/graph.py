"""The graph's part of the network: node encodings, two hops of messages, item tower and prior.

Axes: B seeds, N nodes, I items, J the items asked for, D channels.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recspark import settings
from recspark.encodings import Encodings
from recspark.gnn.batches import Batch
from recspark.gnn.catalogue import Catalogue
from recspark.gnn.convolution import Hop, module_key
from recspark.gnn.encoders import NodeEncoder
from recspark.gnn.items import ItemTower, ItemVectors

_ALL = slice(None)


@dataclass(frozen=True, kw_only=True)
class GraphScores:
    """What the graph says of seeds and items: the score of a pair is tower product + prior."""

    entity_BD: Tensor
    items: ItemVectors

    def logits(self, seeds: Tensor, rows: Tensor) -> Tensor:
        """Scores of pairs: seed s with row r of `items`, same shape as both."""
        tower = self.items.tower_JD[rows]
        product = (self.entity_BD[seeds] * tower).sum(-1) / math.sqrt(tower.shape[-1])
        return product + self.items.prior_J[rows]

    def all_logits(self, seeds: Tensor | slice = _ALL, rows: Tensor | slice = _ALL) -> Tensor:
        """Scores of each of the seeds with each row of `items`, (b, j)."""
        tower_jD = self.items.tower_JD[rows]
        product_bj = self.entity_BD[seeds] @ tower_jD.T / math.sqrt(tower_jD.shape[1])
        return product_bj + self.items.prior_J[rows]


class GraphNetwork(nn.Module):
    """Vectors of entities and items, whose products and priors score every item."""

    def __init__(self, encodings: Encodings, shape: settings.Model) -> None:
        super().__init__()
        self.encodings = encodings
        self.encoders = nn.ModuleDict(
            {
                module_key(name): NodeEncoder(table, shape.width, encodings.text_buckets)
                for name, table in encodings.nodes.items()
                if name in _used_tables(encodings)
            }
        )
        self.parents = nn.ModuleDict(
            {
                module_key(f"{name}.{column}"): nn.Linear(shape.width, shape.width, bias=False)
                for name in _used_tables(encodings, with_parents=False)
                for column, _ in self._held_parents(name)
            }
        )
        self.tower = ItemTower(encodings, shape.width, shape.id_width)
        self.hop_1 = Hop(1, encodings, shape.width)
        self.hop_2 = Hop(2, encodings, shape.width)

    def forward(self, batch: Batch, catalogue: Catalogue, nodes_J: Tensor | None) -> GraphScores:
        """Scores of the seeds for the items `nodes_J`, labels and neighbours; None: all items."""
        items = self.items(catalogue, batch.anchor_days, self._items_of(batch, nodes_J))
        entity_BD = self.entities(batch, self.contexts(batch, catalogue, items))
        return GraphScores(entity_BD=entity_BD, items=items)

    def items(
        self, catalogue: Catalogue, anchor_days: float, nodes_J: Tensor | None = None
    ) -> ItemVectors:
        """Vectors of these items (ascending, distinct; None: all) at the anchor."""
        table = self.encodings.item_table
        if nodes_J is None:
            device = catalogue.tables[table].id_codes_N.device
            nodes_J = torch.arange(catalogue.num_items, device=device)
        encoded_JD = self._encode(catalogue, table, nodes_J, anchor_days)
        vectors: ItemVectors = self.tower(encoded_JD, catalogue, nodes_J, anchor_days)
        return vectors

    def contexts(self, batch: Batch, catalogue: Catalogue, items: ItemVectors) -> dict[str, Tensor]:
        """Vectors (N, D) of the hop-1 list of each reached table: own, and what hop 2 brings."""
        sources = self._own_of_hop(2, batch, catalogue, items)
        own = self._own_of_hop(1, batch, catalogue, items)
        own = {table: own[table] for table in self.encodings.reached_tables()}
        contexts: dict[str, Tensor] = self.hop_2(own, sources, batch.edges)
        return contexts

    def entities(self, batch: Batch, contexts: Mapping[str, Tensor]) -> Tensor:
        """Vectors (B, D) of the seeds, from contexts of any origin, aligned with hop 1."""
        table = self.encodings.entity_table
        sources = dict(contexts)
        if (1, table) in batch.nodes:
            sources[table] = self._entities_alone(batch, hop=1)
        own = {table: self._entities_alone(batch, hop=0)}
        entity_BD: Tensor = self.hop_1(own, sources, batch.edges)[table]
        return entity_BD

    def _held_parents(self, table: str) -> list[tuple[str, str]]:
        """The (column, table) of the parents that ranks hold: not entities."""
        keys = self.encodings.nodes[table].foreign_keys
        return [(column, to) for column, to in keys if to != self.encodings.entity_table]

    def _items_of(self, batch: Batch, nodes_J: Tensor | None) -> Tensor | None:
        if nodes_J is None:
            return None
        table = self.encodings.item_table
        listed = [batch.nodes[hop, table].nodes_N for hop in (1, 2) if (hop, table) in batch.nodes]
        asked = torch.cat([nodes_J, batch.label_items_L, *listed])
        return sorted_unique(asked)

    def _own_of_hop(
        self, hop: int, batch: Batch, catalogue: Catalogue, items: ItemVectors
    ) -> dict[str, Tensor]:
        own = {}
        for (at_hop, table), listed in batch.nodes.items():
            if at_hop != hop:
                continue
            if table == self.encodings.entity_table:
                own[table] = self._entities_alone(batch, hop)
            elif table == self.encodings.item_table:
                own[table] = items.tower_JD.index_select(0, items.positions(listed.nodes_N))
            else:
                own[table] = self._encode(catalogue, table, listed.nodes_N, batch.anchor_days)
        return own

    def _entities_alone(self, batch: Batch, hop: int) -> Tensor:
        table = self.encodings.entity_table
        features = batch.nodes[hop, table].features
        assert features is not None, "entities' features are packed with every list"
        vectors_ND: Tensor = self.encoders[module_key(table)](features, batch.anchor_days)
        return vectors_ND

    def _encode(
        self, catalogue: Catalogue, table: str, nodes_N: Tensor, anchor_days: float
    ) -> Tensor:
        """A node's own columns and its parents' (N, D); parents of parents are left out."""
        held = catalogue.tables[table]
        encoder = self.encoders[module_key(table)]
        vectors_ND: Tensor = encoder(held.features.rows(nodes_N), anchor_days)
        columns = [column for column, _ in self.encodings.nodes[table].foreign_keys]
        for column, parent_table in self._held_parents(table):
            parents_N = held.parents_NP[nodes_N, columns.index(column)]
            distinct_M = sorted_unique(parents_N.clamp(min=0))
            rows_N = torch.searchsorted(distinct_M, parents_N.clamp(min=0))
            parents = catalogue.tables[parent_table].features.rows(distinct_M)
            parent_MD = self.encoders[module_key(parent_table)](parents, anchor_days)
            parent_MD = self.parents[module_key(f"{table}.{column}")](parent_MD)
            known_N1 = (parents_N >= 0).unsqueeze(1)
            vectors_ND = vectors_ND + parent_MD.index_select(0, rows_N) * known_N1
        return vectors_ND


def sorted_unique(nodes_N: Tensor) -> Tensor:
    """The distinct nodes, ascending."""
    distinct_M: Tensor = torch.unique(nodes_N)
    return distinct_M


def _used_tables(encodings: Encodings, *, with_parents: bool = True) -> set[str]:
    """Node tables that some vector is made from.

    A parameter that no loss reaches would stall the gradient exchange of several ranks.
    """
    used = {encodings.entity_table, encodings.item_table}
    for relation in (*encodings.hop_1(), *encodings.hop_2()):
        used |= {to for _, to in encodings.events[relation.partition(".")[0]].foreign_keys}
    if with_parents:
        held = used - {encodings.entity_table}
        used |= {to for name in held for _, to in encodings.nodes[name].foreign_keys}
    return used
