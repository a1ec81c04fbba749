"""The two comparisons that keep the future out, written here and nowhere else.

Both work on anything that orders: Spark columns, numpy arrays, datetimes.
"""

from datetime import datetime, timedelta
from typing import Any


def is_visible(time: Any, anchor: Any) -> Any:
    """Whether a row with this time may be an input at this anchor: `time <= anchor`."""
    return time <= anchor


def is_in_label_window(time: Any, opens: Any, closes: Any) -> Any:
    """Whether a row with this time is a label: `opens < time <= closes`.

    `opens` is anchor + start and `closes` is anchor + end of the query's window.
    """
    return (time > opens) & (time <= closes)


def exists(start: Any, end: Any, moment: Any) -> Any:
    """Whether a node with these (non-null) bounds exists at the moment: `start <= moment < end`."""
    return (start <= moment) & (moment < end)


def days(count: float) -> timedelta:
    """A span of days."""
    return timedelta(days=count)


def midnight(date_text: str) -> datetime:
    """The anchor of a run date (YYYY-MM-DD), its midnight in UTC, without a zone.

    Raises:
        ValueError: when the text is no such date.
    """
    try:
        return datetime.strptime(date_text, "%Y-%m-%d")  # noqa: DTZ007 - UTC by contract
    except ValueError:
        raise ValueError(f"run date '{date_text}' is not a date like 2026-11-23.") from None
