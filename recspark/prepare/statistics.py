"""Fits the encodings: which columns are read how, on what training anchors may see.

A numeric column is standardised, a string column becomes a category or text by what is in it, a
boolean a category, a timestamp of a node table an age. Everything is computed on rows that exist
at the newest training anchor.
"""

import logging
from collections.abc import Mapping
from datetime import datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import schema
from recspark.encodings import Category, Number, TableEncoding
from recspark.prepare.columns import signed_log
from recspark.settings import Table
from recspark.windows import is_visible

log = logging.getLogger(__name__)

TIME_TYPES = ("timestamp", "timestamp_ntz", "date")
TEXT_MIN_WORDS = 1.5  # a string column with this many words per value, or more, is text
SIGNIFICANT_DIGITS = 6  # rounds away the order in which partitions were summed


def fit_table(
    name: str,
    source: DataFrame,
    declared: Table,
    *,
    is_event: bool,
    newest_train_anchor: datetime,
    max_categories: int,
) -> TableEncoding:
    """Decide for each column of a source table how it is read.

    Keys and the columns under `ignore` are left out; so are timestamps of event tables, whose
    value may lie after the event and so after the anchor. Columns of other types are named in the
    log and left out.
    """
    seen = source
    if declared.time_column is not None:
        seen = source.where(is_visible(F.col(declared.time_column), F.lit(newest_train_anchor)))
    kinds = _kinds(name, seen, declared, is_event)
    text_columns, category_columns = _split_strings(seen, kinds, max_categories)
    number_columns = [c for c, kind in kinds.items() if kind == "number"]
    time_columns = [c for c, kind in kinds.items() if kind == "time"]
    if not is_event and declared.time_column is not None:
        time_columns.append(declared.time_column)
    return TableEncoding(
        numbers=_fit_numbers(seen, number_columns),
        categories=_fit_categories(seen, category_columns, max_categories),
        times=tuple(time_columns),
        texts=() if is_event else tuple(text_columns),
        foreign_keys=tuple(declared.foreign_keys.items()),
    )


def _kinds(name: str, source: DataFrame, declared: Table, is_event: bool) -> dict[str, str]:
    """Column to number, string, category or time, for the columns that are read."""
    keys = {declared.primary_key, declared.time_column, declared.end_time_column}
    skipped = keys | set(declared.foreign_keys) | set(declared.ignore)
    kinds: dict[str, str] = {}
    for field in source.schema.fields:
        kind = field.dataType.simpleString().partition("(")[0]
        if field.name in skipped:
            continue
        if schema.is_number(kind):
            kinds[field.name] = "number"
        elif kind == "boolean":
            kinds[field.name] = "category"
        elif kind in ("string", "varchar", "char"):
            kinds[field.name] = "string"
        elif kind in TIME_TYPES and not is_event:
            kinds[field.name] = "time"
        else:
            log.info("tables.%s: column '%s' (%s) is not read as a feature", name, field.name, kind)
    return kinds


def _split_strings(
    seen: DataFrame, kinds: Mapping[str, str], max_categories: int
) -> tuple[list[str], list[str]]:
    """String columns as (text, category): text has many values of several words each."""
    strings = [column for column, kind in kinds.items() if kind == "string"]
    booleans = [column for column, kind in kinds.items() if kind == "category"]
    if not strings:
        return [], booleans
    measures = []
    for column in strings:
        words = F.size(F.split(F.trim(F.col(column)), r"\s+"))
        measures += [F.approx_count_distinct(column).alias(f"distinct_{column}")]
        measures += [F.avg(words.cast("double")).alias(f"words_{column}")]
    measured = seen.agg(*measures).collect()[0]
    texts = [
        column
        for column in strings
        if measured[f"distinct_{column}"] > max_categories
        and (measured[f"words_{column}"] or 0.0) >= TEXT_MIN_WORDS
    ]
    return texts, [column for column in strings if column not in texts] + booleans


def _fit_numbers(seen: DataFrame, columns: list[str]) -> tuple[Number, ...]:
    if not columns:
        return ()
    measures = [F.avg(signed_log(column)).alias(f"mean_{column}") for column in columns]
    measures += [F.stddev_pop(signed_log(column)).alias(f"spread_{column}") for column in columns]
    measured = seen.agg(*measures).collect()[0]
    return tuple(
        Number(
            column=column,
            center=_rounded(measured[f"mean_{column}"] or 0.0),
            scale=_rounded(measured[f"spread_{column}"] or 0.0) or 1.0,
        )
        for column in columns
    )


def _rounded(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def _fit_categories(
    seen: DataFrame, columns: list[str], max_categories: int
) -> tuple[Category, ...]:
    """The most frequent values of each column; equal counts by value."""
    fitted = []
    for column in columns:
        value = F.col(column).cast("string").alias("value")
        counted = seen.select(value).where(F.col("value").isNotNull()).groupBy("value").count()
        kept = counted.orderBy(F.desc("count"), "value").limit(max_categories).collect()
        fitted.append(Category(column=column, values=tuple(row["value"] for row in kept)))
    return tuple(fitted)
