"""What decides a demo shop: the same `Shop` is the same rows, on any cluster."""

from dataclasses import dataclass
from datetime import date, timedelta

SECONDS_PER_DAY = 86_400
LINES_PER_USER = 100_000  # ids of a user's transactions lie in a range of this size
_MOST_EVENTS_PER_USER = 1_000  # on average; the busiest users buy some forty times as much
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shop:
    """The size, the seed and the dates of a demo shop."""

    num_users: int
    num_items: int
    num_events: int  # transactions to aim at; what comes out differs by a few percent
    seed: int
    until: date  # the history ends here, exclusive
    num_days: int = 548  # length of the history: 18 months

    def __post_init__(self) -> None:
        counts = {"users": self.num_users, "items": self.num_items, "events": self.num_events}
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"demo shop: {name} should be at least 1, got {count}.")
        if self.num_days < 90:
            raise ValueError(
                f"demo shop: days should be at least 90 for trends and rhythms to show, "
                f"got {self.num_days}."
            )
        if self.num_events > self.num_users * _MOST_EVENTS_PER_USER:
            raise ValueError(
                f"demo shop: {self.num_events} events are more than {_MOST_EVENTS_PER_USER} for "
                f"each of {self.num_users} users; ask for more users or fewer events."
            )

    @property
    def first_day(self) -> int:
        """The first day of the history, in days since 1970."""
        return self.end_day - self.num_days

    @property
    def end_day(self) -> int:
        """The day after the last one of the history, in days since 1970."""
        return (self.until - _EPOCH) // timedelta(days=1)
