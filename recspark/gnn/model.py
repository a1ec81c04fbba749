"""The network: the graph's part and the pair head, and how their scores are added.

The graph's score of an item is tower product + popularity prior. A candidate is scored by the pair
head (and trees beside it) and `tower_weight` times the graph's score. The weight is small, as
features of pairs say most, unless validation is clearly better with another
(`choosing.choose_weights`). Items that are no candidates are ranked behind those, by the graph's
score alone (`ranking`).
Vectors as inputs of the pair head were tried and made it worse (benchmarks/RESULTS.md).
A bias per entity would cancel in all losses and in every ranking, so there is none.
Axes: B seeds, J items asked for, C candidates, H heads, D channels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recspark import settings
from recspark.encodings import Encodings
from recspark.gnn.batches import Batch
from recspark.gnn.catalogue import Catalogue
from recspark.gnn.graph import GraphNetwork, GraphScores
from recspark.gnn.items import ItemVectors
from recspark.gnn.pairs import PairHead


@dataclass(frozen=True, kw_only=True)
class Outputs(GraphScores):
    """What the ranking is computed from."""

    pairs_CH: Tensor  # score of each candidate, by each of H heads that are averaged
    tower_weight: float  # of the graph's score in a candidate's

    @property
    def pairs_C(self) -> Tensor:
        """Score of each candidate, (C,)."""
        return self.pairs_CH.mean(1)


class Network(nn.Module):
    """Scores items for entities. Its shape follows from the encodings and the model settings."""

    tower_weight: Tensor

    def __init__(self, encodings: Encodings, shape: settings.Model) -> None:
        super().__init__()
        self.encodings = encodings
        self.graph = GraphNetwork(encodings, shape)
        self.pair_head = PairHead(encodings, shape)
        self.register_buffer("tower_weight", torch.zeros((), dtype=torch.float64))

    def forward(self, batch: Batch, catalogue: Catalogue, nodes_J: Tensor | None) -> Outputs:
        """Scores of the items `nodes_J` besides labels and neighbours; None: of all items."""
        scores = self.graph(batch, catalogue, nodes_J)
        return self.score(batch, scores.entity_BD, scores.items)

    def score(self, batch: Batch, entity_BD: Tensor, items: ItemVectors) -> Outputs:
        """Add the pair head; for a ranking every candidate must be among `items`."""
        return Outputs(
            entity_BD=entity_BD,
            items=items,
            pairs_CH=self.pair_head(batch.features_CF),
            tower_weight=float(self.tower_weight),
        )
