"""The best items of every seed: its candidates, and where they are too few, others by the graph.

Candidates come first, as in any ranking of two stages (Covington et al. 2016): what the pair head
and trees say of a candidate cannot be compared with what the graph says of another item.
Axes: B seeds, b seeds of one block, J items, j items of one block, C candidates, K ranks.
"""

import math

import torch
from torch import Tensor

from recspark.gnn.batches import Batch
from recspark.gnn.candidates import padded
from recspark.gnn.model import Outputs

_SCORES_AT_ONCE = 16_000_000
_ITEMS_AT_ONCE = 65_536
_LOW_BITS = 0xFFFFFFFF
_NONE = torch.iinfo(torch.int64).min  # the key of no item, below that of any


@torch.no_grad()
def top_k(outputs: Outputs, batch: Batch, available_I: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best items on sale of every seed: nodes int64 and total scores float32, both (B, K).

    Best first, equal scores by lower node. K is k, or the number of `outputs.items` on sale
    where that is less. `available_I` is indexed by node and covers the whole catalogue.

    A candidate's score is that of the pair and `tower_weight` times the graph's. Another item's is
    the graph's, moved down, alike for all of a seed, to the seed's last candidate where it is
    above it.
    """
    items = outputs.items
    available_J = available_I[items.nodes_J]
    num_ranks = min(k, int(available_J.sum()))
    keys_BK = _best_candidates(outputs, batch, available_I, num_ranks)
    nodes_BK, scores_BK = _unpack(keys_BK)
    found_BK = keys_BK != _NONE
    lacking = (~found_BK).any(1).nonzero().squeeze(1)
    step = max(_SCORES_AT_ONCE // min(max(len(items.nodes_J), 1), _ITEMS_AT_ONCE), 1)
    for seeds in torch.split(lacking, step):
        others_bK = _best_others(
            outputs, seeds, available_J, nodes_BK[seeds], found_BK[seeds], num_ranks
        )
        nodes, scores = _behind(nodes_BK[seeds], scores_BK[seeds], found_BK[seeds], *others_bK)
        nodes_BK[seeds], scores_BK[seeds] = nodes, scores
    return nodes_BK, scores_BK


def _best_candidates(outputs: Outputs, batch: Batch, available_I: Tensor, num_ranks: int) -> Tensor:
    """Keys of each seed's best candidates on sale, (B, K), `_NONE` behind the last."""
    seeds_C, nodes_C = batch.candidate_seeds_C, batch.candidate_items_C
    rows_C = outputs.items.positions(nodes_C)
    scores_C = outputs.pairs_C + outputs.tower_weight * outputs.logits(seeds_C, rows_C)
    keys_C = _pack(scores_C, nodes_C).masked_fill(~available_I[nodes_C], _NONE)
    (keys_BW,) = padded(seeds_C, batch.num_seeds, keys_C, fill=_NONE, width=num_ranks)
    return keys_BW.topk(num_ranks, dim=1).values


def _best_others(
    outputs: Outputs,
    seeds: Tensor,
    available_J: Tensor,
    own_bK: Tensor,
    found_bK: Tensor,
    num_ranks: int,
) -> tuple[Tensor, Tensor]:
    """Nodes and the graph's scores of the best items that are not among `own_bK`, (b, K)."""
    items = outputs.items
    rows, _ = found_bK.nonzero(as_tuple=True)
    places = items.positions(own_bK[found_bK])
    best = torch.zeros(len(seeds), 0, dtype=torch.int64, device=seeds.device)
    for start in range(0, len(items.nodes_J), _ITEMS_AT_ONCE):
        block = slice(start, start + _ITEMS_AT_ONCE)
        scores_bj = outputs.all_logits(seeds, block).masked_fill(~available_J[block], -math.inf)
        inside = (places >= start) & (places < start + scores_bj.shape[1])
        scores_bj[rows[inside], places[inside] - start] = -math.inf
        keys = torch.cat([best, _pack(scores_bj, items.nodes_J[block])], dim=1)
        best = keys.topk(min(num_ranks, keys.shape[1]), dim=1).values
    return _unpack(best)


def _behind(
    nodes_bK: Tensor, scores_bK: Tensor, found_bK: Tensor, others_bK: Tensor, graph_bK: Tensor
) -> tuple[Tensor, Tensor]:
    """The found candidates, the others in the places behind them, whose scores move down."""
    last_b1 = scores_bK.masked_fill(~found_bK, math.inf).amin(1, keepdim=True)
    moved_bK = graph_bK - (graph_bK[:, :1] - last_b1).clamp(min=0)
    graph_bK = torch.minimum(moved_bK, last_b1)  # what is rounded up would stand above it
    places_K = torch.arange(nodes_bK.shape[1], device=nodes_bK.device)
    behind_bK = (places_K - found_bK.sum(1, keepdim=True)).clamp(min=0)
    return (
        torch.where(found_bK, nodes_bK, others_bK.gather(1, behind_bK)),
        torch.where(found_bK, scores_bK, graph_bK.gather(1, behind_bK)),
    )


def _pack(scores: Tensor, nodes: Tensor) -> Tensor:
    """One int64 per (score, node) that orders by score, then by lower node.

    `topk` orders equal values as it likes; no two of these are equal.
    """
    bits = (scores + 0.0).contiguous().view(torch.int32).to(torch.int64)  # + 0.0: -0 becomes 0
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (ordered << 32) | (_LOW_BITS - nodes)


def _unpack(keys: Tensor) -> tuple[Tensor, Tensor]:
    ordered = keys >> 32
    bits = torch.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered)
    return _LOW_BITS - (keys & _LOW_BITS), bits.to(torch.int32).view(torch.float32)
