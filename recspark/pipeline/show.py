"""What the person at the terminal sees at the end of a run."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from rich.console import Console

from recspark import schema, tables
from recspark.pipeline.deliver import NAME_COLUMNS, Serving
from recspark.pipeline.prepare import Prepared
from recspark.pipeline.start import Run
from recspark.recommend import write
from recspark.registry import ModelVersion
from recspark.report import terminal
from recspark.report.terminal import Recommended
from recspark.tracking import Run as TrackedRun
from recspark.tracking import Tracker

NUM_SHOWN = 3  # entities whose rows are shown


@contextmanager
def at_terminal(job: str) -> Iterator[Console]:
    """Run a job: log lines to standard error, and a fault as one sentence with exit status 1."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr
    )
    console = Console(width=None if sys.stdout.isatty() else 110)
    try:
        yield console
    except (ValueError, RuntimeError) as fault:
        Console(stderr=True, soft_wrap=True).print(f"{job}: {fault}", markup=False, style="red")
        raise SystemExit(1) from None


def delivered(
    console: Console,
    run: Run,
    served: Serving,
    scored: DataFrame,
    tracker: Tracker,
    tracked: TrackedRun,
    *,
    started: float,
) -> None:
    """Print the rows of a few entities, and where everything is that the run leaves behind."""
    shown = examples(run, served.prepared)
    entity, item = run.query.entity.column, run.query.target_item_key
    console.print(terminal.recommendations_table(shown, entity=entity, item=item))
    console.print(
        terminal.run_summary(
            recommendations=run.settings.output.recommendations,
            num_rows=num_rows(run),
            num_entities=scored.count(),
            model=_words(served.version),
            run_id=tracked.run_id,
            tracking_uri=tracker.uri,
            seconds=time.monotonic() - started,
        )
    )


def trained(
    console: Console,
    version: ModelVersion,
    champion: ModelVersion,
    tracker: Tracker,
    tracked: TrackedRun,
    *,
    started: float,
) -> None:
    """Print which version was trained and which one serves."""
    console.print(
        terminal.training_summary(
            model=_words(version),
            champion=_words(champion),
            run_id=tracked.run_id,
            tracking_uri=tracker.uri,
            seconds=time.monotonic() - started,
        )
    )


def _words(version: ModelVersion) -> str:
    return f"{version.name} version {version.version}"


def _written(run: Run) -> DataFrame:
    """The rows of this run's slice of the output."""
    return tables.read(run.workspace.spark, run.settings.output.recommendations).where(
        (F.col(schema.RUN_DATE) == F.lit(run.run_date.date()))
        & (F.col(schema.QUERY) == run.settings.name)
    )


def num_rows(run: Run) -> int:
    """How many recommendations the run wrote."""
    return _written(run).count()


def examples(run: Run, prepared: Prepared) -> list[Recommended]:
    """The rows of the first few entities with the names of their items."""
    written = _written(run)
    first = written.select(write.ENTITY_ID).distinct().orderBy(write.ENTITY_ID).limit(NUM_SHOWN)
    source = run.sources[run.query.item_table]
    name = next((column for column in NAME_COLUMNS if column in source.frame.columns), None)
    names = source.frame.select(
        F.col(str(source.declared.primary_key)).alias(write.ITEM_ID),
        (F.col(name) if name else F.lit(None)).cast("string").alias("item_name"),
    )
    rows = (
        written.join(F.broadcast(first), on=write.ENTITY_ID, how="left_semi")
        .join(names, on=write.ITEM_ID, how="left")
        .orderBy(write.ENTITY_ID, schema.RANK)
        .collect()
    )
    return [
        Recommended(
            entity_id=row[write.ENTITY_ID],
            rank=row[schema.RANK],
            item_id=row[write.ITEM_ID],
            name=row["item_name"],
            score=row[schema.SCORE_VALUE],
            reason=row[schema.REASON],
        )
        for row in rows
    ]
