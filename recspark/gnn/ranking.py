"""The best items of every seed over the whole catalogue, exactly.

Axes: B seeds, b seeds of one block, J items, j items of one block, K ranks.
"""

import math

import torch
from torch import Tensor

from recspark.gnn.batches import Batch
from recspark.gnn.model import Outputs

_SCORES_AT_ONCE = 16_000_000
_ITEMS_AT_ONCE = 65_536
_LOW_BITS = 0xFFFFFFFF


@torch.no_grad()
def top_k(outputs: Outputs, batch: Batch, available_I: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best items on sale of every seed: nodes int64 and total scores float32, both (B, K).

    Best first, equal scores by lower node. K is k, or the number of `outputs.items` on sale
    where that is less. `available_I` is indexed by node and covers the whole catalogue.
    """
    nodes_J = outputs.items.nodes_J
    available_J = available_I[nodes_J]
    num_ranks = min(k, int(available_J.sum()))
    step = max(_SCORES_AT_ONCE // min(max(len(nodes_J), 1), _ITEMS_AT_ONCE), 1)
    keys = [
        _best_keys(outputs, batch, available_J, slice(low, low + step), num_ranks)
        for low in range(0, batch.num_seeds, step)
    ]
    empty = torch.zeros(0, num_ranks, dtype=torch.int64, device=nodes_J.device)
    return _unpack(torch.cat([empty, *keys]))


def _best_keys(
    outputs: Outputs, batch: Batch, available_J: Tensor, seeds: slice, num_ranks: int
) -> Tensor:
    items = outputs.items
    entity_bD = outputs.entity_BD[seeds]
    first, end = seeds.start, seeds.start + len(entity_bD)
    low, high = torch.searchsorted(
        batch.candidate_seeds_C, batch.candidate_seeds_C.new_tensor([first, end])
    ).tolist()
    seeds_C = batch.candidate_seeds_C[low:high] - first
    rows_C = items.positions(batch.candidate_items_C[low:high])
    pairs_C = outputs.pairs_C[low:high]
    best = torch.zeros(len(entity_bD), 0, dtype=torch.int64, device=rows_C.device)
    scale = math.sqrt(entity_bD.shape[1])
    for start in range(0, len(items.nodes_J), _ITEMS_AT_ONCE):
        block = slice(start, start + _ITEMS_AT_ONCE)
        scores_bj = entity_bD @ items.tower_JD[block].T / scale + items.prior_J[block]
        inside_C = (rows_C >= start) & (rows_C < start + scores_bj.shape[1])
        places = (seeds_C[inside_C], rows_C[inside_C] - start)
        graph_bj = outputs.tower_weight * scores_bj
        scores_bj.index_put_(places, pairs_C[inside_C])
        scores_bj += graph_bj
        scores_bj = scores_bj.masked_fill(~available_J[block], -math.inf)
        keys = torch.cat([best, _pack(scores_bj, items.nodes_J[block])], dim=1)
        best = keys.topk(min(num_ranks, keys.shape[1]), dim=1).values
    return best


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
