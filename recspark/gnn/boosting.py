"""Gives a trained network its trees, and finds the scale that brings them to the heads' unit."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from recspark.gnn import trees
from recspark.gnn.cache import GroupStore
from recspark.gnn.catalogue import Catalogue
from recspark.gnn.model import Network
from recspark.gnn.ranks import Ranks
from recspark.gnn.trees import Pairs
from recspark.gnn.validation import Quality

# What trees may count beside the heads' 1, when both deviate alike; of equals the first is chosen.
SHARES = (0.5, 1.0, 2.0)
_STREAM = 15_485_863  # keeps the candidates that trees see apart from those of epochs
_BOOSTER_STREAM = 104_729  # and those of one booster from another's


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What validation chose, the same on every rank."""

    state: dict[str, Any]  # of the selected network
    quality: Quality
    tower_weight: float  # of the graph's score
    map_without_graph: float
    trees_share: float  # how much trees count beside the heads; 0: there are none
    map_with_trees: float | None  # also where they were refused; None: none were made


def add(
    network: Network, groups: GroupStore | None, catalogue: Catalogue, ranks: Ranks, *, seed: int
) -> None:
    """Boost trees on the ranks' groups together and give them to the network."""
    own = []
    for number in range(math.ceil(trees.NUM_BOOSTERS / ranks.world_size)):
        stream = seed + _BOOSTER_STREAM * (number * ranks.world_size + ranks.rank)
        drawn = trees.gather(
            groups, catalogue, network.encodings,
            part=min(1.0, trees.LARGEST_PART * ranks.world_size),
            negative_share=trees.NEGATIVE_SHARE, seed=stream + _STREAM,
        )  # fmt: skip
        own.append(trees.boost(_known(network, drawn), stream))
    network.pair_head.trees.load(trees.of_all_ranks(own, ranks))


@torch.no_grad()
def common_scale(
    network: Network, groups: GroupStore | None, catalogue: Catalogue, ranks: Ranks, *, seed: int
) -> float:
    """The scale at which trees deviate as heads do, on groups that neither has learnt from."""
    network.eval()
    drawn = trees.gather(groups, catalogue, network.encodings, seed=seed + _STREAM)
    head, pairs = network.pair_head, _known(network, drawn)
    features_CF = pairs.features_CF.to(ranks.device)
    head.trees.scale.fill_(1.0)
    return trees.scale(
        head.of_heads(features_CF).mean(1).cpu(),
        head.trees(features_CF).squeeze(1).cpu(),
        pairs.seeds_C,
        ranks,
    )


def _known(network: Network, pairs: Pairs) -> Pairs:
    """The same pairs, features that the settings ignore as missing."""
    head = network.pair_head
    known_CF = head.known(pairs.features_CF.to(head.ignored_F.device))
    return replace(pairs, features_CF=known_CF.cpu())
