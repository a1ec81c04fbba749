"""Vectors computed ahead, layer by layer, in place of those of a batch.

Axes: N nodes, J items, D channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from recspark import schema
from recspark.gnn.batches import Batch
from recspark.gnn.items import ItemVectors


@dataclass(frozen=True, kw_only=True)
class NodeVectors:
    """`node_vectors` of one anchor in memory."""

    nodes: Mapping[str, Tensor]  # table -> int64 (N,), ascending
    contexts: Mapping[str, Tensor]  # table -> float32 (N, D)
    items: ItemVectors

    @classmethod
    def from_arrow(cls, rows: pa.Table, item_table: str) -> Self:
        """Build from the rows of one anchor; columns as in `schema.NODE_VECTORS`."""
        nodes, contexts = {}, {}
        items = None
        for table in sorted(set(rows["table"].to_pylist())):
            of_table = rows.filter(pc.equal(rows["table"], table)).sort_by(schema.NODE)
            nodes[table] = torch.from_numpy(of_table[schema.NODE].to_numpy().copy())
            contexts[table] = _wide(of_table["context"])
            if table == item_table:
                prior_J = of_table["prior"].to_numpy().astype(np.float32)
                items = ItemVectors(
                    nodes_J=nodes[table],
                    tower_JD=_wide(of_table["tower"]),
                    prior_J=torch.from_numpy(prior_J),
                )
        assert items is not None, f"node_vectors has no row of '{item_table}'"
        return cls(nodes=nodes, contexts=contexts, items=items)

    def contexts_of(self, batch: Batch) -> dict[str, Tensor]:
        """By table the contexts (N, D) of the batch's hop-1 list, for `GraphNetwork.entities`.

        A node that the batch reaches must have a row here.
        """
        found = {}
        for hop, table in batch.nodes:
            if hop != 1:
                continue
            asked_N = batch.nodes[hop, table].nodes_N
            if table in self.nodes:
                rows_N = torch.searchsorted(self.nodes[table], asked_N)
                known = torch.equal(self.nodes[table][rows_N], asked_N)
                assert known, f"a node of '{table}' has no context"
                found[table] = self.contexts[table][rows_N]
            elif len(asked_N) == 0:
                found[table] = self.items.tower_JD.new_zeros(0, self.items.tower_JD.shape[1])
        return found


def _wide(lists: pa.ChunkedArray) -> Tensor:
    values = lists.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return torch.from_numpy(values.astype(np.float32).reshape(len(lists), -1))
