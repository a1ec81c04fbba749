"""Trains on several processes, tracks the run in MLflow, and registers what came out."""

import logging
import math
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml
from pyspark.sql import functions as F

from recspark import ranges, train
from recspark.gnn import loop
from recspark.gnn.job import GroupChoice, RankReport, TrainJob
from recspark.gnn.loss import MAX_ITEMS_OF_FULL_SOFTMAX
from recspark.pipeline.prepare import LEARNT, Prepared, held_files
from recspark.pipeline.start import Run
from recspark.prepare.anchors import EXAMPLES_WANTED
from recspark.prepare.pair_history import HALF_LIVES
from recspark.recommend import model_files
from recspark.registry import ModelVersion, Registry
from recspark.schema import LABELS, SPLIT, TRAIN
from recspark.tracking import Run as TrackedRun

log = logging.getLogger(__name__)

FEWEST_EPOCHS, MOST_EPOCHS = 3, 6
# A shop of 18,000 labels in its training snapshots gains up to five or six epochs, one of 200,000
# gets no better after three (benchmarks/RESULTS.md).
LABELS_WANTED = 100_000


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """What training left behind."""

    selected: bytes  # state that validation chose; it has not learnt from validation or test
    serving: bytes  # state to serve with: refitted with the validation labels, if so set
    validation_map: float  # MAP@K of `selected` over the whole catalogue
    report: RankReport


def learn(run: Run, prepared: Prepared, tracked: TrackedRun) -> Learnt:
    """Train, log curves, and return both models."""
    checkpoints = _checkpoint_folder(run)
    max_epochs = _max_epochs(run, prepared)
    reports = _launch(run, prepared, checkpoints, max_epochs)
    report = reports[0]
    for phase in dict.fromkeys(epoch.phase for epoch in report.history):
        points = [asdict(epoch) for epoch in report.history if epoch.phase == phase]
        for point in points:
            del point["phase"]
        tracked.log_history(points, k=run.query.k, phase=phase)
    val_map = f"val/map_at_{run.query.k}"
    tracked.log_metrics(
        {val_map: report.best_validation_map, "train/best_epoch": report.best_epoch}
        | {f"{val_map}_without/{name}": m for name, m in report.by_group.map_without.items()}
    )
    learnt = Learnt(
        selected=Path(report.selected_path).read_bytes(),
        serving=Path(report.serving_path).read_bytes(),
        validation_map=report.best_validation_map,
        report=report,
    )
    _log_choices(run, report, max_epochs, tracked)
    shutil.rmtree(checkpoints)  # both models are in hand; a later run starts afresh
    return learnt


def _log_choices(run: Run, report: RankReport, max_epochs: int, tracked: TrackedRun) -> None:
    """What validation and the data decided, each with its reason: a log line and `choices.json`."""
    anchors = run.anchor_times(TRAIN)
    k = run.query.k
    highest = max(epoch.validation_map or 0.0 for epoch in report.history)
    anchors_reason = _wanted(run.settings.snapshots.train_anchors, EXAMPLES_WANTED, "examples")
    epochs_reason = _wanted(run.settings.training.max_epochs, LABELS_WANTED, "labels")
    days = ", ".join(f"{multiple * run.horizon_days:g}" for multiple in HALF_LIVES.values())
    num_items = run.num_rows[run.query.item_table]
    exact = num_items <= MAX_ITEMS_OF_FULL_SOFTMAX
    choices = {
        "half-lives": f"{days} days: multiples of the horizon of {run.horizon_days} days",
        "softmax": f"over {'all' if exact else 'some'} items: there are {num_items:,}, and up to "
        f"{MAX_ITEMS_OF_FULL_SOFTMAX:,} it is exact",
        "training anchors": f"{len(anchors)}, {anchors[0]:%Y-%m-%d} to {anchors[-1]:%Y-%m-%d}: "
        f"{anchors_reason}, as far as the events reach back",
        "epochs": f"{report.best_epoch} of {max_epochs} ({epochs_reason}): "
        f"validation MAP@{k} {report.by_group.map_with_all:.4f}, "
        f"of all epochs at most {highest:.4f}; "
        "the last within one standard error of the best; the learning rate falls within "
        f"{report.rate_falls_within}",
        "groups of pair features": _of_groups(report.by_group, k),
        "boosted trees": _of_trees(report, k),
        "weight of the graph's score": f"{report.tower_weight:g}: validation MAP@{k} "
        f"{report.best_validation_map:.4f}, without it {report.map_without_graph:.4f}",
    }
    for name, told in choices.items():
        log.info("chosen: %s %s", name, told)
    tracked.log_json(choices, "choices.json")


