"""What validation and the data decided in a run, each with its reason."""

import logging
import math

from pyspark.sql import functions as F

from recspark import schema
from recspark.gnn.job import MAX_ITEMS_OF_FULL_SOFTMAX, GroupChoice, RankReport
from recspark.pipeline.prepare import Prepared
from recspark.pipeline.start import Run
from recspark.prepare import interactions
from recspark.prepare.anchors import EXAMPLES_WANTED
from recspark.prepare.pair_history import HALF_LIVES
from recspark.tracking import Run as TrackedRun

log = logging.getLogger(__name__)

FEWEST_EPOCHS, MOST_EPOCHS = 3, 6
# A shop of 18,000 labels in its training snapshots gains up to five or six epochs, one of 200,000
# gets no better after three (benchmarks/RESULTS.md).
LABELS_WANTED = 100_000


def enough_epochs(num_labels: int) -> int:
    """How many epochs show `LABELS_WANTED` labels, when one shows so many."""
    wanted = math.ceil(LABELS_WANTED / max(num_labels, 1))
    return min(max(wanted, FEWEST_EPOCHS), MOST_EPOCHS)


def max_epochs(run: Run, prepared: Prepared) -> int:
    """Those that the settings say, or as many as show enough labels."""
    asked = run.settings.training.max_epochs
    if asked is not None:
        return asked
    learnt = prepared.snapshots.where(F.col(schema.SPLIT) == schema.TRAIN)
    counted = learnt.agg(F.sum(F.size(schema.LABELS))).collect()
    num_labels = int(counted[0][0] or 0)
    log.info("training: %s labels in the training snapshots", f"{num_labels:,}")
    return enough_epochs(num_labels)


def record(
    run: Run, prepared: Prepared, report: RankReport, most: int, tracked: TrackedRun
) -> None:
    """Log every choice, as a line and in `choices.json`; `most` epochs were allowed."""
    anchors = run.anchor_times(schema.TRAIN)
    k = run.query.k
    highest = max(epoch.validation_map or 0.0 for epoch in report.history)
    anchors_reason = _wanted(run.settings.snapshots.train_anchors, EXAMPLES_WANTED, "examples")
    epochs_reason = _wanted(run.settings.training.max_epochs, LABELS_WANTED, "labels")
    days = ", ".join(f"{multiple * run.horizon_days:g}" for multiple in HALF_LIVES.values())
    num_items = run.num_rows[run.query.item_table]
    exact = num_items <= MAX_ITEMS_OF_FULL_SOFTMAX
    told = {
        "candidates": _of_candidates(run, prepared),
        "half-lives": f"{days} days: multiples of the horizon of {run.horizon_days} days",
        "softmax": f"over {'all' if exact else 'some'} items: there are {num_items:,}, and up to "
        f"{MAX_ITEMS_OF_FULL_SOFTMAX:,} it is exact",
        "training anchors": f"{len(anchors)}, {anchors[0]:%Y-%m-%d} to {anchors[-1]:%Y-%m-%d}: "
        f"{anchors_reason}, as far as the events reach back",
        "epochs": f"{report.best_epoch} of {most} ({epochs_reason}): "
        f"validation MAP@{k} {report.by_group.map_with_all:.4f}, "
        f"of all epochs at most {highest:.4f}; "
        "the last within one standard error of the best; the learning rate falls within "
        f"{report.rate_falls_within}",
        "classes of customers": _of_classes(run, prepared),
        "groups of pair features": _of_groups(report.by_group, k),
        "boosted trees": _of_trees(report, k),
        "weight of the graph's score": f"{report.tower_weight:g}: validation MAP@{k} "
        f"{report.best_validation_map:.4f}, without it {report.map_without_graph:.4f}; the usual "
        "weights stay unless validation is clearly better with others",
    }
    for name, choice in told.items():
        log.info("chosen: %s %s", name, choice)
    tracked.log_json(told, "choices.json")


def _wanted(asked: int | None, number: int, what: str) -> str:
    return f"{number:,} {what} are wanted" if asked is None else f"{asked} are set"


def _of_candidates(run: Run, prepared: Prepared) -> str:
    found = prepared.recall[schema.VALIDATION]
    of_sources = ", ".join(f"{name} {share:.3f}" for name, share in found.items() if name != "all")
    return (
        f"{run.settings.candidates.per_seed} per seed are set, so many have "
        f"{found['all']:.3f} of the validation labels; by source {of_sources}"
    )


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


def _of_classes(run: Run, prepared: Prepared) -> str:
    """How many there are at the newest anchor, and which columns of a customer tell of them."""
    newest = run.workspace.read("customer_classes").orderBy(F.col(schema.ANCHOR_TIME).desc())
    sizes = F.transform(schema.VALUES, F.size)
    (row,) = newest.select(F.size(schema.SHARES).alias("number"), sizes.alias("sizes")).take(1)
    if row["number"] < 2:
        return "none: items have no trait but the price, or too few customers bought any"
    names = interactions.features(prepared.encodings).entity_traits
    told = [name for name, size in zip(names, row["sizes"], strict=True) if size]
    return (
        f"{row['number']}; of customers' columns these tell of the class: "
        f"{', '.join(told) or 'none'}"
    )
