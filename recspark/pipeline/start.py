"""The start of every job: tables pinned and checked, anchors laid out, nothing written."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import SparkSession

from recspark import tables
from recspark.prepare import anchors, graph
from recspark.prepare.anchors import Anchor
from recspark.query import meaning
from recspark.query.explain import explain
from recspark.query.nodes import Query
from recspark.settings import Settings
from recspark.tables import Source, Workspace

log = logging.getLogger(__name__)


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

    @property
    def versions(self) -> dict[str, int]:
        """Source table to the version that this run reads."""
        return {name: source.version for name, source in self.sources.items()}

    def anchor_times(self, *splits: str) -> list[datetime]:
        """Distinct anchors of these splits, ascending."""
        return sorted({anchor.time for anchor in self.anchors if anchor.split in splits})


def start(
    spark: SparkSession, settings: Settings, query: Query, run_date: datetime, *, holdout: bool
) -> Run:
    """Pin every table, check it, and lay out the anchors. Writes nothing.

    With `holdout` a test anchor one window before the run date is kept from training; without,
    the run date itself is tested by what follows it (a backtest).

    Raises:
        ValueError: whatever is wrong with the tables or the dates, in one sentence.
    """
    sources = tables.pin(spark, settings)
    meaning.check_columns(query, {name: source.types() for name, source in sources.items()})
    first_event = graph.first_event(sources[query.target_table], run_date)
    num_rows = graph.check(sources, settings, run_date)
    planned = anchors.plan(
        query,
        run_date=run_date,
        num_train=settings.snapshots.train_anchors,
        step_days=settings.snapshots.step_days,
        first_event=first_event,
        holdout=holdout,
    )
    log.info("%s", explain(query, planned))
    workspace = Workspace(spark=spark, settings=settings, run_date=run_date.date())
    return Run(
        settings=settings,
        query=query,
        run_date=run_date,
        sources=sources,
        num_rows=num_rows,
        anchors=planned,
        workspace=workspace,
    )
