"""The model beside simple baselines on one snapshot, each tuned on validation."""

import logging
import math
import time
from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from rich.table import Table

from recspark import schema
from recspark.evaluate import baselines, comparison, metrics
from recspark.evaluate.baselines import Baseline, History
from recspark.evaluate.comparison import Comparison, Interval
from recspark.pipeline import deliver
from recspark.pipeline.learn import Learnt
from recspark.pipeline.prepare import Prepared, positions
from recspark.pipeline.start import Run
from recspark.prepare import events, snapshots
from recspark.prepare.anchors import Anchor
from recspark.report import terminal
from recspark.tracking import Run as TrackedRun

log = logging.getLogger(__name__)

OURS = "recspark"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """How the model did against the baselines on the users who bought something."""

    comparison: Comparison
    best_baseline: str
    interval: Interval | None  # ours minus the best baseline's MAP@K; None: nobody bought


def history(run: Run, prepared: Prepared) -> History:
    """What baselines may look at."""
    entity_position, item_position = positions(prepared.encodings)
    return History(
        events=prepared.graph.events[run.query.target_table],
        entity_position=entity_position,
        item_position=item_position,
        items=prepared.graph.nodes[run.query.item_table],
    )


def tune(run: Run, prepared: Prepared) -> list[Baseline]:
    """Every baseline with the half-life that is best on the validation snapshot."""
    started = time.monotonic()
    on_validation = prepared.snapshots.where(F.col(schema.SPLIT) == schema.VALIDATION)
    tuned = baselines.tune(history=history(run, prepared), snapshots=on_validation, k=run.query.k)
    found = ", ".join(
        f"{b.name} {b.validation_map:.4f} (half-life {b.half_life})" for b in tuned.values()
    )
    log.info("baselines: on validation %s, %.1f s", found, time.monotonic() - started)
    return list(tuned.values())


def judge(
    run: Run,
    prepared: Prepared,
    tuned: list[Baseline],
    scored: DataFrame,
    truth: DataFrame,
    *,
    started: float,
) -> Judgement:
    """Compare on `truth` (entity, anchor_time, labels); `started` is when this date's run began."""
    k, map_name = run.query.k, f"map_at_{run.query.k}"
    assert map_name in metrics.names(k)
    past = history(run, prepared)
    ranked = {b.name: baselines.rank(b, history=past, seeds=truth, k=k) for b in tuned}
    per_user = {
        name: comparison.score(lists, truth, k).persist()
        for name, lists in {OURS: scored, **ranked}.items()
    }
    num_users, methods = comparison.means_of_methods(per_user)
    best = max((b.name for b in tuned), key=lambda name: methods[name][map_name])
    interval = None
    if num_users:
        difference = comparison.differences(per_user[OURS], per_user[best], map_name)
        interval = comparison.bootstrap_difference(difference, seed=run.settings.seed)
    for frame in per_user.values():
        frame.unpersist()
    return Judgement(
        comparison=Comparison(
            as_of=run.run_date.date(),
            num_users=num_users,
            seconds=round(time.monotonic() - started, 1),
            methods=methods,
        ),
        best_baseline=best,
        interval=interval,
    )


def on_test(
    run: Run,
    prepared: Prepared,
    learnt: Learnt,
    tuned: list[Baseline],
    tracked: TrackedRun,
    *,
    started: float,
) -> Judgement:
    """Judge, on the test snapshot, the model that has not learnt from it, and log the result."""
    scored = deliver.score(run, prepared, learnt.selected, schema.TEST)
    truth = prepared.snapshots.where(F.col(schema.SPLIT) == schema.TEST)
    verdict = judge(run, prepared, tuned, scored, truth, started=started)
    track(tracked, verdict, tuned, run.query.k, schema.TEST)
    return verdict


def track(
    tracked: TrackedRun, verdict: Judgement, tuned: list[Baseline], k: int, snapshot: str
) -> None:
    """Log every method's metrics, the tuned half-lives, and the interval, under `snapshot/`."""
    methods = verdict.comparison.methods
    measured = {
        f"{snapshot}/{metric}" + ("" if name == OURS else f"/{name}"): value
        for name, values in methods.items()
        for metric, value in values.items()
        if math.isfinite(value)
    }
    measured |= {f"val/map_at_{k}/{b.name}": b.validation_map for b in tuned}
    if verdict.interval is not None:
        measured[f"{snapshot}/map_difference_mean"] = verdict.interval.mean_difference
        measured[f"{snapshot}/map_difference_low"] = verdict.interval.low
        measured[f"{snapshot}/map_difference_high"] = verdict.interval.high
    tracked.log_metrics(measured)
    tracked.log_json(verdict.comparison.to_json(), f"{snapshot}.json")


def table(verdict: Judgement, title: str) -> Table:
    """The comparison for the terminal."""
    return terminal.metrics_table(
        verdict.comparison.methods,
        title=title,
        num_users=verdict.comparison.num_users,
        interval=verdict.interval,
        against=verdict.best_baseline if verdict.interval is not None else None,
    )


def future_truth(run: Run, prepared: Prepared) -> DataFrame:
    """What eligible entities bought after the run date: the labels of a backtest.

    Nothing else reads rows after the run date.
    """
    encodings, target = prepared.encodings, run.sources[run.query.target_table]
    entity_position, item_position = positions(encodings)
    keys = {name: prepared.graph.keys(name) for name in prepared.graph.nodes}
    later = events.after(
        target.frame,
        target.declared,
        encodings.events[run.query.target_table],
        numbered=keys,
        run_date=run.run_date,
    )
    bought = snapshots.truth(
        later,
        Anchor(run.run_date, schema.SCORE),
        nodes=prepared.eligible,
        entity_position=entity_position,
        item_position=item_position,
        query=run.query,
    )
    return bought.withColumn(schema.ANCHOR_TIME, F.lit(run.run_date))
