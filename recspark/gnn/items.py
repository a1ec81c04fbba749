"""The item tower: what an item is at an anchor, and how likely it is to be bought by anyone.

Axes: I all items, J the items asked for, T trend columns, D channels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recspark.encodings import Encodings
from recspark.gnn.catalogue import Catalogue
from recspark.gnn.encoders import Quantiles

_SHUT_GATE = -2.0  # an id's own vector starts at an eighth: it must prove itself against features


@dataclass(frozen=True, kw_only=True)
class ItemVectors:
    """Tower vector and popularity prior of some items at one anchor."""

    nodes_J: Tensor  # int64, ascending, distinct
    tower_JD: Tensor
    prior_J: Tensor

    def positions(self, nodes: Tensor) -> Tensor:
        """Where each of these items lies in `nodes_J`; every one must be there."""
        return torch.searchsorted(self.nodes_J, nodes)


class ItemTower(nn.Module):
    """MLP of features and trend, plus an id embedding behind a gate that the trend opens.

    An item that training did not see (code 0) has the zero id vector and lives from its features.
    """

    def __init__(self, encodings: Encodings, width: int, id_width: int) -> None:
        super().__init__()
        self.trend = Quantiles(encodings.trend_knots)
        trend_width = self.trend.width
        self.perceptron = nn.Sequential(
            nn.Linear(width + trend_width, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.ids = nn.Embedding(len(encodings.item_keys) + 1, id_width, padding_idx=0)
        self.id_projection = nn.Linear(id_width, width, bias=False)
        self.gate = nn.Linear(trend_width, width)
        nn.init.constant_(self.gate.bias, _SHUT_GATE)
        # A bias would be the same for every item: no loss would hold it in place.
        self.prior = nn.Sequential(
            nn.Linear(trend_width, width // 2), nn.SiLU(), nn.Linear(width // 2, 1, bias=False)
        )

    def forward(
        self, encoded_JD: Tensor, catalogue: Catalogue, nodes_J: Tensor, anchor_days: float
    ) -> ItemVectors:
        """`encoded_JD` is what the items' own columns say; `nodes_J` ascending and distinct."""
        trend_JT = self._encoded_trend(catalogue, nodes_J, anchor_days)
        codes_J = catalogue.tables[catalogue.item_table].id_codes_N[nodes_J]
        by_id_JD = torch.sigmoid(self.gate(trend_JT)) * self.id_projection(self.ids(codes_J))
        by_features_JD = self.perceptron(torch.cat([encoded_JD, trend_JT], dim=1))
        return ItemVectors(
            nodes_J=nodes_J,
            tower_JD=by_features_JD + by_id_JD,
            prior_J=self.prior(trend_JT).squeeze(1),
        )

    def _encoded_trend(self, catalogue: Catalogue, nodes_J: Tensor, anchor_days: float) -> Tensor:
        """The trend through its distribution functions, which learn nothing.

        Steps that look at all items ask for the same few anchors again and again: those are kept.
        """
        if not self.training or len(nodes_J) < catalogue.num_items:
            encoded_JT: Tensor = self.trend(catalogue.trend(anchor_days)[nodes_J])
            return encoded_JT
        if anchor_days not in catalogue.encoded_trends:
            catalogue.encoded_trends[anchor_days] = self.trend(catalogue.trend(anchor_days))
        return catalogue.encoded_trends[anchor_days]
