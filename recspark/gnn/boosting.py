"""Gives a trained network its trees, and finds the scale that brings them to the heads' unit."""

import math
from dataclasses import replace

import torch

from recspark.gnn import trees
from recspark.gnn.cache import GroupStore
from recspark.gnn.catalogue import Catalogue
from recspark.gnn.model import Network
from recspark.gnn.ranks import Ranks
from recspark.gnn.trees import Pairs

_STREAM = 15_485_863  # keeps the candidates that trees see apart from those of epochs
_BOOSTER_STREAM = 104_729  # and those of one booster from another's


def add(
    network: Network, groups: GroupStore | None, catalogue: Catalogue, ranks: Ranks, *, seed: int
) -> None:
    """Boost trees on the ranks' groups together and give them to the network."""
    own = []
    for number in range(math.ceil(trees.NUM_BOOSTERS / ranks.world_size)):
        stream = seed + _BOOSTER_STREAM * (number * ranks.world_size + ranks.rank)
        kind = trees.KINDS[(number + ranks.rank) % len(trees.KINDS)]
        drawn = trees.gather(
            groups, catalogue, network.encodings,
            part=min(1.0, trees.LARGEST_PART * ranks.world_size),
            negative_share=kind.negative_share, seed=stream + _STREAM,
        )  # fmt: skip
        own.append(trees.boost(_known(network, drawn), kind, stream))
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
    return trees.scale(
        head.of_heads(features_CF).mean(1).cpu(),
        head.trees.unscaled(features_CF).squeeze(1).cpu(),
        pairs.seeds_C,
        ranks,
    )


def _known(network: Network, pairs: Pairs) -> Pairs:
    """The same pairs, features that are left out as missing."""
    head = network.pair_head
    known_CF = head.known(pairs.features_CF.to(head.ignored_F.device))
    return replace(pairs, features_CF=known_CF.cpu())
