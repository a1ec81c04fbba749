"""Trains on several processes, tracks the run in MLflow, and registers what came out."""

import math
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from recspark import ranges, train
from recspark.gnn.job import RankReport, TrainJob
from recspark.pipeline import choices
from recspark.pipeline.prepare import LEARNT, Prepared, held_files
from recspark.pipeline.start import Run
from recspark.recommend import model_files
from recspark.registry import ModelVersion, Registry
from recspark.tracking import Run as TrackedRun


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
    max_epochs = choices.max_epochs(run, prepared)
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
    tracked.log_metrics(
        {
            f"candidates/{split}_recall/{source}": share
            for split, found in prepared.recall.items()
            for source, share in found.items()
            if math.isfinite(share)
        }
    )
    learnt = Learnt(
        selected=Path(report.selected_path).read_bytes(),
        serving=Path(report.serving_path).read_bytes(),
        validation_map=report.best_validation_map,
        report=report,
    )
    choices.record(run, prepared, report, max_epochs, tracked)
    shutil.rmtree(checkpoints)  # both models are in hand; a later run starts afresh
    return learnt


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
        train.Imported("recspark.gnn.loop:train"),
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
