"""What the person at the terminal sees at the end of a run, as rich tables for a job to print."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

UNRANKED = ("popularity_share", "std")  # neither much nor little of it is good
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


class Slice(Protocol):
    """One part of a snapshot, such as `comparison.Slice`."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def num_users(self) -> int:
        """Users in it."""

    @property
    def maps(self) -> Mapping[str, float]:
        """Method to MAP, ours first; NaN without users."""

    @property
    def interval(self) -> Interval | None:
        """Ours minus the best baseline."""


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
    intervals: Mapping[str, Interval] | None = None,
) -> Table:
    """One row per method, one column per metric, the best value of each column in bold.

    Args:
        methods: method to metric to value, ours first; all with the same metrics. NaN: no value.
        title: what was judged, such as `Test 2011-09-10, 30 days`.
        num_users: users behind every mean.
        intervals: difference of ours to these methods in the first metric, below the table;
            none where nobody bought anything.
    """
    columns = list(next(iter(methods.values())))
    ours = next(iter(methods))
    table = _table(f"{title} · {num_users:,} users")
    table.add_column("method", no_wrap=True)
    for metric in columns:
        table.add_column(_heading(metric), justify="right")
    best = {
        metric: math.nan
        if metric.startswith(UNRANKED)
        else max(values[metric] for values in methods.values())
        for metric in columns
    }
    for method, values in methods.items():
        cells = [_number(values[metric], best[metric]) for metric in columns]
        table.add_row(escape(method), *cells)
    table.caption = "\n".join(
        f"{_heading(columns[0])}, {ours} minus {escape(method)}: {_words(interval)}, "
        f"{interval.level:.0%} interval"
        for method, interval in (intervals or {}).items()
    )
    return table


def slices_table(slices: Sequence[Slice], *, against: str) -> Table:
    """One row per slice: its users, MAP of ours and of the best baseline, and their difference.

    Args:
        slices: parts of one snapshot, all with the same methods, ours first.
        against: the baseline that the intervals compare with.
    """
    table = _table("MAP by slice")
    table.add_column("slice", no_wrap=True)
    table.add_column("users", justify="right")
    methods = [next(iter(slices[0].maps)), against]
    for method in methods:
        table.add_column(escape(method), justify="right")
    table.add_column("difference, interval", no_wrap=True)
    for part in slices:
        best = max(part.maps[method] for method in methods)
        cells = [_number(part.maps[method], best) for method in methods]
        table.add_row(part.name, f"{part.num_users:,}", *cells, _words(part.interval))
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


def resources_table(seconds: Mapping[str, float], peak_gib: Mapping[str, float]) -> Table:
    """What a run took.

    Args:
        seconds: stage to wall time.
        peak_gib: program to the most resident memory of any one process of it, GiB.
    """
    times = {f"{stage.capitalize()} time": _duration(of) for stage, of in seconds.items()}
    peaks = {f"Peak memory, {program}": f"{gib:.2f} GiB" for program, gib in peak_gib.items()}
    return _summary({**times, **peaks})


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


def difference(interval: Interval) -> str:
    """`+0.0123 (+0.0100 to +0.0146)`."""
    return f"{interval.mean_difference:+.4f} ({interval.low:+.4f} to {interval.high:+.4f})"


def _words(interval: Interval | None) -> str:
    """The `difference`, green where ours is better for sure, red where worse."""
    if interval is None:
        return ""
    words = difference(interval)
    if interval.low > 0:
        return f"[green]{words}[/green]"
    return f"[red]{words}[/red]" if interval.high < 0 else words


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
