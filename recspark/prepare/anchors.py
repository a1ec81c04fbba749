"""Which past moments a run learns from, and on which it is judged."""

import logging
import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from recspark import schema, windows
from recspark.query.nodes import Query

log = logging.getLogger(__name__)

FEWEST_TRAINING, MOST_TRAINING = 10, 40
# With fewer, more anchors make the model better (a shop of 260 buyers a week gains until 20 or 30);
# with more, they only cost time (a shop of 900 a month got no better with 18 than with 10).
EXAMPLES_WANTED = 8_000
SHORTEST_DEFAULT_STEP_DAYS = 7  # so that weekday patterns weigh alike in every training anchor


@dataclass(frozen=True, slots=True)
class Anchor:
    """A moment and the split that it serves; inputs are at or before it, labels after it."""

    time: datetime  # UTC, without a zone
    split: str  # one of the splits of recspark.schema

    def __post_init__(self) -> None:
        assert self.time.tzinfo is None, self.time
        assert self.split in (schema.TRAIN, schema.VALIDATION, schema.TEST, schema.SCORE)


def enough(num_buyers: int) -> int:
    """How many training anchors make `EXAMPLES_WANTED` seeds, if so many buy in each window."""
    wanted = math.ceil(EXAMPLES_WANTED / max(num_buyers, 1))
    return min(max(wanted, FEWEST_TRAINING), MOST_TRAINING)


def plan(
    query: Query,
    *,
    run_date: datetime,
    num_train: int,
    step_days: int | None,
    first_event: datetime,
    holdout: bool,
) -> tuple[Anchor, ...]:
    """Lay out the anchors of a run, oldest first; no label window closes after the next split.

    The scoring anchor is the run date. Before it, each one window earlier, lie the test anchor
    (with `holdout`; a backtest has none, its run date is tested by what follows), the validation
    anchor and the newest training anchor. Months step back from the run date's own day.

    Args:
        query: gives the window.
        run_date: midnight UTC, without a zone.
        num_train: the most training anchors to lay out.
        step_days: days between training anchors; None: half the window, at least 7.
        first_event: time of the oldest event. Training anchors lie at least one step after it, so
            that there is something to learn from; earlier ones are left out and logged.
        holdout: whether a test window before the run date is kept from training and validation.

    Raises:
        ValueError: the run date lies before the first event or too soon after it.
    """
    assert run_date.tzinfo is None, run_date
    assert first_event.tzinfo is None, first_event
    if not windows.is_visible(first_event, run_date):
        raise ValueError(
            f"run date {run_date:%Y-%m-%d} lies before the first event of "
            f"'{query.target_table}' ({first_event:%Y-%m-%d %H:%M:%S}); choose a later one."
        )
    held_out = (schema.TEST, schema.VALIDATION) if holdout else (schema.VALIDATION,)
    num_back = len(held_out) + 1
    if not _fits(query, run_date, num_back, step_days, first_event):
        earliest = _earliest_run_date(query, num_back, step_days, first_event)
        raise ValueError(
            f"run date {run_date:%Y-%m-%d} leaves no room for a training anchor: the first event "
            f"of '{query.target_table}' is of {first_event:%Y-%m-%d} and the earliest run date "
            f"that works is {earliest:%Y-%m-%d}."
        )
    newest = query.window.back(run_date, num_back)
    step = timedelta(days=_step(query, newest, step_days))
    wanted = [newest - i * step for i in range(num_train)]
    kept = [time for time in wanted if windows.is_visible(first_event + step, time)]
    if len(kept) < num_train:
        log.info(
            "snapshots: %d of %d training anchors, the first event is of %s",
            len(kept), num_train, first_event.date(),
        )  # fmt: skip
    train = [Anchor(time, schema.TRAIN) for time in reversed(kept)]
    held = [
        Anchor(query.window.back(run_date, i), split) for i, split in enumerate(held_out, start=1)
    ]
    return (*train, *reversed(held), Anchor(run_date, schema.SCORE))


def _step(query: Query, anchor: datetime, step_days: int | None) -> int:
    """Days between training anchors; months are as long as the newest one's window."""
    if step_days is not None:
        return step_days
    span = query.window.closes(anchor) - query.window.opens(anchor)
    return max(SHORTEST_DEFAULT_STEP_DAYS, span.days // 2)


def _fits(
    query: Query, run_date: datetime, num_back: int, step_days: int | None, first_event: datetime
) -> bool:
    newest = query.window.back(run_date, num_back)
    step = timedelta(days=_step(query, newest, step_days))
    return bool(windows.is_visible(first_event + step, newest))


def _earliest_run_date(
    query: Query, num_back: int, step_days: int | None, first_event: datetime
) -> datetime:
    """The first midnight from which a training anchor fits.

    The guess is early by a few days at most (a window of months and its step vary by as much),
    so the loop is short.
    """
    step = timedelta(days=_step(query, first_event, step_days))
    oldest = first_event + step - timedelta(days=3)
    guess = query.window.back(oldest, -num_back) - timedelta(days=3)
    run_date = guess.replace(hour=0, minute=0, second=0, microsecond=0)
    while not _fits(query, run_date, num_back, step_days, first_event):
        run_date += timedelta(days=1)
    return run_date
