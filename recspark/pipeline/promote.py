"""Which registered model serves: champion and challenger on one validation snapshot.

Both are compared by the state that validation selected, never by the one that serves: that one was
refitted with labels which may lie in today's validation window. Runs go forward in time: on a run
date earlier than its own, a champion has seen the labels that it is compared on.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recspark import schema
from recspark.evaluate import comparison, metrics
from recspark.evaluate.baselines import Baseline
from recspark.pipeline import deliver, registered
from recspark.pipeline.learn import Learnt
from recspark.pipeline.registered import RegisteredModel
from recspark.pipeline.start import Run
from recspark.prepare.anchors import Anchor
from recspark.registry import CHAMPION, ModelVersion, Registry
from recspark.tracking import Run as TrackedRun

log = logging.getLogger(__name__)

# Training adds the challenger's MAP up in floats, here it is summed in fixed point: the same lists
# differ by less than this, and an equal challenger must not win by it.
SMALLEST_GAIN = 1e-6
DECISION_FILE = "promotion.txt"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The champion as the run found it, measured on the run's validation snapshot."""

    version: ModelVersion
    validation_map: float | None  # None: it is the version just trained, or `fault` says why
    fault: str | None = None


def judge_champion(
    run: Run, registry: Registry, trained: ModelVersion, tracked: TrackedRun
) -> Standing:
    """The present champion's MAP@K on the validation snapshot, prepared as that model reads it.

    Costs nothing where the version just trained is the champion, as the first one is. The measure
    is logged beside those of the baselines.
    """
    version = registry.resolve(CHAMPION)
    if version == trained:
        return Standing(version=version, validation_map=None)
    try:
        measured = _validation_map(run, registered.download(registry, version))
    except ValueError as fault:
        return Standing(version=version, validation_map=None, fault=str(fault))
    name = metrics.name(metrics.MAP, run.query.k)
    tracked.log_metrics({f"val/{name}/champion": measured})
    return Standing(version=version, validation_map=measured)


def _validation_map(run: Run, model: RegisteredModel) -> float:
    (moment,) = run.anchor_times(schema.VALIDATION)
    log.info(
        "registry: champion version %d reads the validation snapshot of %s",
        model.version.version, moment.date(),
    )  # fmt: skip
    # To the champion it is one more test, scored layer by layer.
    anchors = (Anchor(moment, schema.TEST),)
    alike, prepared = registered.prepare(run, model, anchors)
    scored = deliver.score(alike, prepared, model.selected, schema.TEST, model.settings.model)
    per_user = comparison.score(scored, prepared.snapshots, run.query.k)
    return comparison.means(per_user)[metrics.name(metrics.MAP, run.query.k)]


def choose(
    registry: Registry,
    version: ModelVersion,
    learnt: Learnt,
    tuned: Sequence[Baseline],
    standing: Standing,
    tracked: TrackedRun,
) -> ModelVersion:
    """The version to serve with: the new one if it beats champion and best baseline, else the old.

    All are compared by MAP@K on the same validation snapshot, and an equal one does not win. Where
    there was no champion, the new version is it, whatever it reaches. The decision is logged, and
    kept with the run as a sentence.

    Raises:
        ValueError: the champion cannot serve any more, and the new version must not.
    """
    best = max(tuned, key=lambda baseline: baseline.validation_map)
    rivals = {best.name: best.validation_map}
    if standing.validation_map is not None:
        rivals[f"champion version {standing.version.version}"] = standing.validation_map
    unbeaten = {
        name: reached
        for name, reached in rivals.items()
        if learnt.validation_map < reached + SMALLEST_GAIN
    }
    decision = _sentence(version, learnt, rivals, unbeaten, standing)
    log.log(logging.WARNING if unbeaten or standing.fault else logging.INFO, decision)
    tracked.log_text(decision + "\n", DECISION_FILE)
    if standing.version == version:
        return version
    if not unbeaten:
        registry.promote(version)
        return version
    if standing.fault is not None:
        raise ValueError(f"{decision} Nothing is left to serve with.")
    return standing.version


def _sentence(
    version: ModelVersion,
    learnt: Learnt,
    rivals: Mapping[str, float],
    unbeaten: Mapping[str, float],
    standing: Standing,
) -> str:
    """What was decided and by which numbers."""
    shown = ", ".join(f"{name} {reached:.4f}" for name, reached in (unbeaten or rivals).items())
    compared = f"validation MAP {learnt.validation_map:.4f}, {shown}"
    start = f"registry: version {version.version} of {version.name}"
    if standing.version == version:
        return f"{start} is the champion, as there was none: {compared}."
    if not unbeaten:
        told = f"{start} is the champion now: {compared}."
    else:
        told = f"{start} is not promoted: {compared}."
        if standing.fault is None:
            told += f" Going on with champion version {standing.version.version}."
    return told if standing.fault is None else f"{told} The champion was left out: {standing.fault}"
