"""Items bought by the same people as what an entity bought, from the stage table of item states.

The score of an item is the sum, over what the entity bought, of the decayed number of days times
the cosine of the two items (Sarwar et al. 2001, doi 10.1145/371920.372071). Own items stay in; how
much an item says for itself is tried at 0 and at its cosine of 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

import numpy as np
from scipy import sparse

from recspark import files, schema
from recspark.evaluate.histories import Rows, Scores, decays


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
        on_sale, similar = _similar_items(self.files, rows.anchor)
        owners, items, _, _ = rows.purchases.add_up(rows.purchases.ages)
        # What is on sale has a state, but for items that nobody may buy any more.
        places = np.searchsorted(on_sale, items)
        known = places < len(on_sale)
        known[known] = on_sale[places[known]] == items[known]
        shape = (len(rows.entities), len(on_sale))
        for choice in self.choices:
            values = rows.purchases.add_up(decays(rows.purchases.ages, choice.half_life))[2]
            cells = (values[known], (owners[known], places[known]))
            own = sparse.csr_matrix(cells, shape=shape)
            total = (own @ similar + choice.own_similarity * own).tocsr()
            found = np.repeat(np.arange(shape[0]), np.diff(total.indptr))
            yield Scores(owners=found, items=on_sale[total.indices], values=total.data)


@lru_cache(maxsize=2)
def _similar_items(paths: tuple[str, ...], anchor: int) -> tuple[np.ndarray, sparse.csr_matrix]:
    """Items on sale at the anchor, ascending, and their cosines (items, items)."""
    moment = datetime(1970, 1, 1) + timedelta(microseconds=anchor)  # noqa: DTZ001 - UTC by contract
    columns = [schema.ITEM, schema.SIMILAR_ITEMS, schema.SIMILARITIES]
    table = files.read(paths, columns, moment).sort_by(schema.ITEM).combine_chunks()
    on_sale = table[schema.ITEM].to_numpy()
    similar = table[schema.SIMILAR_ITEMS].combine_chunks()
    others = similar.flatten().to_numpy()
    cosines = table[schema.SIMILARITIES].combine_chunks().flatten().to_numpy()
    owners = np.repeat(np.arange(len(on_sale)), similar.value_lengths().to_numpy())
    places = np.searchsorted(on_sale, others)
    known = places < len(on_sale)
    known[known] = on_sale[places[known]] == others[known]
    cells = (cosines[known].astype(np.float64), (owners[known], places[known]))
    matrix = sparse.csr_matrix(cells, shape=(len(on_sale), len(on_sale)))
    matrix.sort_indices()
    return on_sale, matrix
