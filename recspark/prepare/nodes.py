"""Node tables: rows that exist at the run date, numbered densely and encoded."""

import logging
from collections.abc import Mapping
from datetime import datetime

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from recspark import schema
from recspark.encodings import NUM_SPECIAL_CODES, TableEncoding
from recspark.prepare import columns
from recspark.prepare.trait_counts import UNKNOWN
from recspark.settings import Table
from recspark.windows import is_visible

log = logging.getLogger(__name__)

ROWS_PER_BUCKET = 250_000  # one sort of this many keys per task when numbering


def present(source: DataFrame, declared: Table, run_date: datetime) -> DataFrame:
    """The rows of a node table that exist at the run date: no start time, or one up to it."""
    if declared.time_column is None:
        return source
    start = F.col(declared.time_column).cast("timestamp")
    return source.where(start.isNull() | is_visible(start, F.lit(run_date)))


def check_keys(name: str, rows: DataFrame, declared: Table) -> int:
    """The number of rows, once every primary key is known to be there and unique.

    Raises:
        ValueError: an empty table, a null key, or a key that two rows share.
    """
    key = str(declared.primary_key)
    total, nulls = rows.agg(F.count("*"), F.count(F.when(F.col(key).isNull(), 1))).collect()[0]
    where = f"tables.{name} ('{declared.location}')"
    if total == 0:
        raise ValueError(
            f"{where} has no rows that exist at the run date; "
            f"write the table or choose a later run date."
        )
    if nulls:
        raise ValueError(
            f"{where}: {nulls:,} of {total:,} rows have no {key}; give each row its key."
        )
    twice = rows.groupBy(key).count().where(F.col("count") > 1)
    first = twice.orderBy(F.col(key)).limit(1).collect()
    if first:
        raise ValueError(
            f"{where}: primary key {key} = {first[0][key]!r} stands in {first[0]['count']} rows; "
            f"keep one row per {key}."
        )
    return int(total)


def number(rows: DataFrame, key: str, num_rows: int) -> DataFrame:
    """(key, node): dense numbers from 0, a function of the set of keys alone.

    Keys are spread over hash buckets, ranked inside their bucket, and shifted by the sizes of the
    buckets before, so no task sorts more than about `ROWS_PER_BUCKET` keys.
    """
    num_buckets = -(-num_rows // ROWS_PER_BUCKET)
    keys = rows.select(F.col(key).alias(schema.KEY))
    keys = keys.withColumn("bucket", F.pmod(F.xxhash64(schema.KEY), F.lit(num_buckets)))
    sizes = {row["bucket"]: row["count"] for row in keys.groupBy("bucket").count().collect()}
    offsets = [sum(sizes.get(b, 0) for b in range(bucket)) for bucket in range(num_buckets)]
    within = F.row_number().over(Window.partitionBy("bucket").orderBy(schema.KEY)) - 1
    before = F.element_at(F.array(*map(F.lit, offsets)), (F.col("bucket") + 1).cast("int"))
    return keys.select(schema.KEY, (before + within).cast("bigint").alias(schema.NODE))


def encode(
    rows: DataFrame,
    declared: Table,
    encoding: TableEncoding,
    numbered: DataFrame,
    *,
    parents: Mapping[str, DataFrame],
    text_buckets: int,
) -> DataFrame:
    """`schema.nodes` without run date and id code.

    `numbered` is what `number` made; `parents` holds it for the tables that foreign keys point to.
    """
    key = str(declared.primary_key)
    joined = rows.join(numbered.withColumnRenamed(schema.KEY, key), on=key, how="inner")
    joined = with_nodes(joined, encoding, parents)
    return joined.select(
        schema.NODE,
        F.col(key).alias(schema.KEY),
        _time_or_null(declared.time_column).alias(schema.START_TIME),
        _time_or_null(declared.end_time_column).alias(schema.END_TIME),
        F.transform(schema.NODES, lambda node: F.coalesce(node, F.lit(-1))).alias(schema.PARENTS),
        columns.numbers(encoding.numbers).alias(schema.NUMBERS),
        columns.codes(encoding.categories).alias(schema.CODES),
        columns.times(encoding.times).alias(schema.TIMES),
        columns.buckets(encoding.texts, text_buckets).alias(schema.BUCKETS),
    )


def traits(encoded: DataFrame, name: str) -> DataFrame:
    """(node as `name`, traits): per category its place among the values, per key the node.

    `UNKNOWN` where null, dangling, or a value that training did not see.
    """
    places = F.transform(
        schema.CODES, lambda code: F.greatest(code - NUM_SPECIAL_CODES, F.lit(UNKNOWN))
    )
    both = F.concat(places, F.col(schema.PARENTS).cast("array<int>"))
    return encoded.select(F.col(schema.NODE).alias(name), both.alias(schema.TRAITS))


def with_nodes(
    rows: DataFrame, encoding: TableEncoding, numbered: Mapping[str, DataFrame]
) -> DataFrame:
    """Add `nodes`: per foreign key the node it points to, null where null or dangling."""
    for position, (column, table) in enumerate(encoding.foreign_keys):
        found = numbered[table].select(
            F.col(schema.KEY).alias(column), F.col(schema.NODE).alias(f"node_{position}")
        )
        rows = rows.join(found, on=column, how="left")
    nodes = [F.col(f"node_{position}") for position in range(len(encoding.foreign_keys))]
    return rows.withColumn(schema.NODES, F.array(*nodes).cast("array<bigint>"))


def with_id_codes(encoded: DataFrame, item_keys: tuple[str, ...] | None) -> DataFrame:
    """Add `id_code`: i + 1 for `item_keys[i]`, 0 for other keys and for tables without ids."""
    if not item_keys:
        return encoded.withColumn(schema.ID_CODE, F.lit(0))
    known = encoded.sparkSession.createDataFrame(
        list(enumerate(item_keys, start=1)), f"{schema.ID_CODE} int, known_key string"
    )
    joined = encoded.join(
        F.broadcast(known), on=F.col(schema.KEY).cast("string") == F.col("known_key"), how="left"
    )
    return joined.withColumn(schema.ID_CODE, F.coalesce(schema.ID_CODE, F.lit(0)))


def _time_or_null(column: str | None) -> Column:
    return (F.lit(None) if column is None else F.col(column)).cast("timestamp")
