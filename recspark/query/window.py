"""The span of time after an anchor in which a query looks for its labels."""

import calendar
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar

from recspark.settings import nearest

MAX_WINDOW_DAYS = 3660  # ten years: beyond it a window is a slip of the pen


@dataclass(frozen=True, slots=True)
class Window:
    """The span of labels after an anchor, (anchor + start, anchor + end], in whole units.

    A month is a calendar month: Jan 31 and one month is Feb 28 (or 29).
    """

    DAYS: ClassVar[dict[str, int]] = {"days": 1, "weeks": 7, "months": 30}

    start: int
    end: int
    unit: str  # days, weeks or months

    def __post_init__(self) -> None:
        if self.unit not in self.DAYS:
            raise ValueError(f"unknown unit '{self.unit}'{nearest(self.unit, self.DAYS)}")
        if self.start < 0:
            raise ValueError(
                f"the window starts at {self.start}, before the anchor; start at 0 or later."
            )
        if self.end <= self.start:
            raise ValueError(
                f"the window ends at {self.end}, not after its start {self.start}; "
                f"write the start first and a larger end."
            )
        if self.end * self.DAYS[self.unit] > MAX_WINDOW_DAYS:
            raise ValueError(f"the window ends {self.end} {self.unit} ahead; 10 years is the most.")

    def opens(self, anchor: datetime) -> datetime:
        """Labels lie after this moment."""
        return self._shift(anchor, self.start)

    def closes(self, anchor: datetime) -> datetime:
        """Labels lie at or before this moment."""
        return self._shift(anchor, self.end)

    def back(self, anchor: datetime, n: int) -> datetime:
        """The anchor `n` windows (0 to their end) earlier.

        `closes(back(anchor, n)) <= back(anchor, n - 1)`: equal, except that months step back from
        the anchor's own day, so that one from Mar 31 is Feb 28 and closes on Mar 28.
        """
        return self._shift(anchor, -n * self.end)

    def _shift(self, moment: datetime, count: int) -> datetime:
        if self.unit != "months":
            return moment + timedelta(days=count * self.DAYS[self.unit])
        years, month = divmod(moment.year * 12 + moment.month - 1 + count, 12)
        last_day = calendar.monthrange(years, month + 1)[1]
        return moment.replace(year=years, month=month + 1, day=min(moment.day, last_day))

    def __str__(self) -> str:
        return f"{self.start}, {self.end}, {self.unit}"
