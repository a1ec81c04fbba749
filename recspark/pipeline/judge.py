"""The model beside simple baselines on one snapshot, each tuned on validation."""

import logging
import math
import time
from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from rich.console import Group
from rich.table import Table

from recspark import schema
from recspark.evaluate import baselines, comparison, metrics, purchases, totals
from recspark.evaluate.baselines import Baseline
from recspark.evaluate.bootstrap import Interval
from recspark.evaluate.comparison import Comparison
from recspark.evaluate.histories import SEED
from recspark.evaluate.purchases import History
from recspark.evaluate.resources import Resources
from recspark.evaluate.summary import Summary
from recspark.evaluate.totals import Totals
from recspark.pipeline import deliver
from recspark.pipeline.learn import Learnt
from recspark.pipeline.prepare import Prepared, positions
from recspark.pipeline.start import Run
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
    totals: Totals  # what several dates and seeds are added up from


def history(run: Run, prepared: Prepared) -> History:
    """What baselines may look at."""
    entity_position, item_position = positions(prepared.encodings)
    entities = prepared.encodings.nodes[run.query.entity_table]
    return History(
        events=prepared.graph.events[run.query.target_table],
        entity_position=entity_position,
        item_position=item_position,
        items=prepared.graph.nodes[run.query.item_table],
        entities=prepared.graph.nodes[run.query.entity_table],
        categories=tuple(category.column for category in entities.categories),
        item_state_files=run.workspace.paths("item_states"),
    )


def tune(run: Run, prepared: Prepared) -> list[Baseline]:
    """Every baseline with the parameters that are best on the validation snapshot."""
    started = time.monotonic()
    on_validation = prepared.snapshots.where(F.col(schema.SPLIT) == schema.VALIDATION)
    past = history(run, prepared)
    asked = (baselines.POPULARITY, *run.settings.evaluation.baselines)
    tuned = baselines.tune(
        history=past,
        snapshots=on_validation,
        k=run.query.k,
        seed=run.settings.seed,
        choices={name: tried for name, tried in baselines.grid(past).items() if name in asked},
    )
    for one in tuned.values():
        log.info("baselines: %s %.4f on validation, %s", one.name, one.validation_map, one.choice)
    log.info("baselines: tuned, %.1f s", time.monotonic() - started)
    return list(tuned.values())


def judge(
    run: Run,
    prepared: Prepared,
    tuned: list[Baseline],
    scored: DataFrame,
    truth: DataFrame,
    *,
    started: float,
    listed: DataFrame | None = None,
    draw_seed: int | None = None,
) -> Judgement:
    """Compare on `truth` (entity, anchor_time, labels), whose seeds share one anchor.

    Only users with labels are looked at. `started` is when this date's run began, `listed` is
    `list_baselines` of the same truth where it is made already, and `draw_seed` that of the
    bootstrap, the run's own by default: runs that are added up share one.
    """
    k, past = run.query.k, history(run, prepared)
    beside = list_baselines(run, prepared, tuned, truth) if listed is None else listed
    ours = scored.select(*SEED, F.slice(schema.ITEMS, 1, k).alias(OURS))
    judged = beside.join(ours, on=SEED, how="left").persist()
    anchors = purchases.anchors_of(judged)
    names = [OURS, *(baseline.name for baseline in tuned)]
    added = totals.add_up(
        judged,
        names,
        totals.established(past, anchors, run.horizon_days),
        k=k,
        seed=run.settings.seed if draw_seed is None else draw_seed,
    )
    held = comparison.holdings(
        judged,
        names,
        baselines.POPULARITY,
        k=k,
        num_on_sale=purchases.on_sale(past, anchors).count(),
    )
    judged.unpersist()
    means = added.means()
    map_name = metrics.name(metrics.MAP, k)
    best = max((b.name for b in tuned), key=lambda name: means[name][map_name])
    found = {b.name: added.interval(OURS, b.name) for b in tuned}
    intervals = {name: interval for name, interval in found.items() if interval is not None}
    return Judgement(
        comparison=Comparison(
            as_of=run.run_date.date(),
            num_users=added.num_users(),
            seconds=round(time.monotonic() - started, 1),
            methods={name: means[name] | held[name] for name in names},
            intervals=intervals,
            slices=comparison.slices_of(added, OURS, best),
        ),
        best_baseline=best,
        interval=intervals.get(best),
        totals=added,
    )


def list_baselines(
    run: Run, prepared: Prepared, tuned: list[Baseline], truth: DataFrame
) -> DataFrame:
    """One row per user of `truth` with labels: every baseline's list, and what slices need."""
    called = prepared.graph.keys(run.query.entity_table).select(
        F.col(schema.NODE).alias(schema.ENTITY),
        F.xxhash64(F.col(schema.KEY).cast("string")).alias(totals.DRAWN_AS),
    )
    bought = truth.where(F.size(schema.LABELS) > 0).select(*SEED, schema.LABELS)
    return baselines.rank(
        tuned,
        history=history(run, prepared),
        seeds=bought.join(called, on=schema.ENTITY, how="inner"),
        k=run.query.k,
        seed=run.settings.seed,
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
    """Log every method's metrics, the tuned baselines, intervals and slices, under `snapshot/`.

    `map_difference_*` is against the best baseline, `map_difference_*/<name>` against each.
    """
    measured = {
        f"{snapshot}/{metric}" + ("" if name == OURS else f"/{name}"): value
        for name, values in verdict.comparison.methods.items()
        for metric, value in values.items()
    }
    measured |= {f"val/map_at_{k}/{b.name}": b.validation_map for b in tuned}
    intervals = {f"/{name}": one for name, one in verdict.comparison.intervals.items()}
    if verdict.interval is not None:
        intervals[""] = verdict.interval
    for part in verdict.comparison.slices:
        name = part.name.replace("+", "_or_more").replace(" ", "_")
        measured[f"{snapshot}/{name}/map_at_{k}"] = part.maps[OURS]
        if part.interval is not None:
            intervals[f"/{name}"] = part.interval
    for name, interval in intervals.items():
        measured[f"{snapshot}/map_difference_mean{name}"] = interval.mean_difference
        measured[f"{snapshot}/map_difference_low{name}"] = interval.low
        measured[f"{snapshot}/map_difference_high{name}"] = interval.high
    tracked.log_metrics({name: v for name, v in measured.items() if math.isfinite(v)})
    choices = {b.name: str(b.choice) for b in tuned}
    tracked.log_json(verdict.comparison.to_json() | {"tuned": choices}, f"{snapshot}.json")


def table(verdict: Judgement, title: str) -> Group:
    """The comparison for the terminal: methods, then slices."""
    found = verdict.comparison
    return Group(
        terminal.metrics_table(
            found.methods, title=title, num_users=found.num_users, intervals=found.intervals
        ),
        terminal.slices_table(found.slices, against=verdict.best_baseline),
    )


def summary_table(summary: Summary) -> Group:
    """What a backtest shows together, for the terminal."""
    title = f"Mean over dates ({summary.num_dates}) and seeds ({summary.num_seeds})"
    return Group(
        terminal.metrics_table(
            summary.methods,
            title=title,
            num_users=summary.num_users,
            intervals=summary.intervals,
        ),
        terminal.slices_table(summary.slices, against=summary.best_baseline),
    )


def resources_table(resources: Resources) -> Table:
    """Seconds per stage and peak memory per program, for the terminal."""
    return terminal.resources_table(resources.seconds, resources.peak_gib())
