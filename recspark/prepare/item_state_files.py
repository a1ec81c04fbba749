"""Item states read on a worker from their Parquet files, once per process and anchor."""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy import sparse

from recspark import files, schema
from recspark.prepare.arrow_rows import Array, column, matrix, moment

_COLUMNS = [
    schema.ITEM,
    schema.TREND,
    schema.TRAITS,
    schema.SIMILAR_ITEMS,
    schema.SIMILARITIES,
]


@dataclass(frozen=True, eq=False)
class ItemStates:
    """The items that exist at one anchor, by position: 0..N-1 in the order of their nodes."""

    nodes: Array  # int64 (N,), ascending
    trend: Array  # float32 (N, T)
    traits: Array  # int64 (N, W): columns as `FeatureSchema.item_traits`, -1 where an item has none
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
    nodes = column(table, schema.ITEM)
    num_items = len(nodes)
    states = ItemStates(
        nodes=nodes,
        trend=matrix(table, schema.TREND),
        traits=matrix(table, schema.TRAITS).astype(np.int64),
        similar=sparse.csr_matrix((num_items, num_items), dtype=np.float32),
    )
    similar = table[schema.SIMILAR_ITEMS].combine_chunks()
    owner = np.repeat(np.arange(num_items), similar.value_lengths().to_numpy())
    values = table[schema.SIMILARITIES].combine_chunks().flatten().to_numpy()
    place = states.position(similar.flatten().to_numpy())
    known = place >= 0
    cells = (values[known].astype(np.float32), (owner[known], place[known]))
    by_item = sparse.csr_matrix(cells, shape=(num_items, num_items))
    by_item.sort_indices()
    return replace(states, similar=by_item)
