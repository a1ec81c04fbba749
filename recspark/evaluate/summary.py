"""What a backtest over several dates and seeds shows together."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import reduce
from operator import add
from typing import Any

from recspark.evaluate import comparison, metrics
from recspark.evaluate.bootstrap import Interval
from recspark.evaluate.comparison import Slice
from recspark.evaluate.totals import Totals

STD = "std"  # of MAP@K over seeds, each the mean over dates; NaN where there is one seed only


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One date with one seed."""

    as_of: date
    seed: int
    totals: Totals


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Means over dates and seeds, and the intervals of all users of all of them together."""

    num_dates: int
    num_seeds: int
    num_users: int  # users of all dates, each once per date
    methods: dict[str, dict[str, float]]  # method -> metric, and STD, ours first
    intervals: dict[str, Interval]  # baseline -> ours minus it in MAP@K
    best_baseline: str  # by its mean MAP@K
    slices: tuple[Slice, ...]

    def to_json(self) -> dict[str, Any]:
        """The summary as a backtest writes it; NaN becomes null."""
        return {
            "num_dates": self.num_dates,
            "num_seeds": self.num_seeds,
            "num_users": self.num_users,
            "methods": {m: comparison.without_nan(of) for m, of in self.methods.items()},
            "intervals": {name: one.to_json() for name, one in self.intervals.items()},
            "best_baseline": self.best_baseline,
            "slices": {part.name: part.to_json() for part in self.slices},
        }


def summarize(runs: Sequence[Judged], ours: str) -> Summary:
    """Of every date with every seed.

    A mean is that of the means of the dates, so that each date counts the same. Intervals add up
    users instead: all rows of one user, over dates and seeds, are drawn together.

    Args:
        runs: each date with each seed once, all of the same methods.
        ours: name of the method that is compared with the others.
    """
    dates, seeds = ({getattr(run, name) for run in runs} for name in ("as_of", "seed"))
    assert len({(run.as_of, run.seed) for run in runs}) == len(runs) == len(dates) * len(seeds)
    together = reduce(add, [run.totals for run in runs])
    map_name = metrics.name(metrics.MAP, together.k)
    means = [(run.seed, run.totals.means()) for run in runs]
    methods = {}
    for method in together.methods:
        values = {
            metric: statistics.fmean(of[method][metric] for _, of in means)
            for metric in metrics.names(together.k)
        }
        of_seeds = [
            statistics.fmean(of[method][map_name] for seed, of in means if seed == one)
            for one in sorted(seeds)
        ]
        values[STD] = statistics.stdev(of_seeds) if len(of_seeds) > 1 else math.nan
        methods[method] = values
    others = [name for name in together.methods if name != ours]
    best = max(others, key=lambda name: methods[name][map_name])
    found = {name: together.interval(ours, name) for name in others}
    return Summary(
        num_dates=len(dates),
        num_seeds=len(seeds),
        num_users=together.num_users() // len(seeds),
        methods=methods,
        intervals={name: one for name, one in found.items() if one is not None},
        best_baseline=best,
        slices=comparison.slices_of(together, ours, best),
    )
