"""What a query will do, in words and dates, before anything is read."""

from collections.abc import Iterable
from datetime import datetime
from typing import Protocol

from recspark.query.nodes import Query
from recspark.schema import SCORE


class Anchor(Protocol):
    """A moment and the split that it serves."""

    @property
    def time(self) -> datetime:
        """Inputs are at or before it."""

    @property
    def split(self) -> str:
        """One of the splits of `recspark.schema`."""


def explain(query: Query, anchors: Iterable[Anchor]) -> str:
    """Text that names the keys, the filter and K, and for each anchor its inputs and labels."""
    lines = [
        str(query),
        f"  recommends   {query.k} rows of {query.item_table}, by "
        f"{query.target_table}.{query.target_item_key}",
        f"  to each      {query.entity}, by {query.target_table}.{query.target_entity_key}",
        f"  where        {query.where if query.where is not None else 'every row'}",
        "",
        "  split       inputs up to         labels after         labels up to",
    ]
    for anchor in sorted(anchors, key=lambda anchor: anchor.time):
        if anchor.split == SCORE:
            bounds = "none: this is what is predicted"
        else:
            opens, closes = query.window.opens(anchor.time), query.window.closes(anchor.time)
            bounds = f"{opens:%Y-%m-%d %H:%M:%S}  {closes:%Y-%m-%d %H:%M:%S}"
        lines.append(f"  {anchor.split:<10}  {anchor.time:%Y-%m-%d %H:%M:%S}  {bounds}")
    return "\n".join(lines)
