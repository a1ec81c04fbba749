"""MAP@K over the whole catalogue, the mean over all ranks' entities that bought something."""

import numpy as np
import torch

from recspark.evaluate import metrics
from recspark.gnn import batches, epochs
from recspark.gnn.cache import GroupStore
from recspark.gnn.catalogue import Catalogue
from recspark.gnn.items import ItemVectors
from recspark.gnn.model import Network
from recspark.gnn.ranking import top_k
from recspark.gnn.ranks import Ranks


@torch.no_grad()
def mean_average_precision(
    network: Network,
    groups: GroupStore | None,
    catalogue: Catalogue,
    ranks: Ranks,
    *,
    groups_per_batch: int,
    k: int,
) -> float:
    """MAP@k of the ranks' groups together, the same on every rank; 0 when nobody bought.

    Only items on sale are ranked; a label that is not on sale counts as missed. `groups` is None
    on a rank that has none.
    """
    network.eval()
    total, num_users = 0.0, 0
    items: dict[float, ItemVectors] = {}
    planned = [] if groups is None else epochs.plan(groups.anchors_G, groups_per_batch, 0, 0)
    for numbers in planned:
        assert groups is not None
        batch = batches.read(groups.groups(numbers), network.encodings).to(ranks.device)
        if batch.anchor_days not in items:
            items[batch.anchor_days] = network.items(catalogue, batch.anchor_days)
        at_anchor = items[batch.anchor_days]
        contexts = network.contexts(batch, catalogue, at_anchor)
        outputs = network.score(batch, contexts, network.entities(batch, contexts), at_anchor)
        best_BK, _ = top_k(outputs, batch, catalogue.available(batch.anchor_days), k)
        num_ranked = best_BK.shape[1]
        ranked = (
            best_BK.flatten().cpu().numpy(),
            np.arange(batch.num_seeds + 1, dtype=np.int64) * num_ranked,
        )
        num_labels = torch.bincount(batch.label_seeds_L, minlength=batch.num_seeds)
        ends = num_labels.cumsum(0).cpu().numpy()
        truths = (batch.label_items_L.cpu().numpy(), np.concatenate([[0], ends]))
        values = metrics.per_user(ranked, truths, k)[metrics.name(metrics.MAP, k)]
        total += float(np.nansum(values))
        num_users += int(np.isfinite(values).sum())
    total, users = ranks.total([total, float(num_users)])
    return total / users if users else 0.0
