"""Which groups are learnt together, and in which order."""

import numpy as np
import torch

_ORDER_STREAM = 1_000_003  # keeps the order of batches apart from the order within anchors


def plan(anchors_G: np.ndarray, groups_per_batch: int, seed: int, epoch: int) -> list[list[int]]:
    """The batches of one epoch: groups of one anchor each, every group exactly once.

    Groups are shuffled within their anchor, then batches among each other; the same arguments
    give the same plan. `anchors_G` is each group's anchor.
    """
    within = torch.Generator().manual_seed(seed + epoch)
    batches = []
    for anchor in np.unique(anchors_G):
        groups = np.flatnonzero(anchors_G == anchor)
        shuffled = groups[torch.randperm(len(groups), generator=within).numpy()].tolist()
        batches += [
            shuffled[i : i + groups_per_batch] for i in range(0, len(shuffled), groups_per_batch)
        ]
    among = torch.Generator().manual_seed(seed + epoch + _ORDER_STREAM)
    return [batches[i] for i in torch.randperm(len(batches), generator=among).tolist()]
