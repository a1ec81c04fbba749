"""The optimizer, and its steps of one epoch, as many on every rank."""

import torch
from torch import nn

from recspark import settings
from recspark.encodings import Encodings
from recspark.gnn import batches, epochs
from recspark.gnn.cache import GroupStore
from recspark.gnn.catalogue import Catalogue
from recspark.gnn.catalogue_loss import draw_negatives
from recspark.gnn.job import TrainJob
from recspark.gnn.loss import loss
from recspark.gnn.model import Network
from recspark.gnn.negatives import thin
from recspark.gnn.progress import ProgressLine
from recspark.gnn.ranks import Ranks

_EPOCH_STREAM, _RANK_STREAM = 7_919, 104_729  # keep the random numbers of epochs and ranks apart
_MAX_GRADIENT_NORM = 1.0


class Steps:
    """What the steps of one rank take, and how many were done."""

    def __init__(
        self,
        job: TrainJob,
        ranks: Ranks,
        catalogue: Catalogue,
        encodings: Encodings,
        groups: GroupStore,
        parallel: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        line: ProgressLine,
    ) -> None:
        self.job, self.ranks, self.catalogue, self.encodings = job, ranks, catalogue, encodings
        self.groups, self.parallel = groups, parallel
        self.optimizer, self.schedule, self.line = optimizer, schedule, line
        self.num_done = 0

    def run(self, epoch: int, num_steps: int, *, weight: int) -> float:
        """Return the epoch's mean loss over all ranks' seeds; weight 0 learns nothing from own."""
        job, ranks = self.job, self.ranks
        rank_seed = job.seed + _EPOCH_STREAM * epoch + _RANK_STREAM * ranks.rank
        seed_torch(rank_seed)  # of dropout; set per epoch, so that a resumed run draws the same
        generator = torch.Generator().manual_seed(rank_seed)
        self.parallel.train()
        planned = epochs.plan(self.groups.anchors_G, job.training.groups_per_batch, job.seed, epoch)
        total, seen, shown_loss = 0.0, 0, 0.0
        for step in range(num_steps):
            is_own = step < len(planned)
            numbers = planned[step] if is_own else [0]
            own_total, own_seeds, num_read = self._step(numbers, weight if is_own else 0, generator)
            total, seen = total + own_total, seen + own_seeds
            self.num_done += 1
            shown_loss = own_total / own_seeds if own_seeds else shown_loss
            if ranks.rank == 0:
                self.line.step(epoch, step + 1, shown_loss, num_read * ranks.world_size)
        total, num_seeds = ranks.total([total, float(seen)])
        return total / max(num_seeds, 1.0)

    def _step(
        self, numbers: list[int], weight: int, generator: torch.Generator
    ) -> tuple[float, int, int]:
        ranks = self.ranks
        whole = batches.read(self.groups.groups(numbers), self.encodings)
        batch = thin(whole, self.job.training.negative_share, generator).to(ranks.device)
        available_I = self.catalogue.available(batch.anchor_days)
        negatives_S = draw_negatives(available_I, generator)
        outputs = self.parallel(batch, self.catalogue, negatives_S)
        own = loss(outputs, batch, available_I, negatives_S, self.job.training.candidate_loss)
        num_seeds = ranks.total([float(weight * own.num_seeds)])[0]
        # Ranks' gradients are averaged: this makes that the mean over the seeds of all ranks.
        scaled = own.total * (weight * ranks.world_size / max(num_seeds, 1.0))
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(scaled)
        for parameters in self.optimizer.param_groups:  # heads and graph learn apart
            nn.utils.clip_grad_norm_(parameters["params"], _MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.schedule.step()
        return float(own.total.detach()) * weight, own.num_seeds * weight, batch.num_seeds


def descent(
    network: Network, training: settings.Training, num_steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW, and a one-cycle schedule that comes down within so many steps.

    The graph's part, whose softmax sees few labels often, learns at a rate of its own: at that of
    the heads it ranks worse (benchmarks/RESULTS.md).
    """
    heads = list(network.pair_head.parameters())
    of_heads = set(map(id, heads))
    graph = [parameter for parameter in network.parameters() if id(parameter) not in of_heads]
    optimizer = torch.optim.AdamW(
        [{"params": heads}, {"params": graph}], weight_decay=training.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [training.learning_rate, training.graph_learning_rate], total_steps=num_steps
    )
    return optimizer, schedule


def seed_torch(value: int) -> None:
    """Start torch's own stream anew; nothing else in the package does."""
    torch.manual_seed(value)  # noqa: TID251 - the training module's weights and dropout
