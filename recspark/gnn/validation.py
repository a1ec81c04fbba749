"""MAP@K over the whole catalogue, the mean over all ranks' entities that bought something.

It chooses how much the graph's score counts beside the pair head's.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from recspark.evaluate import metrics
from recspark.gnn import batches, epochs
from recspark.gnn.batches import Batch
from recspark.gnn.cache import GroupStore
from recspark.gnn.catalogue import Catalogue
from recspark.gnn.items import ItemVectors
from recspark.gnn.model import Network, Outputs
from recspark.gnn.ranking import top_k
from recspark.gnn.ranks import Ranks

TOWER_WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


@torch.no_grad()
def choose_tower_weight(
    network: Network,
    groups: GroupStore | None,
    catalogue: Catalogue,
    ranks: Ranks,
    *,
    groups_per_batch: int,
    k: int,
) -> dict[float, float]:
    """MAP@k with each weight, over the ranks' groups together; the best is set in the network.

    The same on every rank; all 0 when nobody bought. Of equals the smaller weight wins. Only items
    on sale are ranked; a label that is not on sale counts as missed. `groups` is None on a rank
    that has none.
    """
    network.eval()
    totals, num_users = np.zeros(len(TOWER_WEIGHTS)), 0
    items: dict[float, ItemVectors] = {}
    planned = [] if groups is None else epochs.plan(groups.anchors_G, groups_per_batch, 0, 0)
    for numbers in planned:
        assert groups is not None
        batch = batches.read(groups.groups(numbers), network.encodings).to(ranks.device)
        if batch.anchor_days not in items:
            items[batch.anchor_days] = network.items(catalogue, batch.anchor_days)
        at_anchor = items[batch.anchor_days]
        contexts = network.contexts(batch, catalogue, at_anchor)
        outputs = network.score(batch, network.entities(batch, contexts), at_anchor)
        available_I = catalogue.available(batch.anchor_days)
        for place, weight in enumerate(TOWER_WEIGHTS):
            values = _average_precisions(
                replace(outputs, tower_weight=weight), batch, available_I, k
            )
            totals[place] += float(np.nansum(values))
        num_users += int(np.isfinite(values).sum())
    *summed, users = ranks.total([*totals.tolist(), float(num_users)])
    found = {
        weight: total / users if users else 0.0
        for weight, total in zip(TOWER_WEIGHTS, summed, strict=True)
    }
    network.tower_weight.fill_(max(found, key=lambda weight: found[weight]))
    return found


def _average_precisions(
    outputs: Outputs, batch: Batch, available_I: torch.Tensor, k: int
) -> NDArray[np.float64]:
    """Average precision of every seed (B,), NaN for one without labels."""
    best_BK, _ = top_k(outputs, batch, available_I, k)
    num_ranked = best_BK.shape[1]
    ranked = (
        best_BK.flatten().cpu().numpy(),
        np.arange(batch.num_seeds + 1, dtype=np.int64) * num_ranked,
    )
    num_labels = torch.bincount(batch.label_seeds_L, minlength=batch.num_seeds)
    ends = num_labels.cumsum(0).cpu().numpy()
    truths = (batch.label_items_L.cpu().numpy(), np.concatenate([[0], ends]))
    return metrics.per_user(ranked, truths, k)[metrics.name(metrics.MAP, k)]
