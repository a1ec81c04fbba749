"""MAP@K of the items on sale, the mean over all ranks' entities that bought something.

It compares variants of what one network says, and tells what is chance.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

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

# The candidates' scores by each head (C, H), and what the graph's score counts beside them.
Said: TypeAlias = tuple[torch.Tensor, float]
Key = TypeVar("Key", bound=Hashable)

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
        return self.mean >= other.mean - self._standard_error(other)

    def is_clearly_better(self, other: "Quality") -> bool:
        """Whether this lies above the other by more than three standard errors of the difference.

        Of twenty that are no better, chance lifts one above two of them, but hardly one above
        three (Bonferroni's bound at 5 % is 2.8).
        """
        return self.mean > other.mean + 3 * self._standard_error(other)

    def _standard_error(self, other: "Quality") -> float:
        return float(np.subtract(self.replicates, other.replicates).std())


@dataclass(frozen=True, kw_only=True)
class Judge:
    """One rank's validation groups, and what ranking the catalogue for their seeds takes."""

    groups: GroupStore | None  # None on a rank that has none
    catalogue: Catalogue
    ranks: Ranks
    groups_per_batch: int
    k: int

    @torch.no_grad()
    def qualities(
        self, network: Network, keys: Sequence[Key], variants: Callable[[Batch], Iterable[Said]]
    ) -> dict[Key, Quality]:
        """The quality of each variant, over the ranks' groups together.

        `variants` says of a batch what each of the keys, in their order, scores. The same on
        every rank; all 0 when nobody bought. Only items on sale are ranked; a label that is not
        on sale counts as missed.
        """
        if not keys:
            return {}
        network.eval()
        sums = np.zeros((len(keys) + 1, 1 + REPLICATES))
        items: dict[float, ItemVectors] = {}
        for batch in self._batches(network):
            if batch.anchor_days not in items:
                items[batch.anchor_days] = network.graph.items(self.catalogue, batch.anchor_days)
            at_anchor = items[batch.anchor_days]
            contexts = network.graph.contexts(batch, self.catalogue, at_anchor)
            entity_BD = network.graph.entities(batch, contexts)
            available_I = self.catalogue.available(batch.anchor_days)
            outputs = (
                Outputs(entity_BD=entity_BD, items=at_anchor, pairs_CH=pairs, tower_weight=weight)
                for pairs, weight in variants(batch)
            )
            found = [_average_precisions(one, batch, available_I, self.k) for one in outputs]
            users = batch.nodes[0, network.encodings.entity_table].nodes_N.cpu().numpy()
            sums += _replicate_sums(users, np.stack(found))
        totals = np.array(self.ranks.total(sums.ravel().tolist())).reshape(sums.shape)
        return dict(zip(keys, _qualities(totals), strict=True))

    def _batches(self, network: Network) -> Iterable[Batch]:
        if self.groups is None:
            return
        for numbers in epochs.plan(self.groups.anchors_G, self.groups_per_batch, 0, 0):
            batch = batches.read(self.groups.groups(numbers), network.encodings)
            yield batch.to(self.ranks.device)


def _replicate_sums(users_B: NDArray[np.int64], found_VB: NDArray[np.float64]) -> NDArray[Any]:
    """Sums over the users that bought, of each row and of ones, (V + 1, 1 + REPLICATES)."""
    bought_B = np.isfinite(found_VB[0])
    columns = [*bootstrap.steps(found_VB[:, bought_B]), np.ones(int(bought_B.sum()))]
    return bootstrap.replicate_sums(users_B[bought_B], np.stack(columns), _DRAW_SEED, REPLICATES)


def _qualities(sums: NDArray[np.float64]) -> list[Quality]:
    *of_variants, num_users = sums
    found = []
    for total in of_variants:
        mean, *replicates = (total / np.maximum(num_users, 1) / bootstrap.RESOLUTION).tolist()
        found.append(Quality(mean=mean, replicates=tuple(replicates)))
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
