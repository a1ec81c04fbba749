"""Event tables: rows up to the run date whose keys resolve, encoded, with node numbers."""

import logging
from collections.abc import Mapping
from datetime import datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recspark import schema
from recspark.encodings import TableEncoding
from recspark.prepare import columns
from recspark.prepare.nodes import with_nodes
from recspark.settings import Table
from recspark.windows import is_visible

log = logging.getLogger(__name__)

UNKNOWN_SPAN = 1 << 40  # stand-ins of unknown keys lie in [-2 - span, -2]


def encode(
    name: str,
    source: DataFrame,
    declared: Table,
    encoding: TableEncoding,
    *,
    numbered: Mapping[str, DataFrame],
    run_date: datetime,
) -> DataFrame:
    """`schema.EVENTS` without run date, for the events that may be inputs at the run date.

    Rows without a time, with a null foreign key, or with one that points to no existing row are
    left out, and counted in one log line.
    """
    visible = source.where(is_visible(_time(declared), F.lit(run_date)))
    joined = with_nodes(visible, encoding, numbered)
    _log_skipped(name, joined, encoding, source.where(_time(declared).isNull()).count())
    whole = F.forall(schema.NODES, lambda node: node.isNotNull())
    return _select(joined.where(whole), declared, encoding)


def after(
    source: DataFrame,
    declared: Table,
    encoding: TableEncoding,
    *,
    numbered: Mapping[str, DataFrame],
    run_date: datetime,
) -> DataFrame:
    """`schema.EVENTS` without run date, for the events after it: what came true.

    Only for scoring recommendations against. Keys that did not exist at the run date keep a
    negative stand-in number, so that an item launched later still counts as bought.
    """
    later = source.where(~is_visible(_time(declared), F.lit(run_date)))
    joined = with_nodes(later, encoding, numbered)
    stand_ins = [
        F.coalesce(
            F.col(schema.NODES)[position],
            F.lit(-2) - F.pmod(F.xxhash64(column), F.lit(UNKNOWN_SPAN)),
        )
        for position, (column, _) in enumerate(encoding.foreign_keys)
    ]
    for column, _ in encoding.foreign_keys:
        joined = joined.where(F.col(column).isNotNull())
    return _select(joined.withColumn(schema.NODES, F.array(*stand_ins)), declared, encoding)


def _select(joined: DataFrame, declared: Table, encoding: TableEncoding) -> DataFrame:
    return joined.select(
        _event_id(joined, declared).alias(schema.EVENT),
        _time(declared).alias(schema.TIME),
        F.col(schema.NODES),
        columns.numbers(encoding.numbers).alias(schema.NUMBERS),
        columns.codes(encoding.categories).alias(schema.CODES),
        columns.amounts(encoding.numbers).alias(schema.AMOUNTS),
    )


def _time(declared: Table) -> Column:
    return F.col(str(declared.time_column)).cast("timestamp")


def _event_id(joined: DataFrame, declared: Table) -> Column:
    if declared.primary_key is not None:
        return F.xxhash64(declared.primary_key)
    own = [c for c in sorted(joined.columns) if c != schema.NODES and not c.startswith("node_")]
    return F.xxhash64(*own)


def _log_skipped(name: str, joined: DataFrame, encoding: TableEncoding, without_time: int) -> None:
    counts = []
    for position, (column, _) in enumerate(encoding.foreign_keys):
        is_null = F.col(column).isNull()
        dangles = ~is_null & F.col(schema.NODES)[position].isNull()
        counts += [F.count(F.when(is_null, 1)).alias(f"{column} is null")]
        counts += [F.count(F.when(dangles, 1)).alias(f"{column} points to no row")]
    found = joined.agg(F.count("*").alias("rows"), *counts).collect()[0].asDict()
    total = found.pop("rows")
    found["time is null"] = without_time
    skipped = {reason: count for reason, count in found.items() if count}
    if skipped:
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in skipped.items())
        log.warning("tables.%s: of %s rows, skipped where %s", name, f"{total:,}", reasons)
