"""The training loop that every rank runs.

First a model is trained on the training anchors and validation chooses its epoch. An early one was
cut short while its rate was high, so another is trained whose rate falls within so many epochs, and
validation compares the two. Then, if asked to, one is trained anew in the same way with the
validation anchor included, to serve.
"""

import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from recspark import files, schema
from recspark.encodings import Encodings
from recspark.gnn import boosting, cache, choosing, trees
from recspark.gnn.cache import GroupStore
from recspark.gnn.catalogue import ITEM_STATE_COLUMNS, NODE_COLUMNS, Catalogue
from recspark.gnn.checkpoint import Checkpoints, Progress, copied, write_whole
from recspark.gnn.choosing import Chosen
from recspark.gnn.job import Epoch, GroupChoice, RankReport, TrainJob
from recspark.gnn.learners import GraphLearner, HeadLearner
from recspark.gnn.model import Network
from recspark.gnn.progress import ProgressLine
from recspark.gnn.ranks import Ranks, join
from recspark.gnn.steps import Learner, Setting, Share, seed_torch
from recspark.gnn.validation import Judge
from recspark.ranges import RowRange

log = logging.getLogger(__name__)


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
    """One rank's data and its phases."""

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
        self.judge = Judge(
            groups=self._own((schema.VALIDATION,)), catalogue=self.catalogue, ranks=ranks,
            groups_per_batch=job.training.groups_per_batch, k=job.k,
        )  # fmt: skip
        self.num_steps = 0
        self.resumed_from_epoch = 0

    def run(self) -> RankReport:
        """All phases, and the report."""
        training, checkpoint_dir = self.job.training, Path(self.job.checkpoint_dir)
        selected, falls_within, history = self._select()
        alone, by_group = self._choose_alone(selected)
        chosen = self._choose(alone)
        selected_path = serving_path = checkpoint_dir / "selected-model.pt"
        self._publish(chosen.state, selected_path)
        if training.refit:
            serving = self._fit(
                "refitted",
                (schema.TRAIN, schema.VALIDATION),
                max_epochs=selected.best_epoch,
                falls_within=falls_within,
                patience=None,
                validate=None,
                like=chosen.state,
            )
            serving_path = checkpoint_dir / "serving-model.pt"
            self._publish(self._as_chosen(serving, chosen), serving_path)
            history += serving.history
        self.ranks.wait()
        return RankReport(
            rank=self.ranks.rank,
            status="completed",
            num_rows={split: len(GroupStore([path])) for split, path in self.caches.items()},
            num_steps=self.num_steps,
            resumed_from_epoch=self.resumed_from_epoch,
            best_epoch=selected.best_epoch,
            rate_falls_within=falls_within,
            best_validation_map=chosen.quality.mean,
            map_without_trees=alone.quality.mean,
            map_with_trees=chosen.map_with_trees,
            trees_share=chosen.trees_share,
            tower_weight=chosen.tower_weight,
            map_without_graph=chosen.map_without_graph,
            by_group=by_group,
            history=tuple(history),
            selected_path=str(selected_path),
            serving_path=str(serving_path),
        )

    def _select(self) -> tuple[Progress, int, list[Epoch]]:
        """The phase that validation chose, within how many epochs its rate falls, and a history."""

        def validate(network: Network) -> Chosen:
            return choosing.choose_weights(network, self.judge)

        most, splits = self.job.max_epochs, (schema.TRAIN,)
        selected = self._fit(
            "selected", splits, max_epochs=most, falls_within=most,
            patience=self.job.training.patience, validate=validate,
        )  # fmt: skip
        enough = selected.best_epoch
        if enough == most:
            return selected, most, selected.history
        annealed = self._fit(
            "annealed", splits, max_epochs=enough, falls_within=enough,
            patience=None, validate=validate,
        )  # fmt: skip
        history = selected.history + annealed.history
        if annealed.best.is_no_worse(selected.best):
            return annealed, enough, history
        return selected, most, history

    def _fit(
        self,
        phase: str,
        splits: tuple[str, ...],
        *,
        max_epochs: int,
        falls_within: int,
        patience: int | None,
        validate: Callable[[Network], Chosen] | None,
        like: Mapping[str, torch.Tensor] | None = None,
    ) -> Progress:
        """Train a fresh model, or go on with the checkpoint's, and return how that went.

        The learning rate comes down within `falls_within` epochs. What validation chose of the
        state `like` is taken over.
        """
        ranks = self.ranks
        seed_torch(self.job.seed)
        network = Network(self.encodings, self.job.model).to(ranks.device)
        if like is not None:
            network.load_state_dict(
                {name: like[name] for name in choosing.TAKEN_OVER}, strict=False
            )
        setting = Setting(
            job=self.job, ranks=ranks, catalogue=self.catalogue, encodings=self.encodings
        )
        share = self._share(splits)
        heads = HeadLearner(network, setting, share, falls_within)
        graph = GraphLearner(network, setting, share, falls_within)
        learners: tuple[Learner, ...] = (heads, graph)
        checkpoints = Checkpoints.of(self.job, phase)
        progress = checkpoints.load_into(network, learners)
        self.resumed_from_epoch += progress.epochs_done
        steps_per_epoch = heads.steps_per_epoch + graph.steps_per_epoch
        line = ProgressLine(
            Path(self.job.progress_path), phase, max_epochs, steps_per_epoch,
            progress.epochs_done,
        )  # fmt: skip
        while not progress.is_over(max_epochs, patience):
            epoch, started = progress.epochs_done + 1, time.monotonic()
            heads_loss, graph_loss = heads.run(epoch, line), graph.run(epoch, line)
            self.num_steps += steps_per_epoch
            chosen = validate(network) if validate is not None else None
            seconds = time.monotonic() - started
            done = Epoch(
                phase=phase, epoch=epoch, heads_loss=heads_loss, graph_loss=graph_loss,
                validation_map=None if chosen is None else chosen.quality.mean,
                map_without_graph=None if chosen is None else chosen.map_without_graph,
                tower_weight=float(network.tower_weight), seconds=seconds,
            )  # fmt: skip
            progress.add(done, None if chosen is None else chosen.quality, network)
            if ranks.rank == 0:
                checkpoints.save(network, learners, progress)
                mapped = "" if chosen is None else _in_words(chosen, self.job.k)
                log.info(
                    "%s epoch %d: loss of heads %.4f, of the graph %.4f%s, %.1f s",
                    phase, epoch, heads_loss, graph_loss, mapped, seconds,
                )  # fmt: skip
        return progress

    def _choose_alone(self, selected: Progress) -> tuple[Chosen, GroupChoice]:
        """The selected network without trees, and without groups of features that harm it."""
        assert selected.best_model is not None, "a phase has at least one epoch"
        network = self._network(selected.best_model)
        by_group = choosing.choose_groups(network, self.judge, selected.best)
        if by_group.left_out:
            return choosing.choose_weights(network, self.judge), by_group
        best = selected.history[selected.best_epoch - 1]
        alone = Chosen(
            state=selected.best_model,
            quality=selected.best,
            tower_weight=best.tower_weight,
            map_without_graph=best.map_without_graph or 0.0,
            trees_share=0.0,
            map_with_trees=None,
        )
        return alone, by_group

    def _choose(self, alone: Chosen) -> Chosen:
        """The network with trees, unless validation is clearly better without them.

        Two kinds of models err apart, so that both together are the safer guess.
        """
        if not self.job.training.trees:
            return alone
        num = trees.NUM_SELECTED if self.job.training.refit else trees.NUM_BOOSTERS
        network = self._boosted(alone.state, (schema.TRAIN,), num)
        scale = boosting.common_scale(
            network, self.judge.groups, self.catalogue, self.ranks, seed=self.job.seed
        )
        with_trees = choosing.choose_weights(network, self.judge, scale)
        if alone.quality.is_clearly_better(with_trees.quality):
            return replace(alone, map_with_trees=with_trees.quality.mean)
        return with_trees

    def _as_chosen(self, serving: Progress, chosen: Chosen) -> dict[str, torch.Tensor]:
        """The refitted network, with trees that count as much as the selected one's."""
        assert serving.best_model is not None, "a phase has at least one epoch"
        if not chosen.trees_share:
            return serving.best_model
        splits = (schema.TRAIN, schema.VALIDATION)
        network = self._boosted(serving.best_model, splits, trees.NUM_BOOSTERS)
        scale = boosting.scale_like(
            self._network(chosen.state), network, self._own((schema.TRAIN,)), self.catalogue,
            self.ranks, seed=self.job.seed,
        )  # fmt: skip
        network.pair_head.trees.scale.fill_(scale)
        return copied(network)

    def _network(self, state: dict[str, torch.Tensor]) -> Network:
        network = Network(self.encodings, self.job.model).to(self.ranks.device)
        network.load_state_dict(state)
        return network

    def _boosted(
        self, state: dict[str, torch.Tensor], splits: tuple[str, ...], num_boosters: int
    ) -> Network:
        network = self._network(state)
        boosting.add(
            network, self._own(splits), self.catalogue, self.ranks,
            num_boosters=num_boosters, seed=self.job.seed,
        )  # fmt: skip
        return network

    def _own(self, splits: tuple[str, ...]) -> GroupStore | None:
        """This rank's groups of the splits; None where it has none."""
        own = [self.caches[split] for split in splits if split in self.caches]
        return GroupStore(own) if own else None

    def _share(self, splits: tuple[str, ...]) -> Share:
        """This rank's groups of the splits; a rank without any borrows one of another rank's."""
        groups = self._own(splits)
        if groups is not None:
            return Share(groups=groups, is_own=True)
        everyones = (one for share in self.job.ranges[schema.TRAIN] for one in share)
        lent = next((one for one in everyones if one.num_rows), None)
        assert lent is not None, "no rank has a row to train on"
        first = RowRange(path=lent.path, first_row=lent.first_row, num_rows=1)
        lent_group = GroupStore.of_ranges([first], self.folder / "lent.arrow")
        return Share(groups=lent_group, is_own=False)

    def _publish(self, state: dict[str, torch.Tensor], path: Path) -> None:
        if self.ranks.rank == 0:
            write_whole(state, path)


def _read_catalogue(job: TrainJob, encodings: Encodings) -> Catalogue:
    nodes = {name: files.read(paths, NODE_COLUMNS) for name, paths in job.node_files.items()}
    item_states = files.read(job.item_state_files, ITEM_STATE_COLUMNS)
    return Catalogue.from_arrow(nodes, item_states, encodings)


def _in_words(chosen: Chosen, k: int) -> str:
    return (
        f", validation MAP@{k} {chosen.quality.mean:.4f}, graph at weight "
        f"{chosen.tower_weight:g} ({chosen.map_without_graph:.4f} without it)"
    )
