"""The training loss: heads learn the order of candidates, the graph the whole catalogue.

The two share no parameter and no score. Both see only items on sale.
Axes: B seeds, C candidates, H heads, I all items, S shared negatives, L labels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from recspark.gnn import candidate_loss, catalogue_loss
from recspark.gnn.batches import Batch
from recspark.gnn.model import Outputs
from recspark.settings import CandidateLoss

_OF_CANDIDATES = {"lambda_rank": candidate_loss.lambda_rank, "softmax": candidate_loss.softmax}


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A sum over seeds, and over how many, so that ranks can weight it by the step's total."""

    total: Tensor  # scalar
    num_seeds: int  # seeds with at least one label that is on sale


def loss(
    outputs: Outputs,
    batch: Batch,
    available_I: Tensor,
    negatives_S: Tensor | None,
    of_candidates: CandidateLoss,
) -> Loss:
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
    heads_B = _OF_CANDIDATES[of_candidates](
        outputs.pairs_CH.T.flatten(),
        is_label_C.repeat(num_heads),
        valid_C.repeat(num_heads),
        (seeds_C + starts_H1).flatten(),
        batch.num_seeds * num_heads,
    )
    graph_B = catalogue_loss.softmax(outputs, batch, available_I, negatives_S)
    labels_B = torch.bincount(batch.label_seeds_L[available_I[batch.label_items_L]])
    return Loss(
        total=heads_B.sum() / num_heads + graph_B.sum(), num_seeds=int((labels_B > 0).sum())
    )
