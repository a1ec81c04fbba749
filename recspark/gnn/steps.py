"""The optimizer of one part of the network, and its steps of an epoch, as many on every rank."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from recspark import schema
from recspark.encodings import Encodings
from recspark.gnn import epochs
from recspark.gnn.cache import GroupStore
from recspark.gnn.catalogue import Catalogue
from recspark.gnn.job import TrainJob
from recspark.gnn.loss import Loss
from recspark.gnn.progress import ProgressLine
from recspark.gnn.ranks import Ranks

_EPOCH_STREAM, _RANK_STREAM = 7_919, 104_729  # keep the random numbers of epochs and ranks apart
_MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all learners of a rank have in common."""

    job: TrainJob
    ranks: Ranks
    catalogue: Catalogue
    encodings: Encodings


@dataclass(frozen=True, kw_only=True)
class Share:
    """The groups that a rank learns from; without any, one to take part in others' steps with."""

    groups: GroupStore
    is_own: bool

    def plan(self, groups_per_step: int, seed: int, epoch: int) -> list[list[int]]:
        """The groups of each of the rank's own steps."""
        if not self.is_own:
            return []
        return epochs.plan(self.groups.anchors_G, groups_per_step, seed, epoch)


class Learner(ABC):
    """A part of the network that shares nothing with others, so that it learns by itself.

    AdamW, and a one-cycle schedule whose rate comes down within so many epochs.
    """

    name: str

    def __init__(
        self,
        part: nn.Module,
        setting: Setting,
        share: Share,
        *,
        groups_per_step: int,
        peak_rate: float,
        falls_within: int,
    ) -> None:
        self.setting, self.share, self.groups_per_step = setting, share, groups_per_step
        ranks = setting.ranks
        self.steps_per_epoch = ranks.largest(len(share.plan(groups_per_step, 0, 0)))
        weight_decay = setting.job.training.weight_decay
        self.optimizer = torch.optim.AdamW(part.parameters(), weight_decay=weight_decay, fused=True)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, peak_rate, total_steps=falls_within * self.steps_per_epoch
        )
        # Buffers are constants from the encodings, equal on all ranks.
        self.parallel = (
            DistributedDataParallel(part, forward_sync_buffers=False)
            if ranks.world_size > 1
            else part
        )

    def run(self, epoch: int, line: ProgressLine) -> float:
        """Learn for one epoch and return its mean loss over all ranks' seeds with a label."""
        ranks, seed, groups = self.setting.ranks, self.setting.job.seed, self.share.groups
        rank_seed = seed + _EPOCH_STREAM * epoch + _RANK_STREAM * ranks.rank
        seed_torch(rank_seed)  # of dropout; set per epoch, so that a resumed run draws the same
        generator = torch.Generator().manual_seed(rank_seed)
        self.parallel.train()
        planned = self.share.plan(self.groups_per_step, seed, epoch)
        total, seen = 0.0, 0
        for step in range(self.steps_per_epoch):
            is_own = step < len(planned)
            rows = groups.groups(planned[step] if is_own else [0])
            found = self.loss(rows, generator)
            self._descend(found, weight=int(is_own))
            if is_own:
                total, seen = total + float(found.total.detach()), seen + found.num_seeds
            if ranks.rank == 0:
                num_read = sum(int(row.column(schema.NUM_SEEDS)[0].as_py()) for row in rows)
                line.step(self.name, total / max(seen, 1), num_read * ranks.world_size)
        total, num_seeds = ranks.total([total, float(seen)])
        return total / max(num_seeds, 1.0)

    @abstractmethod
    def loss(self, rows: Sequence[pa.RecordBatch], generator: torch.Generator) -> Loss:
        """The loss of these groups of one anchor."""

    def _descend(self, found: Loss, *, weight: int) -> None:
        """One step of the optimizer; with weight 0 nothing is learnt from the rank's own loss."""
        ranks = self.setting.ranks
        num_seeds = ranks.total([float(weight * found.num_seeds)])[0]
        # Ranks' gradients are averaged: this makes that the mean over the seeds of all ranks.
        scaled = found.total * (weight * ranks.world_size / max(num_seeds, 1.0))
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(scaled)
        nn.utils.clip_grad_norm_(self.parallel.parameters(), _MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.schedule.step()


def seed_torch(value: int) -> None:
    """Start torch's own stream anew; nothing else in the package does."""
    torch.manual_seed(value)  # noqa: TID251 - the training module's weights and dropout
