"""How often an item is bought again by who bought it, and after how long. numpy only.

Axes: N items, G gaps between two purchases of a pair on different days, O owners of an item.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from recspark.prepare.arrow_rows import Array, differs
from recspark.prepare.pair_history import ratio


@dataclass(frozen=True, eq=False)
class Spells:
    """From a purchase of an item to the next one by the same entity, on a later day."""

    num_items: int
    item: Array  # int64 (G,), positions, ascending
    days: Array  # float64 (G,), > 0
    owned: Array  # int64 (O,), positions: one entry per entity that bought the item
    is_again: Array  # boolean (O,), on several days

    @classmethod
    def of(cls, item: Array, entity: Array, age: Array, num_items: int) -> Self:
        """From purchases ordered by item, entity and time (oldest first); ages in days."""
        days = differs(item, entity, np.floor(age))
        item, entity, age = item[days], entity[days], age[days]
        first = differs(item, entity)
        last = np.append(first, True)[1:]
        return cls(
            num_items=num_items,
            item=item[~first],
            days=age[np.flatnonzero(~first) - 1] - age[~first],
            owned=item[last],
            is_again=~first[last],
        )

    def repeat_rate(self) -> Array:
        """Share of an item's buyers who bought it on several days, float64 (N,); NaN: no buyers."""
        again = np.bincount(self.owned[self.is_again], minlength=self.num_items)
        return ratio(again, np.bincount(self.owned, minlength=self.num_items))

    def median_days(self) -> Array:
        """The lower median of each item's spells, float64 (N,); NaN without any."""
        days = np.append(self.days[np.lexsort((self.days, self.item))], np.nan)
        counts = np.bincount(self.item, minlength=self.num_items)
        start = np.cumsum(counts) - counts
        return np.where(counts > 0, days[start + (counts - 1) // 2 * (counts > 0)], np.nan)
