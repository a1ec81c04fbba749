"""The items of an entity's own events, straight into its vector: their towers' weighted sum.

A perceptron of messages tells what kind of items an entity has, but hardly which. Without one in
between, the product of the entity's vector and an item's tower is a sum of similarities to what
the entity has, as in LightGCN (He et al. 2020, arXiv 2002.02126). Axes: B seeds, E edges, D
channels.
"""

import torch
from torch import Tensor, nn

from recspark.encodings import Encodings, TableEncoding
from recspark.gnn.batches import Batch, Edges, source_tables
from recspark.gnn.convolution import module_key, rows_or_zero
from recspark.gnn.encoders import TIME_CHANNELS, Categories, Numbers, encode_ages
from recspark.gnn.items import ItemVectors

_SMALLEST = 1e-2  # of a sum of weights that is divided by


class OwnItems(nn.Module):
    """The sum over all relations of hop 1 whose events point to an item."""

    def __init__(self, encodings: Encodings, width: int) -> None:
        super().__init__()
        self.item_places = {
            relation: source_tables(relation, encodings).index(encodings.item_table)
            for relation in encodings.hop_1()
            if encodings.item_table in source_tables(relation, encodings)
        }
        self.item_table = encodings.item_table
        self.sums = nn.ModuleDict(
            {
                module_key(relation): _WeightedSum(
                    encodings.events[relation.partition(".")[0]], width
                )
                for relation in self.item_places
            }
        )

    def forward(self, batch: Batch, items: ItemVectors) -> Tensor:
        """Return (B, D); `items` holds every item of the batch's hop 1."""
        total_BD = items.tower_JD.new_zeros(batch.num_seeds, items.tower_JD.shape[1])
        if not self.item_places:
            return total_BD
        nodes_N = batch.nodes[1, self.item_table].nodes_N
        own_ND = items.tower_JD.index_select(0, items.positions(nodes_N))
        for relation, place in self.item_places.items():
            edges = batch.edges[1, relation]
            tower_ED = rows_or_zero(own_ND, edges.sources_EK[:, place])
            total_BD = total_BD + self.sums[module_key(relation)](tower_ED, edges, batch.num_seeds)
        return total_BD


class _WeightedSum(nn.Module):
    """Over a seed's events: weights by age and columns, divided by the root of their sum."""

    def __init__(self, event: TableEncoding, width: int) -> None:
        super().__init__()
        self.numbers = Numbers(len(event.numbers), 1)
        self.categories = Categories(event.category_sizes, 1)
        self.age = nn.Linear(TIME_CHANNELS, 1)
        self.out = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.out.weight)  # an item is most similar to itself

    def forward(self, tower_ED: Tensor, edges: Edges, num_seeds: int) -> Tensor:
        """Return (B, D)."""
        logits_E1 = self.age(encode_ages(edges.ages_E)) + self.numbers(edges.numbers_EF)
        weights_E1 = nn.functional.softplus(logits_E1 + self.categories(edges.codes_EC))
        seeds_E = edges.destinations_E
        sum_B1 = weights_E1.new_zeros(num_seeds, 1).index_add(0, seeds_E, weights_E1)
        sum_BD = tower_ED.new_zeros(num_seeds, tower_ED.shape[1])
        sum_BD = sum_BD.index_add(0, seeds_E, weights_E1 * tower_ED)
        scaled_BD: Tensor = self.out(sum_BD / torch.sqrt(sum_B1 + _SMALLEST))
        return scaled_BD
