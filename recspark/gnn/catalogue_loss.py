"""What the graph learns from: a softmax over all items on sale, or where they are many, some.

Axes: B seeds, I all items, S shared negatives, L labels.
"""

import math

import torch
from torch import Tensor

from recspark.gnn.batches import Batch
from recspark.gnn.graph import GraphScores
from recspark.gnn.job import MAX_ITEMS_OF_FULL_SOFTMAX

NUM_SHARED_NEGATIVES = 1_024


def draw_negatives(available_I: Tensor, generator: torch.Generator) -> Tensor | None:
    """Shared negatives for one step, or None while the catalogue is small enough for all of it."""
    if len(available_I) <= MAX_ITEMS_OF_FULL_SOFTMAX:
        return None
    on_sale = available_I.nonzero().squeeze(1)
    # Drawn on the CPU, so that every device draws the same.
    drawn = torch.randint(len(on_sale), (NUM_SHARED_NEGATIVES,), generator=generator)
    return on_sale[drawn.to(on_sale.device)]


def softmax(
    scores: GraphScores, batch: Batch, available_I: Tensor, negatives_S: Tensor | None
) -> Tensor:
    """`full_softmax`, or with shared negatives `sampled_softmax`, (B,)."""
    if negatives_S is None:
        return full_softmax(scores, batch, available_I)
    return sampled_softmax(scores, batch, available_I, negatives_S)


def full_softmax(scores: GraphScores, batch: Batch, available_I: Tensor) -> Tensor:
    """Mean over a seed's labels of -log softmax over all items on sale, (B,); 0 without labels."""
    logits_BI = scores.all_logits().masked_fill(~available_I, -math.inf)
    labels_L = logits_BI[batch.label_seeds_L, batch.label_items_L]
    return _multi_positive(labels_L, logits_BI.logsumexp(1), batch, available_I)


def sampled_softmax(
    scores: GraphScores, batch: Batch, available_I: Tensor, negatives_S: Tensor
) -> Tensor:
    """As `full_softmax`, with the sum over all items estimated without bias.

    A seed's labels are always in it. The rest of the catalogue is stood for by the shared
    negatives: each of S draws from A items counts A / S times, as it is drawn S / A times on
    average; draws that are among the seed's labels are left out.
    """
    items, num_items, num_seeds = scores.items, len(available_I), batch.num_seeds
    labels_L = scores.logits(batch.label_seeds_L, items.positions(batch.label_items_L))
    labels_L = labels_L.masked_fill(~available_I[batch.label_items_L], -math.inf)

    drawn_BS = scores.all_logits(rows=items.positions(negatives_S))
    drawn_BS = drawn_BS + math.log(int(available_I.sum()) / len(negatives_S))
    seeds_B1 = torch.arange(num_seeds, device=negatives_S.device).unsqueeze(1)
    own_L = batch.label_seeds_L * num_items + batch.label_items_L
    is_own_BS = torch.isin(seeds_B1 * num_items + negatives_S, own_L)
    drawn_BS = drawn_BS.masked_fill(is_own_BS | ~available_I[negatives_S], -math.inf)

    highest_B = drawn_BS.detach().amax(1)
    highest_B = highest_B.scatter_reduce(0, batch.label_seeds_L, labels_L.detach(), "amax")
    highest_B = highest_B.nan_to_num(neginf=0.0)
    sum_B = (drawn_BS - highest_B.unsqueeze(1)).exp().sum(1)
    shares_L = (labels_L - highest_B[batch.label_seeds_L]).exp()
    sum_B = sum_B.index_add(0, batch.label_seeds_L, shares_L)
    # A seed for which nothing is on sale has no labels either; keep its logarithm finite.
    log_sum_B = sum_B.clamp(min=torch.finfo(sum_B.dtype).tiny).log() + highest_B
    return _multi_positive(labels_L, log_sum_B, batch, available_I)


def _multi_positive(
    labels_L: Tensor, log_sum_B: Tensor, batch: Batch, available_I: Tensor
) -> Tensor:
    on_sale_L = available_I[batch.label_items_L]
    losses_L = (log_sum_B[batch.label_seeds_L] - labels_L)[on_sale_L]
    seeds_L = batch.label_seeds_L[on_sale_L]
    num_labels_B = torch.bincount(seeds_L, minlength=batch.num_seeds)
    sum_B = losses_L.new_zeros(batch.num_seeds).index_add(0, seeds_L, losses_L)
    return sum_B / num_labels_B.clamp(min=1)
