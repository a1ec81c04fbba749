"""Which nodes exist at an anchor, as Spark sees it: a missing bound is no bound."""

from typing import cast

from pyspark.sql import Column
from pyspark.sql import functions as F

from recspark import schema, windows


def exists_at(anchor: Column) -> Column:
    """Whether the node beside it (start_time, end_time) exists; null: from always, without end."""
    # A null bound is replaced by one that the anchor is sure to satisfy.
    start = F.coalesce(schema.START_TIME, anchor)
    end = F.coalesce(schema.END_TIME, anchor + F.expr("INTERVAL 1 DAY"))
    return cast(Column, windows.exists(start, end, anchor))