def _wanted(asked: int | None, number: int, what: str) -> str:
    return f"{number:,} {what} are wanted" if asked is None else f"{asked} are set"


def _of_groups(found: GroupChoice, k: int) -> str:
    worth = {name: found.map_with_all - value for name, value in found.map_without.items()}
    most = sorted(worth, key=lambda name: -worth[name])
    told = ", ".join(f"{name} {worth[name]:+.4f}" for name in most)
    if not found.left_out:
        kept = "all, as validation is not clearly better without one"
    else:
        without = ", ".join(f"{name} ({value:.4f})" for name, value in found.left_out.items())
        kept = f"validation is clearly better without {without}"
    return f"{kept}; MAP@{k} {found.map_with_all:.4f} with all of them, of which {told}"


def _of_trees(report: RankReport, k: int) -> str:
    if report.map_with_trees is None:
        return "no: the settings leave them out"
    said = f"at a share of {report.trees_share:g}" if report.trees_share else "no"
    return (
        f"{said}: validation MAP@{k} {report.map_with_trees:.4f} with them, "
        f"the network alone {report.map_without_trees:.4f}"
    )


def enough_epochs(num_labels: int) -> int:
    """How many epochs show `LABELS_WANTED` labels, when one shows so many."""
    wanted = math.ceil(LABELS_WANTED / max(num_labels, 1))
    return min(max(wanted, FEWEST_EPOCHS), MOST_EPOCHS)


def _max_epochs(run: Run, prepared: Prepared) -> int:
    asked = run.settings.training.max_epochs
    if asked is not None:
        return asked
    learnt = prepared.snapshots.where(F.col(SPLIT) == TRAIN)
    counted = learnt.agg(F.sum(F.size(LABELS))).collect()
    num_labels = int(counted[0][0] or 0)
    log.info("training: %s labels in the training snapshots", f"{num_labels:,}")
    return enough_epochs(num_labels)


def _checkpoint_folder(run: Run) -> Path:
    return Path(run.settings.checkpoint_root, f"{run.run_date:%Y-%m-%d}").absolute()


def _launch(run: Run, prepared: Prepared, checkpoints: Path, max_epochs: int) -> list[RankReport]:
    settings, workspace = run.settings, run.workspace
    num_ranks = settings.training.num_processes
    stored = {split: workspace.files("subgraphs", split=split) for split in LEARNT}
    job = TrainJob(
        encodings=prepared.encodings.model_dump_json(),
        model=settings.model,
        training=settings.training,
        max_epochs=max_epochs,
        ranges={split: ranges.split(files, num_ranks) for split, files in stored.items()},
        node_files=held_files(run, prepared.encodings),
        item_state_files=workspace.paths("item_states"),
        k=run.query.k,
        seed=settings.seed,
        checkpoint_dir=str(checkpoints),
        progress_path=str(checkpoints / "progress.json"),
    )
    checkpoints.mkdir(parents=True, exist_ok=True)
    return train.launch(
        loop.train,
        job,
        spark=workspace.spark,
        num_processes=num_ranks,
        use_gpu=settings.training.use_gpu,
        max_attempts=settings.training.max_attempts,
        planned_rows={split: sum(f.num_rows for f in files) for split, files in stored.items()},
        progress_file=checkpoints / "progress.json",
    )


def register(run: Run, prepared: Prepared, learnt: Learnt, tracked: TrackedRun) -> ModelVersion:
    """Log the model with everything it needs and make it the next registered version.

    Both states travel: the one that serves, and the one that later challengers are compared with.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "state.pt").write_bytes(learnt.serving)
        (root / "selected.pt").write_bytes(learnt.selected)
        (root / "encodings.json").write_text(prepared.encodings.model_dump_json(), encoding="utf-8")
        (root / "settings.yaml").write_text(
            yaml.safe_dump(run.settings.model_dump(mode="json", exclude_none=True)),
            encoding="utf-8",
        )
        model_files.write_catalogue(
            root / "catalogue",
            held_files(run, prepared.encodings),
            run.workspace.paths("item_states"),
        )
        uri = tracked.log_model(
            state=root / "state.pt",
            selected=root / "selected.pt",
            encodings=root / "encodings.json",
            settings_file=root / "settings.yaml",
            catalogue=root / "catalogue",
        )
    return Registry(name=run.settings.model_name).register(uri, tracked.run_id)
