"""The spans of time that candidates and features are computed over."""

from dataclasses import dataclass
from typing import Self

PACES_PER_GAP = 6  # so that the longest half-life, of twelve paces, holds two usual gaps


@dataclass(frozen=True, kw_only=True)
class TimeScales:
    """What is asked about, and what is lately: the same where customers come often."""

    horizon: float  # length of the label window, days
    pace: float  # half-lives are multiples of it, and what is younger is recent; days

    @classmethod
    def of(cls, *, horizon_days: float, usual_gap_days: float | None) -> Self:
        """The pace is the horizon or, where that is longer, a sixth of the customers' usual gap.

        A horizon of a day says nothing about how long a purchase of customers who come every two
        months matters. `usual_gap_days` is that of `statistics.usual_gap`.
        """
        of_gap = (usual_gap_days or 0.0) / PACES_PER_GAP
        return cls(horizon=horizon_days, pace=max(horizon_days, of_gap))
