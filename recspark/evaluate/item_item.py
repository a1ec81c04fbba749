"""Items bought by the same people as what an entity bought, from the stage table of item states.

The score of an item is the sum, over what the entity bought, of the decayed number of days times
the cosine of the two items (Sarwar et al. 2001, doi 10.1145/371920.372071). Own items stay in; how
much an item says for itself is tried at 0 and at its cosine of 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from recspark.evaluate.histories import Rows, Scores, decays
from recspark.prepare import item_state_files


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How fast purchases are forgotten, and what an item says for itself."""

    half_life: float | None  # days; None: no decay
    own_similarity: float  # cosine of an item with itself: 1, or 0 to leave it out


@dataclass(frozen=True, kw_only=True)
class ItemItem:
    """Reads the item states where it runs: the similar items of one anchor, a limited number each.

    Its items are those on sale at the anchor.
    """

    choices: tuple[Choice, ...]
    files: tuple[str, ...]  # Parquet files of schema.ITEM_STATES

    def score(self, rows: Rows) -> Iterator[Scores]:
        """Own items and what is similar to them."""
        states = item_state_files.load(self.files, rows.anchor)
        owners, items, _, _ = rows.purchases.add_up(rows.purchases.ages)
        places = states.position(items)  # -1 for items that nobody may buy any more
        known = places >= 0
        shape = (len(rows.entities), len(states.nodes))
        for choice in self.choices:
            values = rows.purchases.add_up(decays(rows.purchases.ages, choice.half_life))[2]
            cells = (values[known], (owners[known], places[known]))
            own = sparse.csr_matrix(cells, shape=shape)
            total = (own @ states.similar + choice.own_similarity * own).tocsr()
            found = np.repeat(np.arange(shape[0]), np.diff(total.indptr))
            yield Scores(owners=found, items=states.nodes[total.indices], values=total.data)
