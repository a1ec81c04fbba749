"""The training loop that every rank runs, and the only place that seeds torch.

First a model is trained on the training anchors and validation chooses its epoch; then, if asked
to, one is trained anew for as many epochs with the validation anchor included, to serve.
"""

import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from recspark import files, schema
from recspark.encodings import Encodings
from recspark.gnn import batches, cache, epochs, validation
from recspark.gnn.cache import GroupStore
from recspark.gnn.catalogue import ITEM_STATE_COLUMNS, NODE_COLUMNS, Catalogue
from recspark.gnn.checkpoint import Checkpoints, Progress, write_whole
from recspark.gnn.job import Epoch, RankReport, TrainJob
from recspark.gnn.loss import draw_negatives, loss
from recspark.gnn.model import Network
from recspark.gnn.negatives import thin
from recspark.gnn.progress import ProgressLine
from recspark.gnn.ranks import Ranks, join
from recspark.ranges import RowRange

log = logging.getLogger(__name__)

_EPOCH_STREAM, _RANK_STREAM = 7_919, 104_729  # keep the random numbers of epochs and ranks apart
_MAX_GRADIENT_NORM = 1.0


def train(job: TrainJob) -> RankReport:
    """Train as one rank of `job`; every rank of the process group calls this with the same job.

    Resumes after the last epoch whose checkpoint is complete. Rank 0 writes the checkpoints, the
    progress line and the states of both models.
    """
    with join(use_gpu=job.training.use_gpu) as ranks, tempfile.TemporaryDirectory() as folder:
        checkpoint_dir = Path(job.checkpoint_dir)
        checkpoint_dir.mkdir(parents=True, exist_ok=True)
        (checkpoint_dir / f"rank-{ranks.rank}.pid").write_text(str(os.getpid()), encoding="utf-8")
        return _Training(job, ranks, Path(folder)).run()


class _Training:
    """One rank's data and its two phases."""

    def __init__(self, job: TrainJob, ranks: Ranks, folder: Path) -> None:
        self.job, self.ranks, self.folder = job, ranks, folder
        self.encodings = Encodings.model_validate_json(job.encodings)
        self.catalogue = _read_catalogue(job, self.encodings).to(ranks.device)
        self.caches: dict[str, Path] = {}
        for split in (schema.TRAIN, schema.VALIDATION):
            own = job.ranges[split][ranks.rank]
            if sum(one.num_rows for one in own):
                self.caches[split] = folder / f"{split}.arrow"
                cache.write(own, self.caches[split])
        self.num_steps = 0
        self.resumed_from_epoch = 0

    def run(self) -> RankReport:
        """Both phases, and the report."""
        training, checkpoint_dir = self.job.training, Path(self.job.checkpoint_dir)
        selected = self._fit(
            "selected",
            (schema.TRAIN,),
            max_epochs=training.max_epochs,
            patience=training.patience,
            validate=self._choose_tower_weight,
        )
        selected_path = serving_path = checkpoint_dir / "selected-model.pt"
        self._publish(selected.best_model, selected_path)
        history = tuple(selected.history)
        if training.refit:
            serving = self._fit(
                "refitted",
                (schema.TRAIN, schema.VALIDATION),
                max_epochs=selected.best_epoch,
                patience=None,
                validate=None,
                tower_weight=selected.history[selected.best_epoch - 1].tower_weight,
            )
            serving_path = checkpoint_dir / "serving-model.pt"
            self._publish(serving.best_model, serving_path)
            history += tuple(serving.history)
        self.ranks.wait()
        return RankReport(
            rank=self.ranks.rank,
            status="completed",
            num_rows={split: len(GroupStore([path])) for split, path in self.caches.items()},
            num_steps=self.num_steps,
            resumed_from_epoch=self.resumed_from_epoch,
            best_epoch=selected.best_epoch,
            best_validation_map=selected.best_map,
            history=history,
            selected_path=str(selected_path),
            serving_path=str(serving_path),
        )

    def _fit(
        self,
        phase: str,
        splits: tuple[str, ...],
        *,
        max_epochs: int,
        patience: int | None,
        validate: Callable[[Network], dict[float, float]] | None,
        tower_weight: float = 0.0,
    ) -> Progress:
        """Train a fresh model, or go on with the checkpoint's, and return how that went."""
        training, ranks = self.job.training, self.ranks
        groups, num_own_batches = self._groups(splits)
        steps_per_epoch = ranks.largest(num_own_batches)
        _seed(self.job.seed)
        network = Network(self.encodings, self.job.model).to(ranks.device)
        network.tower_weight.fill_(tower_weight)
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=training.learning_rate,
            weight_decay=training.weight_decay, fused=True,
        )  # fmt: skip
        # The refitted model follows the schedule of the one that chose its number of epochs.
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, training.learning_rate, total_steps=training.max_epochs * steps_per_epoch
        )
        checkpoints = Checkpoints.of(self.job, phase)
        progress = checkpoints.load_into(network, optimizer, schedule)
        self.resumed_from_epoch += progress.epochs_done
        # Buffers are constants from the encodings, equal on all ranks.
        parallel = (
            DistributedDataParallel(network, forward_sync_buffers=False)
            if ranks.world_size > 1
            else network
        )
        line = ProgressLine(
            Path(self.job.progress_path), phase, max_epochs, steps_per_epoch,
            progress.epochs_done,
        )  # fmt: skip
        while not progress.is_over(max_epochs, patience):
            epoch, started = progress.epochs_done + 1, time.monotonic()
            steps = _Steps(self, groups, parallel, optimizer, schedule, line)
            mean_loss = steps.run(epoch, steps_per_epoch, weight=1 if num_own_batches else 0)
            by_weight = validate(network) if validate is not None else {}
            chosen = float(network.tower_weight)
            quality = by_weight.get(chosen)
            if quality is None or quality > progress.best_map:
                progress.best_epoch = epoch
                progress.best_map = progress.best_map if quality is None else quality
                progress.best_model = _copied(network)
            progress.epochs_done = epoch
            seconds = time.monotonic() - started
            progress.history.append(
                Epoch(phase=phase, epoch=epoch, loss=mean_loss, validation_map=quality,
                      map_without_graph=by_weight.get(0.0), tower_weight=chosen, seconds=seconds)
            )  # fmt: skip
            if ranks.rank == 0:
                checkpoints.save(network, optimizer, schedule, progress)
                mapped = _in_words(by_weight, chosen, self.job.k) if by_weight else ""
                log.info(
                    "%s epoch %d: loss %.4f%s, %.1f s", phase, epoch, mean_loss, mapped, seconds
                )
        return progress

    def _groups(self, splits: tuple[str, ...]) -> tuple[GroupStore, int]:
        """This rank's groups of the splits and in how many batches they come.

        A rank without any gets one of another rank's, to take part in the others' steps with
        weight 0, and 0 batches.
        """
        own = [self.caches[split] for split in splits if split in self.caches]
        if own:
            groups = GroupStore(own)
            planned = epochs.plan(groups.anchors_G, self.job.training.groups_per_batch, 0, 0)
            return groups, len(planned)
        everyones = (one for share in self.job.ranges[schema.TRAIN] for one in share)
        lent = next((one for one in everyones if one.num_rows), None)
        assert lent is not None, "no rank has a row to train on"
        first = RowRange(path=lent.path, first_row=lent.first_row, num_rows=1)
        return GroupStore.of_ranges([first], self.folder / "lent.arrow"), 0

    def _choose_tower_weight(self, network: Network) -> dict[float, float]:
        path = self.caches.get(schema.VALIDATION)
        return validation.choose_tower_weight(
            network,
            None if path is None else GroupStore([path]),
            self.catalogue,
            self.ranks,
            groups_per_batch=self.job.training.groups_per_batch,
            k=self.job.k,
        )

    def _publish(self, state: dict[str, torch.Tensor] | None, path: Path) -> None:
        assert state is not None, "a phase has at least one epoch"
        if self.ranks.rank == 0:
            write_whole(state, path)


