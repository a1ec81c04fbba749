"""Boosted trees on the pair features. They err elsewhere than the pair head, so the two are added.

By XGBoost. Half of the boosters are LambdaMART (Burges 2010) that optimises MAP, the others tell
each candidate's log odds to be bought (Friedman 2001): models with different losses err apart. So
do boosters on different seeds, none of which sees more than half of them, and no rank reads more
than its share; all are averaged ("pasting", Breiman 1999).
Axes: C candidates, F pair features.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xgboost
from torch import Tensor, nn

from recspark.encodings import Encodings
from recspark.gnn import candidates, epochs
from recspark.gnn.cache import GroupStore
from recspark.gnn.catalogue import Catalogue
from recspark.gnn.negatives import thin
from recspark.gnn.ranks import Ranks

# Boosters of the second kind bring what more of the first do not. Three of each kind rank as four
# do; two, or fewer rounds, a little worse (benchmarks/RESULTS.md, "What made a date faster").
NUM_BOOSTERS = 6  # of all ranks together, and at least one of each
NUM_SELECTED = 2  # that validation judges: one of each kind tells what trees are worth
LARGEST_PART = 0.5  # of all seeds that one booster learns from
MOST_SEEDS = 20_000  # of a rank that a booster learns from: with 100 candidates each a few 100 MB
_ROUNDS = 200
_SHAPE = {
    "tree_method": "hist",
    "grow_policy": "lossguide",
    "max_depth": 0,
    "max_leaves": 31,
    "max_bin": 127,
    "eta": 0.08,
    "subsample": 0.5,
    "colsample_bynode": 0.5,
    "nthread": 1,  # a rank and a Spark task have one core
}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a booster learns."""

    negative_share: float  # of the candidates that nobody bought
    shape: Mapping[str, Any]  # XGBoost's parameters beside `_SHAPE`


KINDS = (
    Kind(
        negative_share=0.15,
        shape={
            "objective": "rank:map",
            "lambdarank_pair_method": "topk",
            "lambdarank_num_pair_per_sample": 30,
        },
    ),
    Kind(negative_share=0.3, shape={"objective": "binary:logistic", "min_child_weight": 5}),
)


class PairTrees(nn.Module):
    """The score of candidates by all boosters, averaged and scaled; 0 while there are none.

    The boosters travel in the module's state as one uint8 tensor.
    """

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._raw: list[bytes] = []
        self._boosters: list[xgboost.Booster] = []
        # Of the trees' score in the pair head's unit.
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))

    @torch.no_grad()
    def forward(self, features_CF: Tensor) -> Tensor:
        """Return the trees' part of the score, (C, 1) float32."""
        return (self.scale * self.unscaled(features_CF)).float()

    @torch.no_grad()
    def unscaled(self, features_CF: Tensor) -> Tensor:
        """The mean of the boosters' scores, (C, 1) float32."""
        if not self._boosters or not len(features_CF):
            return features_CF.new_zeros(len(features_CF), 1)
        values = features_CF.cpu().numpy()
        found = [one.inplace_predict(values, predict_type="margin") for one in self._boosters]
        mean_C: Tensor = torch.from_numpy(np.mean(found, axis=0)).to(features_CF.device)
        return mean_C.unsqueeze(1)

    def get_extra_state(self) -> Tensor:
        """The boosters as `_joined` bytes."""
        return torch.from_numpy(np.frombuffer(bytearray(_joined(self._raw)), np.uint8))

    def set_extra_state(self, state: Tensor) -> None:
        """Replace the boosters by those of a state."""
        self.load(_split(state.cpu().numpy().tobytes()))

    def load(self, raw: list[bytes]) -> None:
        """Replace the boosters by these."""
        self._raw = raw
        self._boosters = [xgboost.Booster(_SHAPE, model_file=bytearray(one)) for one in raw]


