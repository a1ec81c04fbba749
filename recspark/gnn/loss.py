"""The training losses: heads learn the order of candidates, the graph the whole catalogue.

The two share no parameter and no score, so each learns by itself. Both see only items on sale.
Axes: B seeds, C candidates, H heads, I all items, S shared negatives, L labels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from recspark.gnn import candidate_loss, catalogue_loss
from recspark.gnn.batches import Batch
from recspark.gnn.candidates import Candidates
from recspark.gnn.graph import GraphScores
from recspark.settings import CandidateLoss

_OF_CANDIDATES = {"lambda_rank": candidate_loss.lambda_rank, "softmax": candidate_loss.softmax}


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A sum over seeds, and over how many, so that ranks can weight it by the step's total."""

    total: Tensor  # scalar
    num_seeds: int  # seeds with at least one label that is on sale


def of_heads(pairs_CH: Tensor, batch: Candidates, available_I: Tensor, kind: CandidateLoss) -> Loss:
    """The loss of the candidates' scores, the mean over heads."""
    valid_C = available_I[batch.candidate_items_C]
    is_label_C, seeds_C = batch.is_label_C & valid_C, batch.candidate_seeds_C
    # Every head learns alone, as if its seeds were others' than the next head's: together they
    # would agree sooner, and average less out.
    num_heads = pairs_CH.shape[1]
    starts_H1 = batch.num_seeds * torch.arange(num_heads, device=seeds_C.device).unsqueeze(1)
    losses = _OF_CANDIDATES[kind](
        pairs_CH.T.flatten(),
        is_label_C.repeat(num_heads),
        valid_C.repeat(num_heads),
        (seeds_C + starts_H1).flatten(),
        batch.num_seeds * num_heads,
    )
    return Loss(total=losses.sum() / num_heads, num_seeds=_num_buyers(batch, available_I))


def of_graph(
    scores: GraphScores, batch: Batch, available_I: Tensor, negatives_S: Tensor | None
) -> Loss:
    """The loss of the catalogue's scores.

    `negatives_S` are item nodes drawn uniformly from those on sale, with replacement; None means
    that `scores.items` holds the whole catalogue and the softmax is exact.
    """
    losses_B = catalogue_loss.softmax(scores, batch, available_I, negatives_S)
    return Loss(total=losses_B.sum(), num_seeds=_num_buyers(batch, available_I))


def _num_buyers(batch: Candidates, available_I: Tensor) -> int:
    return len(torch.unique(batch.label_seeds_L[available_I[batch.label_items_L]]))
