"""What heads learn from: the order of each seed's candidates, by LambdaRank or by a softmax.

Axes: B seeds, C candidates, W candidates of one seed padded to the widest, P labels of one seed
padded.
"""

import math

import torch
from torch import Tensor

from recspark.gnn.candidates import padded

TRUNCATION = 30  # pairs below this rank carry no weight
_MAX_PAIRS_AT_ONCE = 2_000_000


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
    scores_BW, is_label_BW, valid_BW = padded(seeds_C, num_seeds, scores_C, is_label_C, valid_C)
    with torch.no_grad():
        most_labels = max(int(is_label_BW.sum(1).max()), 1) if num_seeds else 1
        step = max(_MAX_PAIRS_AT_ONCE // (scores_BW.shape[1] * most_labels), 1)
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
    scores_C: Tensor, is_label_C: Tensor, valid_C: Tensor, seeds_C: Tensor, num_seeds: int
) -> Tensor:
    """Mean over a seed's labels of -log softmax over its candidates, (B,); 0 without labels.

    ListNet's top-one loss (Cao et al. 2007) with equal relevance; of candidates that the step left
    out nothing is counted.
    """
    scores_BW, is_label_BW, valid_BW = padded(seeds_C, num_seeds, scores_C, is_label_C, valid_C)
    # A seed of which nothing is valid has no label either; keep its logarithm finite.
    lowest = torch.finfo(scores_C.dtype).min
    log_sum_B1 = scores_BW.masked_fill(~valid_BW, lowest).logsumexp(1, keepdim=True)
    losses_BW = (log_sum_B1 - scores_BW).masked_fill(~is_label_BW, 0.0)
    return losses_BW.sum(1) / is_label_BW.sum(1).clamp(min=1)
