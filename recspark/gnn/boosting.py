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
_PART_COMPARED = 0.1  # of the seeds, on which two networks' trees are compared


def add(
    network: Network,
    groups: GroupStore | None,
    catalogue: Catalogue,
    ranks: Ranks,
    *,
    num_boosters: int,
    seed: int,
) -> None:
    """Boost trees on the ranks' groups together and give them to the network.

    Every rank boosts as many: `num_boosters` of all together, or a few more.
    """
    own = []
    for number in range(math.ceil(num_boosters / ranks.world_size)):
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


@torch.no_grad()
def scale_like(
    chosen: Network,
    network: Network,
    groups: GroupStore | None,
    catalogue: Catalogue,
    ranks: Ranks,
    *,
    seed: int,
) -> float:
    """The scale at which a network's trees deviate as those of the chosen one do with its own.

    More boosters, averaged, deviate less. `groups` are some that both have learnt from.
    """
    drawn = trees.gather(
        groups, catalogue, network.encodings, part=_PART_COMPARED, seed=seed + _STREAM
    )
    features_CF = _known(chosen, drawn).features_CF.to(ranks.device)
    before_C, after_C = (
        one.pair_head.trees.unscaled(features_CF).squeeze(1).cpu() for one in (chosen, network)
    )
    ratio = trees.scale(before_C, after_C, drawn.seeds_C, ranks)
    return float(chosen.pair_head.trees.scale) * ratio


def _known(network: Network, pairs: Pairs) -> Pairs:
    """The same pairs, features that are left out as missing."""
    head = network.pair_head
    known_CF = head.known(pairs.features_CF.to(head.ignored_F.device))
    return replace(pairs, features_CF=known_CF.cpu())
