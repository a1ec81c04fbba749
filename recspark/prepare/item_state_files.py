"""Item states read on a worker from their Parquet files, once per process and anchor."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import sparse

from recspark import files, schema
from recspark.prepare.arrow_rows import Array, column, moment

_COLUMNS = [
    schema.ITEM,
    schema.TREND,
    schema.SIMILAR_ITEMS,
    schema.SIMILARITIES,
]


@dataclass(frozen=True, eq=False)
class ItemStates:
    """The items that exist at one anchor, by position: 0..N-1 in the order of their nodes."""

    nodes: Array  # int64 (N,), ascending
    trend: Array  # float32 (N, T)
    similar: sparse.csr_matrix  # float32 (N, N): row i holds the cosines of its similar items

    def position(self, items: Array) -> Array:
        """Position of each item node, -1 for one that does not exist at the anchor."""
        if not len(self.nodes):
            return np.full(len(items), -1)
        place = np.minimum(np.searchsorted(self.nodes, items), len(self.nodes) - 1)
        return np.where(self.nodes[place] == items, place, -1)


@lru_cache(maxsize=2)
def load(paths: tuple[str, ...], anchor: int) -> ItemStates:
    """The item states of one anchor (microseconds since 1970).

    `paths` are local files or URIs, without their partition columns; the result is cached, and
    must not be changed.
    """
    table = files.read(paths, _COLUMNS, moment(anchor)).sort_by(schema.ITEM)
    if not table.num_rows:
        none = np.empty(0, dtype=np.int64)
        empty = sparse.csr_matrix((0, 0), dtype=np.float32)
        return ItemStates(none, np.empty((0, 0), dtype=np.float32), empty)
    nodes = column(table, schema.ITEM)
    num_items = len(nodes)
    trend = table[schema.TREND].combine_chunks().flatten().to_numpy().reshape(num_items, -1)
    similar = table[schema.SIMILAR_ITEMS].combine_chunks()
    owner = np.repeat(np.arange(num_items), similar.value_lengths().to_numpy())
    values = table[schema.SIMILARITIES].combine_chunks().flatten().to_numpy()
    states = ItemStates(nodes, trend, sparse.csr_matrix((num_items, num_items)))
    place = states.position(similar.flatten().to_numpy())
    known = place >= 0
    cells = (values[known].astype(np.float32), (owner[known], place[known]))
    matrix = sparse.csr_matrix(cells, shape=(num_items, num_items))
    matrix.sort_indices()
    return ItemStates(nodes, trend, matrix)
