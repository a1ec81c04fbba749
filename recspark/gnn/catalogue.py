"""What every rank holds of the node tables other than the entities': it grows with items only.

Axes: N nodes, F numbers, C categories, T timestamps (or trend columns), P parents, I items.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from recspark import schema, windows
from recspark.encodings import Encodings, TableEncoding
from recspark.gnn import arrow

NODE_COLUMNS = (
    schema.NODE, schema.START_TIME, schema.END_TIME, schema.ID_CODE, schema.PARENTS,
    schema.NUMBERS, schema.CODES, schema.TIMES, schema.BUCKETS,
)  # fmt: skip
ITEM_STATE_COLUMNS = (schema.ANCHOR_TIME, schema.ITEM, schema.TREND)


@dataclass(frozen=True, kw_only=True)
class Features:
    """The feature columns of some nodes of one table."""

    numbers_NF: Tensor  # float32, NaN where missing
    codes_NC: Tensor  # int64
    times_NT: Tensor  # float64 days since 1970, NaN where missing
    buckets: Tensor  # int64, the text buckets of all nodes one after the other
    bucket_offsets: Tensor  # int64 (N + 1,), where each node's buckets start

    def rows(self, nodes_M: Tensor) -> Self:
        """The features of these rows, in this order; rows may repeat."""
        starts_M = self.bucket_offsets[nodes_M]
        lengths_M = self.bucket_offsets[nodes_M + 1] - starts_M
        offsets = torch.cat([lengths_M.new_zeros(1), lengths_M.cumsum(0)])
        shift = torch.repeat_interleave(starts_M - offsets[:-1], lengths_M)
        within = torch.arange(len(shift), device=shift.device)
        return type(self)(
            numbers_NF=self.numbers_NF[nodes_M],
            codes_NC=self.codes_NC[nodes_M],
            times_NT=self.times_NT[nodes_M],
            buckets=self.buckets[shift + within],
            bucket_offsets=offsets,
        )

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        return type(self)(**{name: value.to(device) for name, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class NodeTable:
    """A whole node table; row n is node n."""

    features: Features
    parents_NP: Tensor  # int64, -1 where there is none
    id_codes_N: Tensor  # int64
    start_days_N: Tensor  # float64, -inf where it always existed
    end_days_N: Tensor  # float64, exclusive, +inf where it has no end

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        return type(self)(**{name: value.to(device) for name, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """Node tables by name, and what is known of each item at each anchor."""

    item_table: str
    tables: Mapping[str, NodeTable]
    trends: Mapping[float, Tensor]  # anchor in days -> (I, T) float32, NaN rows for absent items
    # What the item tower makes of whole anchors; filled as training asks for them.
    encoded_trends: dict[float, Tensor] = field(default_factory=dict)

    @classmethod
    def from_arrow(
        cls, nodes: Mapping[str, pa.Table], item_states: pa.Table, encodings: Encodings
    ) -> Self:
        """Build from `nodes_<table>` (of all node tables but the entities') and `item_states`."""
        tables = {name: _node_table(nodes[name], encodings.nodes[name]) for name in nodes}
        num_items = len(tables[encodings.item_table].id_codes_N)
        anchors = arrow.days(item_states[schema.ANCHOR_TIME], null=np.nan)
        items = item_states[schema.ITEM].to_numpy()
        width = len(encodings.trend_names)
        trend = arrow.matrix(item_states[schema.TREND], width, np.float32)
        trends = {}
        for anchor in np.unique(anchors):
            rows = anchors == anchor
            at_anchor = np.full((num_items, width), np.nan, np.float32)
            at_anchor[items[rows]] = trend[rows]
            trends[float(anchor)] = torch.from_numpy(at_anchor)
        return cls(item_table=encodings.item_table, tables=tables, trends=trends)

    @property
    def num_items(self) -> int:
        """Number of rows of the item table."""
        return len(self.tables[self.item_table].id_codes_N)

    def available(self, anchor_days: float) -> Tensor:
        """Whether each item is on sale at the anchor, bool (I,)."""
        items = self.tables[self.item_table]
        on_sale: Tensor = windows.exists(items.start_days_N, items.end_days_N, anchor_days)
        return on_sale

    def trend(self, anchor_days: float) -> Tensor:
        """What is known of each item at the anchor, float32 (I, T), NaN where unknown.

        Raises:
            ValueError: when `item_states` has no rows of this anchor.
        """
        if anchor_days not in self.trends:
            raise ValueError(
                f"item_states has no anchor {anchor_days} (days since 1970); "
                f"it has {sorted(self.trends)}."
            )
        return self.trends[anchor_days]

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        return type(self)(
            item_table=self.item_table,
            tables={name: table.to(device) for name, table in self.tables.items()},
            trends={anchor: trend.to(device) for anchor, trend in self.trends.items()},
        )


def _node_table(rows: pa.Table, encoding: TableEncoding) -> NodeTable:
    rows = rows.sort_by(schema.NODE).combine_chunks()
    assert np.array_equal(rows[schema.NODE].to_numpy(), np.arange(rows.num_rows)), "nodes not dense"
    buckets, bucket_offsets = arrow.ragged(rows[schema.BUCKETS], np.int64)
    widths = {
        schema.NUMBERS: (len(encoding.numbers), np.float32),
        schema.CODES: (len(encoding.categories), np.int64),
        schema.TIMES: (len(encoding.times), np.float64),
        schema.PARENTS: (len(encoding.foreign_keys), np.int64),
    }
    column = {
        name: torch.from_numpy(arrow.matrix(rows[name], width, dtype))
        for name, (width, dtype) in widths.items()
    }
    return NodeTable(
        features=Features(
            numbers_NF=column[schema.NUMBERS],
            codes_NC=column[schema.CODES],
            times_NT=column[schema.TIMES],
            buckets=torch.from_numpy(buckets),
            bucket_offsets=torch.from_numpy(bucket_offsets),
        ),
        parents_NP=column[schema.PARENTS],
        id_codes_N=torch.from_numpy(
            rows[schema.ID_CODE].to_numpy(zero_copy_only=False).astype(np.int64)
        ),
        start_days_N=torch.from_numpy(arrow.days(rows[schema.START_TIME], null=-np.inf)),
        end_days_N=torch.from_numpy(arrow.days(rows[schema.END_TIME], null=np.inf)),
    )