class _Steps:
    """The optimizer steps of one epoch, as many on every rank."""

    def __init__(
        self,
        training: _Training,
        groups: GroupStore,
        parallel: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        line: ProgressLine,
    ) -> None:
        self.training, self.groups, self.parallel = training, groups, parallel
        self.optimizer, self.schedule, self.line = optimizer, schedule, line

    def run(self, epoch: int, num_steps: int, *, weight: int) -> float:
        """Return the epoch's mean loss over all ranks' seeds; weight 0 learns nothing from own."""
        job, ranks = self.training.job, self.training.ranks
        rank_seed = job.seed + _EPOCH_STREAM * epoch + _RANK_STREAM * ranks.rank
        _seed(rank_seed)  # of dropout; set per epoch, so that a resumed run draws the same
        generator = torch.Generator().manual_seed(rank_seed)
        self.parallel.train()
        planned = epochs.plan(self.groups.anchors_G, job.training.groups_per_batch, job.seed, epoch)
        total, seen, shown_loss = 0.0, 0, 0.0
        for step in range(num_steps):
            is_own = step < len(planned)
            numbers = planned[step] if is_own else [0]
            own_total, own_seeds, num_read = self._step(numbers, weight if is_own else 0, generator)
            total, seen = total + own_total, seen + own_seeds
            self.training.num_steps += 1
            shown_loss = own_total / own_seeds if own_seeds else shown_loss
            if ranks.rank == 0:
                self.line.step(epoch, step + 1, shown_loss, num_read * ranks.world_size)
        total, num_seeds = ranks.total([total, float(seen)])
        return total / max(num_seeds, 1.0)

    def _step(
        self, numbers: list[int], weight: int, generator: torch.Generator
    ) -> tuple[float, int, int]:
        training, ranks = self.training, self.training.ranks
        whole = batches.read(self.groups.groups(numbers), training.encodings)
        batch = thin(whole, training.job.training.negative_share, generator).to(ranks.device)
        available_I = training.catalogue.available(batch.anchor_days)
        negatives_S = draw_negatives(available_I, generator)
        outputs = self.parallel(batch, training.catalogue, negatives_S)
        own = loss(outputs, batch, available_I, negatives_S)
        num_seeds = ranks.total([float(weight * own.num_seeds)])[0]
        # Ranks' gradients are averaged: this makes that the mean over the seeds of all ranks.
        scaled = own.total * (weight * ranks.world_size / max(num_seeds, 1.0))
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(scaled)
        nn.utils.clip_grad_norm_(self.parallel.parameters(), _MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.schedule.step()
        return float(own.total.detach()) * weight, own.num_seeds * weight, batch.num_seeds


def _read_catalogue(job: TrainJob, encodings: Encodings) -> Catalogue:
    nodes = {name: files.read(paths, NODE_COLUMNS) for name, paths in job.node_files.items()}
    item_states = files.read(job.item_state_files, ITEM_STATE_COLUMNS)
    return Catalogue.from_arrow(nodes, item_states, encodings)


def _in_words(by_weight: dict[float, float], chosen: float, k: int) -> str:
    alone = f"{by_weight[0.0]:.4f} without it"
    return f", validation MAP@{k} {by_weight[chosen]:.4f}, graph at weight {chosen:g} ({alone})"


def _copied(network: Network) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}


def _seed(value: int) -> None:
    torch.manual_seed(value)  # noqa: TID251 - the training module's weights and dropout
