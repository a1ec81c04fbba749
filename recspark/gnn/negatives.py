"""Candidates that a training step leaves out: most of those that nobody bought teach the same."""

from dataclasses import replace
from typing import TypeVar

import torch

from recspark.gnn.candidates import Candidates

AnyBatch = TypeVar("AnyBatch", bound=Candidates)


def thin(batch: AnyBatch, share: float, generator: torch.Generator) -> AnyBatch:
    """The batch with all labels, and each other candidate kept with probability `share`."""
    if share >= 1:
        return batch
    # Drawn on the CPU, so that every device draws the same.
    drawn_C = torch.rand(len(batch.is_label_C), generator=generator) < share
    kept_C = batch.is_label_C | drawn_C.to(batch.is_label_C.device)
    return replace(
        batch,
        candidate_seeds_C=batch.candidate_seeds_C[kept_C],
        candidate_items_C=batch.candidate_items_C[kept_C],
        features_CF=batch.features_CF[kept_C],
        is_label_C=batch.is_label_C[kept_C],
    )
