"""MAP@K over the whole catalogue, the mean over all ranks' entities that bought something.

It chooses how much the graph's score counts beside the pair head's, and tells what is chance.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recspark.evaluate import bootstrap, metrics
from recspark.gnn import batches, epochs
from recspark.gnn.batches import Batch
from recspark.gnn.cache import GroupStore
from recspark.gnn.catalogue import Catalogue
from recspark.gnn.items import ItemVectors
from recspark.gnn.model import Network, Outputs
from recspark.gnn.ranking import top_k
from recspark.gnn.ranks import Ranks

TOWER_WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
REPLICATES = 200  # enough for a standard error (Efron and Tibshirani 1993, section 6.4)
_DRAW_SEED = 7  # the same users weigh alike for every model


@dataclass(frozen=True, kw_only=True)
class Quality:
    """MAP@k of a model, and of bootstrap replicates of the users that are the same for all."""

    mean: float  # 0 when nobody bought
    replicates: tuple[float, ...]  # a replicate that draws nobody has 0

    def is_no_worse(self, other: "Quality") -> bool:
        """Whether this lies below the other by no more than one standard error of the difference.

        The rule of one standard error (Breiman et al. 1984, section 3.4.3), here of paired
        differences: few users leave much to chance, many little.
        """
        differences = np.subtract(self.replicates, other.replicates)
        return self.mean >= other.mean - float(differences.std())


@torch.no_grad()
def choose_tower_weight(
    network: Network,
    groups: GroupStore | None,
    catalogue: Catalogue,
    ranks: Ranks,
    *,
    groups_per_batch: int,
    k: int,
) -> dict[float, Quality]:
    """The quality with each weight, over the ranks' groups together.

    The best is set in the network. The same on every rank; all 0 when nobody bought. Of equals
    the smaller weight wins. Only items on sale are ranked; a label that is not on sale counts as
    missed. `groups` is None on a rank that has none.
    """
    network.eval()
    sums = np.zeros((len(TOWER_WEIGHTS) + 1, 1 + REPLICATES))
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
        found = np.stack(
            [
                _average_precisions(replace(outputs, tower_weight=weight), batch, available_I, k)
                for weight in TOWER_WEIGHTS
            ]
        )
        users = batch.nodes[0, network.encodings.entity_table].nodes_N.cpu().numpy()
        sums += _replicate_sums(users, found)
    by_weight = _qualities(np.array(ranks.total(sums.ravel().tolist())).reshape(sums.shape))
    network.tower_weight.fill_(max(by_weight, key=lambda weight: by_weight[weight].mean))
    return by_weight


def _replicate_sums(users_B: NDArray[np.int64], found_WB: NDArray[np.float64]) -> NDArray[Any]:
    """Sums over the users that bought, of each row and of ones, (W + 1, 1 + REPLICATES)."""
    bought_B = np.isfinite(found_WB[0])
    columns = [*bootstrap.steps(found_WB[:, bought_B]), np.ones(int(bought_B.sum()))]
    return bootstrap.replicate_sums(users_B[bought_B], np.stack(columns), _DRAW_SEED, REPLICATES)


def _qualities(sums: NDArray[np.float64]) -> dict[float, Quality]:
    *of_weights, num_users = sums
    found = {}
    for weight, total in zip(TOWER_WEIGHTS, of_weights, strict=True):
        mean, *replicates = (total / np.maximum(num_users, 1) / bootstrap.RESOLUTION).tolist()
        found[weight] = Quality(mean=mean, replicates=tuple(replicates))
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
