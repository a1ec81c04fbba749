"""LambdaRank over the candidates, softmax over the catalogue; both see only items on sale.

Axes: B seeds, C candidates, W candidates of one seed padded to the widest, P labels of one seed
padded, I all items, J rows of the item vectors, S shared negatives, L labels.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recspark.gnn.batches import Batch
from recspark.gnn.candidates import places_within
from recspark.gnn.job import MAX_ITEMS_OF_FULL_SOFTMAX
from recspark.gnn.model import Outputs

TRUNCATION = 30  # pairs below this rank carry no weight
NUM_SHARED_NEGATIVES = 1_024
# LambdaRank decides the order of candidates and leads; the softmax teaches the tower the rest of
# the catalogue. Its gradient per seed is of the same size, so it gets the smaller weight.
SOFTMAX_WEIGHT = 0.3
_MAX_PAIRS_AT_ONCE = 2_000_000


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A sum over seeds, and over how many, so that ranks can weight it by the step's total."""

    total: Tensor  # scalar
    num_seeds: int  # seeds with at least one label that is on sale


def loss(outputs: Outputs, batch: Batch, available_I: Tensor, negatives_S: Tensor | None) -> Loss:
    """The training loss of a batch, summed over its seeds.

    `negatives_S` are item nodes drawn uniformly from those on sale, with replacement; None means
    that `outputs.items` holds the whole catalogue and the softmax is exact.
    """
    valid_C = available_I[batch.candidate_items_C]
    is_label_C, seeds_C = batch.is_label_C & valid_C, batch.candidate_seeds_C
    # Every head learns alone, as if its seeds were others' than the next head's: together they
    # would agree sooner, and average less out.
    num_heads = outputs.pairs_CH.shape[1]
    starts_H1 = batch.num_seeds * torch.arange(num_heads, device=seeds_C.device).unsqueeze(1)
    ranked_B = lambda_rank(
        outputs.pairs_CH.T.flatten(),
        is_label_C.repeat(num_heads),
        valid_C.repeat(num_heads),
        (seeds_C + starts_H1).flatten(),
        batch.num_seeds * num_heads,
    )
    # Once with the candidates by the pair head, and once by the graph alone, which adds to
    # candidates' scores and ranks all other items.
    listwise_B = softmax(outputs, batch, available_I, negatives_S)
    listwise_B = listwise_B + softmax(*_without_pairs(outputs, batch), available_I, negatives_S)
    labels_B = torch.bincount(batch.label_seeds_L[available_I[batch.label_items_L]])
    return Loss(
        total=ranked_B.sum() / num_heads + SOFTMAX_WEIGHT * listwise_B.sum(),
        num_seeds=int((labels_B > 0).sum()),
    )


def draw_negatives(available_I: Tensor, generator: torch.Generator) -> Tensor | None:
    """Shared negatives for one step, or None while the catalogue is small enough for all of it."""
    if len(available_I) <= MAX_ITEMS_OF_FULL_SOFTMAX:
        return None
    on_sale = available_I.nonzero().squeeze(1)
    # Drawn on the CPU, so that every device draws the same.
    drawn = torch.randint(len(on_sale), (NUM_SHARED_NEGATIVES,), generator=generator)
    return on_sale[drawn.to(on_sale.device)]


