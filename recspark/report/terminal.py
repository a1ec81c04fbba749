"""What the person at the terminal sees at the end of a run, as rich tables for a job to print."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

CLOSE = 5e-5  # values this near to the best look equal at four decimals


class Interval(Protocol):
    """A mean difference with its bootstrap interval, such as `comparison.Interval`."""

    @property
    def mean_difference(self) -> float:
        """Ours minus theirs."""

    @property
    def low(self) -> float:
        """Lower end."""

    @property
    def high(self) -> float:
        """Upper end."""

    @property
    def level(self) -> float:
        """Share of the replicates inside, in (0, 1)."""


@dataclass(frozen=True, kw_only=True)
class Recommended:
    """One row to show: an item recommended to an entity, by their primary keys."""

    entity_id: Any
    rank: int  # from 1
    item_id: Any
    name: str | None  # of the item; None where it has none
    score: float
    reason: str | None


def metrics_table(
    methods: Mapping[str, Mapping[str, float]],
    *,
    title: str,
    num_users: int,
    interval: Interval | None = None,
    against: str | None = None,
) -> Table:
    """One row per method, one column per metric, the best value of each column in bold.

    Args:
        methods: method to metric to value, ours first; all with the same metrics. NaN: no value.
        title: what was judged, such as `Test 2011-09-10, 30 days`.
        num_users: users behind every mean.
        interval: difference of ours to `against` in the first metric, shown below the table.
        against: the method that `interval` compares with.
    """
    assert (interval is None) == (against is None), "an interval needs a method to be against"
    columns = list(next(iter(methods.values())))
    table = _table(f"{title} · {num_users:,} users")
    table.add_column("method")
    for metric in columns:
        table.add_column(_heading(metric), justify="right")
    best = {metric: max(values[metric] for values in methods.values()) for metric in columns}
    for method, values in methods.items():
        cells = [_number(values[metric], best[metric]) for metric in columns]
        table.add_row(escape(method), *cells)
    if interval is not None:
        table.caption = (
            f"{_heading(columns[0])}, {next(iter(methods))} minus {against}: "
            f"{interval.mean_difference:+.4f}, {interval.level:.0%} interval "
            f"{interval.low:+.4f} to {interval.high:+.4f} ({_verdict(interval)})"
        )
    return table


def recommendations_table(rows: Sequence[Recommended], *, entity: str, item: str) -> Table:
    """The lists of a few entities, in the order of `rows`, a line between two entities.

    Args:
        rows: the rows of one entity together, best first.
        entity: heading of the entity's column, such as `user_id`.
        item: heading of the item's column.
    """
    table = _table("Recommendations")
    # Where the terminal is narrow, rich takes the room from the columns that may wrap: names and
    # reasons, whose cells are cut instead.
    table.add_column(escape(entity), style="bold", no_wrap=True)
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column(escape(item), no_wrap=True)
    table.add_column("name")
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("reason")
    for position, row in enumerate(rows):
        is_first = position == 0 or rows[position - 1].entity_id != row.entity_id
        if is_first and position > 0:
            table.add_section()
        table.add_row(
            escape(str(row.entity_id)) if is_first else "",
            str(row.rank),
            escape(str(row.item_id)),
            _cut(row.name),
            f"{row.score:.4f}",
            _cut(row.reason),
        )
    return table


def run_summary(
    *,
    recommendations: str,
    num_rows: int,
    num_entities: int,
    model: str,
    run_id: str,
    tracking_uri: str,
    seconds: float,
) -> Table:
    """Where everything is that the run leaves behind.

    Args:
        recommendations: path or name of the Delta table.
        num_rows: rows that this run wrote.
        num_entities: entities that they are for.
        model: name and version of the model that scored.
        run_id: of MLflow.
        tracking_uri: where MLflow keeps the run.
        seconds: wall time of the whole run.
    """
    return _summary(
        {
            "Recommendations": recommendations,
            "Rows": f"{num_rows:,} for {num_entities:,} entities",
            "Model": model,
            "MLflow run": f"{run_id} at {tracking_uri}",
            "Time": _duration(seconds),
        }
    )


def training_summary(
    *, model: str, champion: str, run_id: str, tracking_uri: str, seconds: float
) -> Table:
    """What a run that only trains leaves behind.

    Args:
        model: name and version of the model that was trained.
        champion: name and version of the model that serves from now on.
        run_id: of MLflow.
        tracking_uri: where MLflow keeps the run.
        seconds: wall time of the whole run.
    """
    return _summary(
        {
            "Model": model,
            "Champion": champion,
            "MLflow run": f"{run_id} at {tracking_uri}",
            "Time": _duration(seconds),
        }
    )


def _summary(rows: Mapping[str, str]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, words in rows.items():
        table.add_row(name, escape(words))
    return table


def _table(title: str) -> Table:
    return Table(
        title=escape(title),
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        caption_style="",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )


def _cut(words: str | None) -> Text:
    return Text(words or "", no_wrap=True, overflow="ellipsis")


def _heading(metric: str) -> str:
    """`hit_rate_at_12` as people write it: `hit rate@12`; `map` and `ndcg` in capitals."""
    name, _, k = metric.partition("_at_")
    label = name.upper() if name in ("map", "ndcg") else name.replace("_", " ")
    return f"{label}@{k}" if k else label


def _number(value: float, best: float) -> str:
    if value != value:
        return "-"
    return f"[bold]{value:.4f}[/bold]" if best - value < CLOSE else f"{value:.4f}"


def _verdict(interval: Interval) -> str:
    if interval.low > 0:
        return "better"
    return "worse" if interval.high < 0 else "no clear difference"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
