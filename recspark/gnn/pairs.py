"""The pair head: what an entity and one of its candidates have to do with each other.

Axes: B seeds, C candidates, J items, N items of hop 1, F pair features, D channels, H hidden.
"""

import torch
from torch import Tensor, nn

from recspark.encodings import Encodings
from recspark.gnn.batches import Batch
from recspark.gnn.convolution import rows_or_zero
from recspark.gnn.encoders import Quantiles

_HIDDEN = (128, 64)


class PairHead(nn.Module):
    """A residual on the candidates' scores; zero before the first step."""

    def __init__(self, encodings: Encodings, width: int, dropout: float) -> None:
        super().__init__()
        self.quantiles = Quantiles(encodings.pair_knots)
        first, second = _HIDDEN
        # One linear layer over all inputs, split by input: what belongs to a seed or an item is
        # multiplied once per seed or item, not once per pair.
        self.features = nn.Linear(2 * len(encodings.pair_names) + 1, first)
        self.entity = nn.Linear(width, first, bias=False)
        self.item = nn.Linear(width, first, bias=False)
        self.product = nn.Linear(width, first, bias=False)
        self.context = nn.Linear(width, first, bias=False)
        last = nn.Linear(second, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.perceptron = nn.Sequential(
            nn.SiLU(), nn.Dropout(dropout), nn.Linear(first, second),
            nn.SiLU(), nn.Dropout(dropout), last,
        )  # fmt: skip

    def forward(
        self,
        batch: Batch,
        entity_BD: Tensor,
        tower_JD: Tensor,
        rows_C: Tensor,
        context_ND: Tensor,
    ) -> Tensor:
        """Return residual_C; `rows_C` is each candidate's row in `tower_JD`."""
        seeds_C = batch.candidate_seeds_C
        product_CD = entity_BD.index_select(0, seeds_C) * tower_JD.index_select(0, rows_C)
        in_hop_1_C = (batch.candidate_contexts_C >= 0).to(product_CD.dtype)
        features_CF = self.quantiles(batch.features_CF)
        hidden_CH = self.features(torch.cat([features_CF, in_hop_1_C.unsqueeze(1)], dim=1))
        hidden_CH = hidden_CH + self.entity(entity_BD).index_select(0, seeds_C)
        hidden_CH = hidden_CH + self.item(tower_JD).index_select(0, rows_C)
        hidden_CH = hidden_CH + self.product(product_CD)
        context_NH = self.context(context_ND)
        hidden_CH = hidden_CH + rows_or_zero(context_NH, batch.candidate_contexts_C)
        residual_C1: Tensor = self.perceptron(hidden_CH)
        return residual_C1.squeeze(1)
