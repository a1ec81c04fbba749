"""The start of every job: tables pinned and checked, anchors laid out, nothing written."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

from pyspark.sql import SparkSession

from recspark import tables, windows
from recspark.prepare import anchors, graph, snapshots
from recspark.prepare.anchors import Anchor
from recspark.query import meaning
from recspark.query.explain import explain
from recspark.query.nodes import Query
from recspark.query.parse import parse
from recspark.recommend import write
from recspark.schema import SCORE, TEST, TRAIN, VALIDATION, recommendations
from recspark.session import open_session
from recspark.settings import Settings, load
from recspark.tables import Source, Workspace

log = logging.getLogger(__name__)

LEARNING = (TRAIN, VALIDATION, TEST)  # splits of a run that trains a model and judges it
SCORING = (SCORE,)  # splits of a run that recommends


@dataclass(frozen=True, kw_only=True)
class Run:
    """One job on one run date: pinned sources, checked before anything is written."""

    settings: Settings
    query: Query
    run_date: datetime  # midnight, UTC without a zone
    sources: Mapping[str, Source]
    num_rows: Mapping[str, int]  # node table -> rows that exist at the run date
    anchors: tuple[Anchor, ...]
    workspace: Workspace
    is_backtest: bool  # the run date lies in the past, and what followed it judges the model

    @property
    def versions(self) -> dict[str, int]:
        """Source table to the version that this run reads."""
        return {name: source.version for name, source in self.sources.items()}

    @property
    def horizon_days(self) -> int:
        """Length of the label window of the run date."""
        window = self.query.window
        return (window.closes(self.run_date) - window.opens(self.run_date)).days

    def anchor_times(self, *splits: str) -> list[datetime]:
        """Distinct anchors of these splits, ascending."""
        return sorted({anchor.time for anchor in self.anchors if anchor.split in splits})

    def key_type(self, table: str) -> str:
        """Spark's name for the type of a table's primary key."""
        source = self.sources[table]
        return source.types()[str(source.declared.primary_key)]

    def only(self, splits: Collection[str]) -> Self:
        """The same run with the anchors of these splits alone."""
        return replace(self, anchors=tuple(a for a in self.anchors if a.split in splits))


def open_run(
    job: str, config: str, run_date: str, *, splits: Collection[str] = (*LEARNING, *SCORING)
) -> Run:
    """Start the run of a job's two options; what is wrong in them is told before Spark starts.

    Raises:
        ValueError: a faulty config, query or date, and as `start`.
        RuntimeError: Spark cannot start, or has no Delta.
    """
    chosen = load(config)
    query = parse(chosen.query, chosen.tables)
    moment = windows.midnight(run_date)
    spark = open_session(f"recspark {job} {chosen.name}")
    run = start(spark, chosen, query, moment, holdout=True, splits=splits)
    if SCORE in splits:  # told now, not after an hour of training
        keys = (run.key_type(query.entity_table), run.key_type(query.item_table))
        write.require_schema(spark, chosen.output.recommendations, recommendations(*keys))
    return run


def start(
    spark: SparkSession,
    settings: Settings,
    query: Query,
    run_date: datetime,
    *,
    holdout: bool,
    splits: Collection[str] = (*LEARNING, *SCORING),
) -> Run:
    """Pin every table, check it, and lay out the anchors. Writes nothing.

    With `holdout` a test anchor one window before the run date is kept from training; without,
    the run date itself is tested by what follows it (a backtest). Of all anchors those of
    `splits` are kept.

    Raises:
        ValueError: whatever is wrong with the tables or the dates, in one sentence.
    """
    sources = tables.pin(spark, settings)
    meaning.check_columns(query, {name: source.types() for name, source in sources.items()})
    first_event = graph.first_event(sources[query.target_table], run_date)
    num_rows = graph.check(sources, settings, run_date)
    num_train = settings.snapshots.train_anchors or anchors.FEWEST_TRAINING
    if settings.snapshots.train_anchors is None and TRAIN in splits:
        # The newest window that is training's in every kind of run.
        anchor = query.window.back(run_date, len(LEARNING))
        keys = snapshots.entity_keys(sources[query.entity_table], query)
        buyers = graph.count_buyers(sources[query.target_table], keys, query, anchor)
        num_train = anchors.enough(buyers)
    planned = anchors.plan(
        query,
        run_date=run_date,
        num_train=num_train,
        step_days=settings.snapshots.step_days,
        first_event=first_event,
        holdout=holdout,
    )
    workspace = Workspace(spark=spark, settings=settings, run_date=run_date.date())
    run = Run(
        settings=settings,
        query=query,
        run_date=run_date,
        sources=sources,
        num_rows=num_rows,
        anchors=planned,
        workspace=workspace,
        is_backtest=not holdout,
    ).only(splits)
    log.info("%s", explain(query, run.anchors))
    return run
