"""The optimizer, and its steps of one epoch, as many on every rank.

An epoch goes in rounds of two steps. In the first the heads learn alone to rank the candidates of
every second seed of a batch; in the second those of the others, while the graph learns from all of
them: all items, and what many seeds reach, are encoded once for twice as many.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from recspark import settings
from recspark.encodings import Encodings
from recspark.gnn import batches, epochs
from recspark.gnn.cache import GroupStore
from recspark.gnn.candidates import every_other
from recspark.gnn.catalogue import Catalogue
from recspark.gnn.job import TrainJob
from recspark.gnn.loss import Loss, draw_negatives, rank_loss, softmax_loss
from recspark.gnn.model import Network, Outputs
from recspark.gnn.negatives import thin
from recspark.gnn.progress import ProgressLine
from recspark.gnn.ranks import Ranks

STEPS_PER_ROUND = 2
_EPOCH_STREAM, _RANK_STREAM = 7_919, 104_729  # keep the random numbers of epochs and ranks apart
_MAX_GRADIENT_NORM = 1.0


def plan_rounds(
    groups: GroupStore, training: settings.Training, seed: int, epoch: int
) -> list[list[int]]:
    """The groups of each round of an epoch."""
    groups_per_round = STEPS_PER_ROUND * training.groups_per_batch
    return epochs.plan(groups.anchors_G, groups_per_round, seed, epoch)


@dataclass(frozen=True)
class Parallel:
    """The parts of a network, each exchanging its gradients with those of other ranks."""

    heads: nn.Module  # from encoded features
    graph: nn.Module

    @classmethod
    def of(cls, network: Network, ranks: Ranks) -> Self:
        """A world of one has nobody to exchange with."""
        if ranks.world_size == 1:
            return cls(network.pair_head.perceptrons, network.graph)

        def exchanging(part: nn.Module) -> nn.Module:
            # Buffers are constants from the encodings, equal on all ranks.
            return DistributedDataParallel(part, forward_sync_buffers=False)

        return cls(exchanging(network.pair_head.perceptrons), exchanging(network.graph))


class Steps:
    """What the steps of one rank take, and how many were done."""

    def __init__(
        self,
        job: TrainJob,
        ranks: Ranks,
        catalogue: Catalogue,
        encodings: Encodings,
        groups: GroupStore,
        network: Network,
        parallel: Parallel,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        line: ProgressLine,
    ) -> None:
        self.job, self.ranks, self.catalogue, self.encodings = job, ranks, catalogue, encodings
        self.groups, self.network, self.parallel = groups, network, parallel
        self.optimizer, self.schedule, self.line = optimizer, schedule, line
        self.num_done = 0

    def run(self, epoch: int, num_rounds: int, *, weight: int) -> float:
        """Return the epoch's mean loss over all ranks' seeds; weight 0 learns nothing from own."""
        job, ranks = self.job, self.ranks
        rank_seed = job.seed + _EPOCH_STREAM * epoch + _RANK_STREAM * ranks.rank
        seed_torch(rank_seed)  # of dropout; set per epoch, so that a resumed run draws the same
        generator = torch.Generator().manual_seed(rank_seed)
        self.network.train()
        planned = plan_rounds(self.groups, job.training, job.seed, epoch)
        total, seen, shown_loss = 0.0, 0, 0.0
        for number in range(num_rounds):
            is_own = number < len(planned)
            numbers = planned[number] if is_own else [0]
            own = self._round(numbers, weight if is_own else 0, generator)
            total, seen = total + own.loss, seen + own.num_labelled
            self.num_done += STEPS_PER_ROUND
            shown_loss = own.loss / own.num_labelled if own.num_labelled else shown_loss
            if ranks.rank == 0:
                done = (number + 1) * STEPS_PER_ROUND
                self.line.step(epoch, done, shown_loss, own.num_seeds * ranks.world_size)
        total, num_seeds = ranks.total([total, float(seen)])
        return total / max(num_seeds, 1.0)

    def _round(self, numbers: list[int], weight: int, generator: torch.Generator) -> "_Own":
        whole = batches.read(self.groups.groups(numbers), self.encodings)
        batch = thin(whole, self.job.training.negative_share, generator).to(self.ranks.device)
        available_I = self.catalogue.available(batch.anchor_days)
        negatives_S = draw_negatives(available_I, generator)
        encoded = self.network.pair_head.encoded(batch.features_CF)
        first, is_first_C = every_other(batch, 0)
        second, is_second_C = every_other(batch, 1)

        first_CH: Tensor = self.parallel.heads(encoded[is_first_C])
        first_loss = rank_loss(first_CH, first, available_I)
        self._descend(first_loss, weight=weight)

        second_CH: Tensor = self.parallel.heads(encoded[is_second_C])
        second_loss = rank_loss(second_CH, second, available_I)
        entity_BD, items = self.parallel.graph(batch, self.catalogue, negatives_S)
        pairs_CH = first_CH.new_empty(len(encoded), first_CH.shape[1])
        pairs_CH = pairs_CH.index_put((is_first_C,), first_CH.detach())
        pairs_CH = pairs_CH.index_put((is_second_C,), second_CH)
        outputs = Outputs(entity_BD=entity_BD, items=items, pairs_CH=pairs_CH, tower_weight=0.0)
        listwise = softmax_loss(outputs, batch, available_I, negatives_S)
        self._descend(second_loss, listwise, weight=weight)
        self.schedule.step()
        total = first_loss.total + second_loss.total + listwise.total
        return _Own(float(total.detach()) * weight, listwise.num_seeds * weight, batch.num_seeds)

    def _descend(self, *losses: Loss, weight: int) -> None:
        """One step down the sum of means of losses over all ranks' seeds, if there are any."""
        ranks = self.ranks
        counts = ranks.total([float(weight * loss.num_seeds) for loss in losses])
        # Ranks' gradients are averaged: this makes that the mean over the seeds of all ranks.
        shares = [weight * ranks.world_size / max(count, 1.0) for count in counts]
        parts = [loss.total * share for loss, share in zip(losses, shares, strict=True)]
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(parts)
        nn.utils.clip_grad_norm_(self.network.parameters(), _MAX_GRADIENT_NORM)
        if any(counts):
            self.optimizer.step()


@dataclass(frozen=True)
class _Own:
    """What a round of this rank came to."""

    loss: float  # summed over the seeds
    num_labelled: int  # seeds that bought something on sale
    num_seeds: int


def descent(
    network: Network, training: settings.Training, num_rounds: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW, and a one-cycle schedule that comes down within so many rounds.

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
        optimizer, [training.learning_rate, training.graph_learning_rate], total_steps=num_rounds
    )
    return optimizer, schedule


def seed_torch(value: int) -> None:
    """Start torch's own stream anew; nothing else in the package does."""
    torch.manual_seed(value)  # noqa: TID251 - the training module's weights and dropout
