"""The pair head: what an entity and one of its candidates have to do with each other.

Axes: C candidates, F pair features, H heads.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from recspark import settings
from recspark.encodings import Encodings
from recspark.gnn.encoders import Quantiles
from recspark.gnn.trees import PairTrees

_HIDDEN = (128, 64)


class PairHead(nn.Module):
    """The candidates' scores, by several heads that are averaged; zero before the first step.

    Trees, once there are any, are added in evaluation mode; heads learn without them. Features
    that the settings or validation leave out count as missing.
    """

    ignored_F: Tensor

    def __init__(self, encodings: Encodings, shape: settings.Model) -> None:
        super().__init__()
        self.quantiles = Quantiles(encodings.pair_knots)
        self.trees = PairTrees()
        self.register_buffer("ignored_F", columns(encodings, shape.ignored_features))
        first, second = _HIDDEN
        self.perceptrons = nn.ModuleList(
            nn.Sequential(
                nn.Linear(self.quantiles.width, first), nn.SiLU(), nn.Dropout(shape.dropout),
                nn.Linear(first, second), nn.SiLU(), nn.Dropout(shape.dropout), _zero(second),
            )
            for _ in range(shape.heads)
        )  # fmt: skip

    def forward(self, features_CF: Tensor) -> Tensor:
        """Return scores_CH of any pairs, whose features are NaN where unknown."""
        scores_CH = self.of_heads(features_CF)
        return scores_CH if self.training else scores_CH + self.trees(self.known(features_CF))

    def of_heads(self, features_CF: Tensor) -> Tensor:
        """Return scores_CH without the trees."""
        encoded = self.quantiles(self.known(features_CF))
        return torch.cat([head(encoded) for head in self.perceptrons], dim=1)

    def without_each(self, features_CF: Tensor, parts: Iterable[Tensor]) -> Iterator[Tensor]:
        """`of_heads` as if the features of each part, boolean (F,), were missing.

        Few inputs change, so the first layer's product with all of them is computed once.
        """
        heads: list[Any] = list(self.perceptrons)
        encoded = self.quantiles(self.known(features_CF))
        firsts = [head[0](encoded) for head in heads]
        for columns_F in parts:
            change, inputs = self.quantiles.change_where_missing(encoded, columns_F)
            scores = [
                head[1:](first + change @ head[0].weight[:, inputs].T)
                for head, first in zip(heads, firsts, strict=True)
            ]
            yield torch.cat(scores, dim=1)

    def known(self, features_CF: Tensor) -> Tensor:
        """The features, those that are left out as missing."""
        return features_CF.masked_fill(self.ignored_F, float("nan"))


def columns(encodings: Encodings, names: Collection[str]) -> Tensor:
    """Boolean (F,): the pair features with these names."""
    return torch.tensor([name in names for name in encodings.pair_names], dtype=torch.bool)


def _zero(width: int) -> nn.Linear:
    """A last layer that says 0 before the first step; a bias would move all candidates alike."""
    last = nn.Linear(width, 1, bias=False)
    nn.init.zeros_(last.weight)
    return last
