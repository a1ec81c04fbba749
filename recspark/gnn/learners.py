"""The network's two learners: heads, from candidates alone, and the graph, from subgraphs."""

from collections.abc import Sequence

import pyarrow as pa
import torch

from recspark.gnn import batches, candidates, loss
from recspark.gnn.catalogue_loss import draw_negatives
from recspark.gnn.loss import Loss
from recspark.gnn.model import Network
from recspark.gnn.negatives import thin
from recspark.gnn.steps import Learner, Setting, Share

# A step of the graph encodes all items and what many seeds reach, so it takes as many seeds as two
# steps of the heads (benchmarks/RESULTS.md).
_STEPS_OF_HEADS = 2


class HeadLearner(Learner):
    """Learns the order of each seed's candidates; of those that nobody bought some are left out."""

    name = "heads"

    def __init__(self, network: Network, setting: Setting, share: Share, falls_within: int) -> None:
        training = setting.job.training
        super().__init__(
            network.pair_head, setting, share, groups_per_step=training.groups_per_batch,
            peak_rate=training.learning_rate, falls_within=falls_within,
        )  # fmt: skip

    def loss(self, rows: Sequence[pa.RecordBatch], generator: torch.Generator) -> Loss:
        """See `Learner`."""
        training, catalogue = self.setting.job.training, self.setting.catalogue
        whole = candidates.read(rows, self.setting.encodings)
        batch = thin(whole, training.negative_share, generator).to(self.setting.ranks.device)
        pairs_CH = self.parallel(batch.features_CF)
        available_I = catalogue.available(batch.anchor_days)
        return loss.of_heads(pairs_CH, batch, available_I, training.candidate_loss)


class GraphLearner(Learner):
    """Learns what of the whole catalogue a seed buys, or of some of it where items are many.

    A softmax sees few labels often, so it has a rate of its own: at that of the heads the graph
    ranks worse (benchmarks/RESULTS.md).
    """

    name = "graph"

    def __init__(self, network: Network, setting: Setting, share: Share, falls_within: int) -> None:
        training = setting.job.training
        super().__init__(
            network.graph, setting, share,
            groups_per_step=_STEPS_OF_HEADS * training.groups_per_batch,
            peak_rate=training.graph_learning_rate, falls_within=falls_within,
        )  # fmt: skip

    def loss(self, rows: Sequence[pa.RecordBatch], generator: torch.Generator) -> Loss:
        """See `Learner`."""
        catalogue = self.setting.catalogue
        batch = batches.read(rows, self.setting.encodings).to(self.setting.ranks.device)
        available_I = catalogue.available(batch.anchor_days)
        negatives_S = draw_negatives(available_I, generator)
        scores = self.parallel(batch, catalogue, negatives_S)
        return loss.of_graph(scores, batch, available_I, negatives_S)