def _joined(boosters: Sequence[bytes]) -> bytes:
    """Per booster its length as int64, then its bytes."""
    return b"".join(np.int64(len(raw)).tobytes() + raw for raw in boosters)


def _split(joined: bytes) -> list[bytes]:
    parts, start = [], 0
    while start < len(joined):
        length = int(np.frombuffer(joined, np.int64, 1, offset=start)[0])
        parts.append(joined[start + 8 : start + 8 + length])
        start += 8 + length
    return parts


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Candidates of a rank's own seeds."""

    features_CF: Tensor  # float32
    is_label_C: Tensor  # bool
    seeds_C: Tensor  # int64, ascending


def gather(
    groups: GroupStore | None,
    catalogue: Catalogue,
    encodings: Encodings,
    *,
    part: float = 1.0,
    negative_share: float = 1.0,
    seed: int,
) -> Pairs:
    """Candidates on sale of this part of the seeds, a share of those that nobody bought.

    Groups are drawn, at most until they have `MOST_SEEDS` seeds.
    """
    generator = torch.Generator().manual_seed(seed)
    features, labels, seeds, num_seeds = [torch.zeros(0, len(encodings.pair_names))], [], [], 0
    planned = [] if groups is None else epochs.plan(groups.anchors_G, 1, seed, 0)
    for numbers in planned[: math.ceil(part * len(planned))]:
        if num_seeds >= MOST_SEEDS:
            break
        assert groups is not None
        batch = thin(candidates.read(groups.groups(numbers), encodings), negative_share, generator)
        on_sale_I = catalogue.available(batch.anchor_days).cpu()
        on_sale_C = on_sale_I[batch.candidate_items_C]
        features.append(batch.features_CF[on_sale_C])
        labels.append(batch.is_label_C[on_sale_C])
        seeds.append(batch.candidate_seeds_C[on_sale_C] + num_seeds)
        num_seeds += batch.num_seeds
    return Pairs(
        features_CF=torch.cat(features),
        is_label_C=torch.cat([torch.zeros(0, dtype=torch.bool), *labels]),
        seeds_C=torch.cat([torch.zeros(0, dtype=torch.int64), *seeds]),
    )


def boost(pairs: Pairs, kind: Kind, seed: int) -> bytes:
    """One booster as XGBoost's UBJSON; nothing where nothing was bought, or everything."""
    if not pairs.is_label_C.any() or pairs.is_label_C.all():
        return b""
    rows = xgboost.QuantileDMatrix(
        pairs.features_CF.numpy(),
        label=pairs.is_label_C.numpy().astype(np.int8),
        qid=pairs.seeds_C.numpy(),
        max_bin=_SHAPE["max_bin"],
    )
    parameters = {**_SHAPE, **kind.shape, "seed": seed}
    return bytes(xgboost.train(parameters, rows, _ROUNDS).save_raw("ubj"))


def of_all_ranks(own: Sequence[bytes], ranks: Ranks) -> list[bytes]:
    """Every rank's boosters, the same list on every rank."""
    gathered = ranks.gather(_joined([raw for raw in own if raw]))
    return [raw for joined in gathered for raw in _split(joined)]


def scale(head_C: Tensor, trees_C: Tensor, seeds_C: Tensor, ranks: Ranks) -> float:
    """What makes the trees' scores deviate within a seed as the head's do, over all ranks."""
    head, trees = ranks.total([_within(head_C, seeds_C), _within(trees_C, seeds_C)])
    return (head / trees) ** 0.5 if trees > 0 else 0.0


def _within(scores_C: Tensor, seeds_C: Tensor) -> float:
    """Sum of squared deviations from the mean of the seed."""
    scores_C = scores_C.double()
    size = int(seeds_C.max()) + 1 if len(seeds_C) else 0
    counts_B = torch.bincount(seeds_C, minlength=size).clamp(min=1)
    mean_B = torch.bincount(seeds_C, scores_C, minlength=size) / counts_B
    return float(((scores_C - mean_B[seeds_C]) ** 2).sum())
