"""What validation decides of a trained network: groups of pair features, trees, the graph's weight.

Axes: C candidates, F pair features, H heads.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from recspark.gnn.batches import Batch
from recspark.gnn.checkpoint import copied
from recspark.gnn.job import GroupChoice
from recspark.gnn.model import Network
from recspark.gnn.pairs import columns
from recspark.gnn.validation import Judge, Quality, Said

TOWER_WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # of the graph's score; 0: without it
USUAL_TOWER_WEIGHT = 0.05  # benchmarks/RESULTS.md, "Weights that validation does not choose"
# What trees may count beside the heads' 1, when both deviate alike; usually the one in the middle.
TREE_SHARES = (0.5, 1.0, 2.0)
NO_TREES = (0.0,)
# Of a state: what a network that is trained anew takes over from the chosen one.
TAKEN_OVER = ("tower_weight", "pair_head.ignored_F")


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What validation chose, the same on every rank."""

    state: dict[str, Any]  # of the selected network
    quality: Quality
    tower_weight: float  # of the graph's score
    map_without_graph: float
    trees_share: float  # how much trees count beside the heads; 0: there are none
    map_with_trees: float | None  # also where they were refused; None: none were made


def choose_groups(network: Network, judge: Judge, whole: Quality) -> GroupChoice:
    """Leave out groups of features without which validation is clearly better, one by one.

    A group is left out by telling the heads that its features are missing, as most are for some
    pairs. The network has no trees yet; its weight of the graph's score stays. `whole` is the
    network's quality with all groups that it reads.
    """
    first = found = _without_each(network, judge)
    left_out: dict[str, float] = {}
    before = whole
    while better := {n: q for n, q in found.items() if q.is_clearly_better(before)}:
        worst = max(better, key=lambda name: better[name].mean)
        network.pair_head.ignored_F |= _columns(network, worst)
        before = better[worst]
        left_out[worst] = before.mean
        found = _without_each(network, judge)
    return GroupChoice(
        map_with_all=whole.mean,
        map_without={name: quality.mean for name, quality in first.items()},
        left_out=left_out,
    )


def _without_each(network: Network, judge: Judge) -> dict[str, Quality]:
    """The quality without each group that the network still reads."""
    head, weight = network.pair_head, float(network.tower_weight)
    by_group = {name: _columns(network, name) for name in network.encodings.pair_groups}
    read = {name: own_F for name, own_F in by_group.items() if not head.ignored_F[own_F].all()}

    def said(batch: Batch) -> Iterable[Said]:
        for pairs_CH in head.without_each(batch.features_CF, read.values()):
            yield pairs_CH, weight

    return judge.qualities(network, tuple(read), said)


def _columns(network: Network, group: str) -> torch.Tensor:
    """Boolean (F,): the features of this group."""
    encodings = network.encodings
    return columns(encodings, encodings.pair_groups[group]).to(network.pair_head.ignored_F.device)


def choose_weights(network: Network, judge: Judge, scale: float | None = None) -> Chosen:
    """The network with the weights of its graph's score and, with a `scale`, of its trees.

    `scale` makes trees deviate as heads do. The usual weights stay unless validation is clearly
    better with others: the best of so many is seldom the best for later users, too.
    """
    head = network.pair_head
    shares = NO_TREES if scale is None else TREE_SHARES
    unit = scale or 0.0

    def said(batch: Batch) -> Iterable[Said]:
        heads_CH = head.of_heads(batch.features_CF)
        trees_C1 = head.trees.unscaled(head.known(batch.features_CF))  # 0 where there are none
        for share in shares:
            pairs_CH = heads_CH + share * unit * trees_C1
            for weight in TOWER_WEIGHTS:
                yield pairs_CH, weight

    keys = [(share, weight) for share in shares for weight in TOWER_WEIGHTS]
    found = judge.qualities(network, keys, said)
    usual = (shares[len(shares) // 2], USUAL_TOWER_WEIGHT)
    best = max(found, key=lambda key: found[key].mean)
    share, weight = best if found[best].is_clearly_better(found[usual]) else usual
    network.tower_weight.fill_(weight)
    if scale is not None:
        head.trees.scale.fill_(share * scale)
    quality = found[share, weight]
    return Chosen(
        state=copied(network),
        quality=quality,
        tower_weight=weight,
        map_without_graph=found[share, 0.0].mean,
        trees_share=share,
        map_with_trees=None if scale is None else quality.mean,
    )
