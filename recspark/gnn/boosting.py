"""Gives a trained network its trees, and brings their scores to the heads' unit."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from recspark.gnn import trees
from recspark.gnn.cache import GroupStore
from recspark.gnn.catalogue import Catalogue
from recspark.gnn.model import Network
from recspark.gnn.ranks import Ranks
from recspark.gnn.trees import Pairs

_STREAM = 15_485_863  # keeps the candidates that trees see apart from those of epochs


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What validation chose, the same on every rank."""

    state: dict[str, Any]  # of the selected network
    validation_map: float
    tower_weight: float  # of the graph's score
    map_without_graph: float
    scale: float | None  # of the trees' score; None: there are none
    map_without_trees: float


def add(
    network: Network,
    groups: GroupStore | None,
    catalogue: Catalogue,
    ranks: Ranks,
    *,
    negative_share: float,
    seed: int,
) -> None:
    """Boost trees on the ranks' groups together and give them to the network."""
    pairs = _pairs(network, groups, catalogue, negative_share, seed)
    network.pair_head.trees.load(trees.boost(pairs, ranks, seed))


@torch.no_grad()
def rescale(
    network: Network, groups: GroupStore | None, catalogue: Catalogue, ranks: Ranks, *, seed: int
) -> float:
    """Let trees and heads count alike on these groups, which neither has learnt from."""
    network.eval()
    head, pairs = network.pair_head, _pairs(network, groups, catalogue, 1.0, seed)
    features_CF = pairs.features_CF.to(ranks.device)
    head.trees.scale.fill_(1.0)
    found = trees.scale(
        head.of_heads(features_CF).mean(1).cpu(),
        head.trees(features_CF).squeeze(1).cpu(),
        pairs.seeds_C,
        ranks,
    )
    head.trees.scale.fill_(found)
    return found


def _pairs(
    network: Network, groups: GroupStore | None, catalogue: Catalogue, share: float, seed: int
) -> Pairs:
    found = trees.gather(groups, catalogue, network.encodings, share=share, seed=seed + _STREAM)
    known_CF = network.pair_head.known(found.features_CF.to(network.pair_head.ignored_F.device))
    return replace(found, features_CF=known_CF.cpu())
