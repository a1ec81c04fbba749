"""State that a later attempt resumes from: written whole under another name, then renamed."""

import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import torch

from recspark.gnn.job import Epoch, TrainJob
from recspark.gnn.steps import Learner
from recspark.gnn.validation import Quality

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Progress:
    """How far one phase of training has come."""

    epochs_done: int = 0
    best_epoch: int = 0
    best_model: dict[str, Any] | None = None
    qualities: list[Quality] = field(default_factory=list)  # of each epoch, if it is validated
    history: list[Epoch] = field(default_factory=list)

    @property
    def best(self) -> Quality:
        """Of the chosen epoch, in a phase that is validated."""
        return self.qualities[self.best_epoch - 1]

    def add(self, epoch: Epoch, quality: Quality | None, network: torch.nn.Module) -> None:
        """Note a finished epoch, and choose it unless an earlier one is clearly better.

        Of epochs as good but for chance the later is chosen: its rate has come down further.
        """
        highest = max(self.qualities, key=lambda one: one.mean, default=None)
        if quality is None or highest is None or quality.is_no_worse(highest):
            self.best_epoch, self.best_model = epoch.epoch, copied(network)
        if quality is not None:
            self.qualities.append(quality)
        self.epochs_done = epoch.epoch
        self.history.append(epoch)

    def is_over(self, max_epochs: int, patience: int | None) -> bool:
        """Whether the last epoch is done, or `patience` epochs came after the chosen one."""
        if self.epochs_done >= max_epochs:
            return True
        return patience is not None and self.epochs_done - self.best_epoch >= patience


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """The checkpoint of one phase of one job. Epochs reseed torch, so no random state is kept."""

    path: Path
    identity: str

    @classmethod
    def of(cls, job: TrainJob, phase: str) -> Self:
        """The place for a job's phase."""
        identity = sha256(job.identity().encode()).hexdigest()
        return cls(path=Path(job.checkpoint_dir) / f"{phase}.pt", identity=identity)

    def save(
        self,
        model: torch.nn.Module,
        learners: Sequence[Learner],
        progress: Progress,
    ) -> None:
        """Replace the checkpoint; a crash on the way leaves the one before."""
        state = asdict(replace(progress, best_model=None)) | {"best_model": progress.best_model}
        write_whole(
            {
                "identity": self.identity,
                "layout": _layout(model, learners),
                "model": model.state_dict(),
                "optimizers": {one.name: one.optimizer.state_dict() for one in learners},
                "schedules": {one.name: one.schedule.state_dict() for one in learners},
                "progress": state,
            },
            self.path,
        )

    def load_into(self, model: torch.nn.Module, learners: Sequence[Learner]) -> Progress:
        """Restore the last complete state, or change nothing and return a fresh `Progress`.

        A checkpoint of another job, which other settings or data wrote, is left alone, and so is
        one of another release, whose network or learners have other parts.
        """
        if not self.path.is_file():
            return Progress()
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        found = (state["identity"], state.get("layout"))
        if found != (self.identity, _layout(model, learners)):
            log.warning("%s is of another job or release; training starts anew", self.path)
            return Progress()
        model.load_state_dict(state["model"])
        for one in learners:
            one.optimizer.load_state_dict(state["optimizers"][one.name])
            one.schedule.load_state_dict(state["schedules"][one.name])
        kept = state["progress"]
        kept["history"] = [Epoch(**epoch) for epoch in kept["history"]]
        kept["qualities"] = [Quality(**quality) for quality in kept["qualities"]]
        return Progress(**kept)


def _layout(model: torch.nn.Module, learners: Sequence[Learner]) -> str:
    """The names, and the parameters' shapes, of all that a checkpoint holds."""
    shapes = [(name, *value.shape) for name, value in model.state_dict().items()]
    held = (Progress, Epoch, Quality)
    named = [[one.name for one in fields(kind)] for kind in held]
    return repr((shapes, [one.name for one in learners], named))


def copied(network: torch.nn.Module) -> dict[str, Any]:
    """The network's state on the CPU, which later steps leave alone."""
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}


def write_whole(content: object, path: Path) -> None:
    """Save with torch so that `path` holds either what it held or all of `content`."""
    partial = path.with_name(path.name + ".partial")
    torch.save(content, partial)
    os.replace(partial, path)
