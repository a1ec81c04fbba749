"""What an entity bought before, by decayed number of days: equals go by popularity.

GP-TopFreq of the next-basket literature (Li et al. 2023, doi 10.1145/3587153), with decay.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from recspark.evaluate.histories import Rows, Scores, decays


@dataclass(frozen=True, kw_only=True)
class Frequency:
    """A purchase weighs 2^(-age / half_life); half-lives in days, None: no decay."""

    choices: tuple[float | None, ...]

    def score(self, rows: Rows) -> Iterator[Scores]:
        """Own items only."""
        for half_life in self.choices:
            purchases = rows.purchases
            owners, items, values, weights = purchases.add_up(decays(purchases.ages, half_life))
            yield Scores(owners=owners, items=items, values=values, ties=weights)