def lambda_rank(
    scores_C: Tensor, is_label_C: Tensor, valid_C: Tensor, seeds_C: Tensor, num_seeds: int
) -> Tensor:
    """LambdaRank's loss of each seed, (B,); 0 for a seed without a label or a non-label.

    The pair of a label p and another n costs |change| * log(1 + exp(s_n - s_p)) when one of them
    stands in the first `TRUNCATION` of the ranking by the present scores (ties by position). The
    change is what average precision gains or loses when the two swap places (Burges 2010, for MAP
    Donmez, Svore and Burges 2009). As in LightGBM each seed is multiplied by log2(1 + w) / w, w
    being the sum of its gradients' sizes. Weights are constants to the gradient.
    """
    row_C = places_within(seeds_C)
    width = int(row_C.max()) + 1 if len(row_C) else 1
    blank = scores_C.new_zeros(num_seeds, width)
    scores_BW = blank.index_put((seeds_C, row_C), scores_C)
    is_label_BW = blank.bool().index_put((seeds_C, row_C), is_label_C)
    valid_BW = blank.bool().index_put((seeds_C, row_C), valid_C)
    with torch.no_grad():
        most_labels = max(int(is_label_BW.sum(1).max()), 1) if num_seeds else 1
        step = max(_MAX_PAIRS_AT_ONCE // (width * most_labels), 1)
        blocks = [
            _lambdas(scores_BW[low : low + step], is_label_BW[low : low + step],
                     valid_BW[low : low + step], most_labels)
            for low in range(0, max(num_seeds, 1), step)
        ]  # fmt: skip
        value_B, slope_BW = (torch.cat(parts) for parts in zip(*blocks, strict=True))
    # The pairs of a block are forgotten once their slopes are summed: value and gradient are
    # LambdaRank's, memory is one block's.
    linear_B = (scores_BW * slope_BW).sum(1)
    return value_B + linear_B - linear_B.detach()


def _lambdas(
    scores_BW: Tensor, is_label_BW: Tensor, valid_BW: Tensor, most_labels: int
) -> tuple[Tensor, Tensor]:
    """Value (B,) and slope in every score (B, W) of LambdaRank's loss."""
    width = scores_BW.shape[1]
    sortable_BW = scores_BW.masked_fill(~valid_BW, -math.inf)
    order_BW = sortable_BW.argsort(dim=1, descending=True, stable=True)
    places_W = torch.arange(1, width + 1, device=scores_BW.device)
    ranks_BW = torch.empty_like(order_BW).scatter_(1, order_BW, places_W.expand_as(order_BW))

    label_BP = is_label_BW.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    label_BP = label_BP[:, :most_labels]
    real_BP = is_label_BW.gather(1, label_BP)
    gaps_BPW = scores_BW.gather(1, label_BP).unsqueeze(2) - scores_BW.unsqueeze(1)
    label_ranks_BP = ranks_BW.gather(1, label_BP)
    counted_BPW = real_BP.unsqueeze(2) & (valid_BW & ~is_label_BW).unsqueeze(1)
    counted_BPW &= torch.minimum(label_ranks_BP.unsqueeze(2), ranks_BW.unsqueeze(1)) <= TRUNCATION
    by_rank_BW = is_label_BW.gather(1, order_BW).to(scores_BW.dtype)
    weights_BPW = _swaps(by_rank_BW, ranks_BW, label_BP) * counted_BPW

    lambdas_BPW = weights_BPW * torch.sigmoid(-gaps_BPW)
    total_B = 2 * lambdas_BPW.sum((1, 2))
    norm_B = torch.where(total_B > 0, (1 + total_B).log2() / total_B, 0.0)
    value_B = (weights_BPW * torch.nn.functional.softplus(-gaps_BPW)).sum((1, 2)) * norm_B
    slope_BW = lambdas_BPW.sum(1).scatter_add(1, label_BP, -lambdas_BPW.sum(2))
    return value_B, slope_BW * norm_B.unsqueeze(1)


def _swaps(is_label_by_rank_BW: Tensor, ranks_BW: Tensor, label_BP: Tensor) -> Tensor:
    """How average precision changes when a label and another candidate swap places, (B, P, W).

    Of R labels, c(r) of them in the first r, average precision is 1 / R times the sum of c(r) / r
    over the ranks r of labels. With a(r) the part of the sum of 1 / r over labels up to rank r:

    - a label at rank i that falls to j > i loses c(i) / i + a(j) - a(i) - c(j) / j;
    - one at j that rises to i < j gains (c(i) + 1) / i + a(j) - 1 / j - a(i) - c(j) / j.

    Entries where the other candidate is a label too have no meaning.
    """
    places_W = torch.arange(1, ranks_BW.shape[1] + 1, device=ranks_BW.device)
    counts_BW = is_label_by_rank_BW.cumsum(1)
    sums_BW = (is_label_by_rank_BW / places_W).cumsum(1)
    precision_BW = (counts_BW / places_W).gather(1, ranks_BW - 1)
    sum_BW = sums_BW.gather(1, ranks_BW - 1)
    precision_BP1 = precision_BW.gather(1, label_BP).unsqueeze(2)
    rank_BP1 = ranks_BW.gather(1, label_BP).unsqueeze(2)
    between_BPW = sum_BW.unsqueeze(1) - sum_BW.gather(1, label_BP).unsqueeze(2)
    falls_BPW = precision_BP1 + between_BPW - precision_BW.unsqueeze(1)
    risen_B1W = (precision_BW + 1 / ranks_BW).unsqueeze(1)
    rises_BPW = risen_B1W - between_BPW - 1 / rank_BP1 - precision_BP1
    changes_BPW = torch.where(rank_BP1 < ranks_BW.unsqueeze(1), falls_BPW, rises_BPW)
    return changes_BPW.abs() / counts_BW[:, -1].clamp(min=1)[:, None, None]


def softmax(
    outputs: Outputs, batch: Batch, available_I: Tensor, negatives_S: Tensor | None
) -> Tensor:
    """`full_softmax`, or with shared negatives `sampled_softmax`, (B,)."""
    if negatives_S is None:
        return full_softmax(outputs, batch, available_I)
    return sampled_softmax(outputs, batch, available_I, negatives_S)


def _without_pairs(outputs: Outputs, batch: Batch) -> tuple[Outputs, Batch]:
    """The same without candidates: every item is scored by the graph."""
    none = batch.candidate_seeds_C[:0]
    alone = replace(
        batch,
        candidate_seeds_C=none,
        candidate_items_C=none,
        is_label_C=batch.is_label_C[:0],
        left_out_seeds_T=none,
        left_out_items_T=none,
    )
    return replace(outputs, pairs_CH=outputs.pairs_CH[:0]), alone


def full_softmax(outputs: Outputs, batch: Batch, available_I: Tensor) -> Tensor:
    """Mean over a seed's labels of -log softmax over all items on sale, (B,); 0 without labels.

    Candidates that were left out are stood for by those that were kept, which count more.
    """
    scores_BI = outputs.all_logits().index_put(
        (batch.candidate_seeds_C, batch.candidate_items_C), outputs.pairs_C + _of_negatives(batch)
    )
    scores_BI = scores_BI.masked_fill(~available_I, -math.inf)
    left_out = (batch.left_out_seeds_T, batch.left_out_items_T)
    scores_BI = scores_BI.index_put(left_out, scores_BI.new_tensor(-math.inf))
    labels_L = scores_BI[batch.label_seeds_L, batch.label_items_L]
    return _multi_positive(labels_L, scores_BI.logsumexp(1), batch, available_I)


def sampled_softmax(
    outputs: Outputs, batch: Batch, available_I: Tensor, negatives_S: Tensor
) -> Tensor:
    """As `full_softmax`, with the sum over all items estimated without bias.

    A seed's candidates and labels are always in it. The rest of the catalogue is stood for by
    the shared negatives: each of S draws from A items counts A / S times, as it is drawn S / A
    times on average; draws that are among the seed's own are left out.
    """
    items, num_items, num_seeds = outputs.items, len(available_I), batch.num_seeds
    candidate_keys_C = batch.candidate_seeds_C * num_items + batch.candidate_items_C
    label_keys_L = batch.label_seeds_L * num_items + batch.label_items_L
    candidates_C = outputs.pairs_C + _of_negatives(batch)
    left_out_keys_T = batch.left_out_seeds_T * num_items + batch.left_out_items_T
    alone_L = outputs.logits(batch.label_seeds_L, items.positions(batch.label_items_L))
    order_C = candidate_keys_C.argsort()
    found_L = torch.isin(label_keys_L, candidate_keys_C)
    places_L = torch.searchsorted(candidate_keys_C[order_C], label_keys_L)
    labels_L = alone_L.masked_scatter(found_L, outputs.pairs_C[order_C[places_L[found_L]]])

    rows_S = items.positions(negatives_S)
    seeds_B = torch.arange(num_seeds, device=rows_S.device)
    drawn_BS = outputs.all_logits(rows=rows_S)
    drawn_BS = drawn_BS + math.log(int(available_I.sum()) / len(negatives_S))
    own = torch.cat([candidate_keys_C, left_out_keys_T, label_keys_L])
    is_own_BS = torch.isin(seeds_B.unsqueeze(1) * num_items + negatives_S, own)
    drawn_BS = drawn_BS.masked_fill(is_own_BS | ~available_I[negatives_S], -math.inf)

    extra_L = ~found_L & available_I[batch.label_items_L]
    on_sale_C = available_I[batch.candidate_items_C]
    own_scores = torch.cat(
        [candidates_C.masked_fill(~on_sale_C, -math.inf), alone_L.masked_fill(~extra_L, -math.inf)]
    )
    own_seeds = torch.cat([batch.candidate_seeds_C, batch.label_seeds_L])
    highest_B = torch.full((num_seeds,), -math.inf, device=own_scores.device)
    highest_B = highest_B.scatter_reduce(0, own_seeds, own_scores.detach(), "amax")
    highest_B = torch.maximum(highest_B, drawn_BS.detach().amax(1)).nan_to_num(neginf=0.0)
    sum_B = (drawn_BS - highest_B.unsqueeze(1)).exp().sum(1)
    sum_B = sum_B.index_add(0, own_seeds, (own_scores - highest_B[own_seeds]).exp())
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


def _of_negatives(batch: Batch) -> Tensor:
    """What makes a kept negative candidate count for those left out, (C,)."""
    return (~batch.is_label_C) * math.log(1 / batch.negative_share)
