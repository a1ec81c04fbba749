"""Checks the recommendations of one run and writes them to the output table, all or nothing."""

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import cast

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from recspark import schema, tables

log = logging.getLogger(__name__)

ENTITY_ID = f"{schema.ENTITY}_id"
ITEM_ID = f"{schema.ITEM}_id"
OPTIONAL = (schema.REASON,)  # every other column is never null

# What the table itself refuses, whoever writes to it. K is not part of it: it may change from run
# to run. A NaN is larger than every number in Spark, so the bound of the score refuses it too.
# Few, since each costs a commit when the table is created.
CHECKS = {
    "keys_present": " AND ".join(
        f"{column} IS NOT NULL" for column in (schema.RUN_DATE, schema.QUERY, ENTITY_ID, ITEM_ID)
    ),
    "rank_from_1": f"{schema.RANK} IS NOT NULL AND {schema.RANK} >= 1",
    "score_finite": (
        f"{schema.SCORE_VALUE} IS NOT NULL AND abs({schema.SCORE_VALUE}) < 1.7976931348623157E308D"
    ),
}


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What the rows were made from; kept as the commit's `userMetadata`."""

    input_versions: Mapping[str, int]  # source table -> version of it that was read
    model_name: str
    model_version: int
    run_id: str


def write(
    recommendations: DataFrame,
    path: str,
    *,
    entity_type: str,
    item_type: str,
    run_date: date,
    query: str,
    num_entities: int,
    num_items_on_sale: int,
    k: int,
    provenance: Provenance,
) -> int:
    """Replace the slice (`run_date`, `query`) of the table at `path`.

    `recommendations` has the columns of `schema.recommendations(entity_type, item_type)`; the
    types are Spark's simple names of the two primary keys' types. Its plan runs once. The table
    is created with `CHECKS` when it is not there. Logs one line.

    Returns:
        The version of the table that holds the rows.

    Raises:
        ValueError: no item is on sale, or the table at `path` has other columns.
        RuntimeError: a row that breaks the promise of `verify`; nothing is written.
    """
    started = time.monotonic()
    ddl = schema.recommendations(entity_type, item_type)
    if num_items_on_sale < 1:
        raise ValueError(
            f"recommendations: no item is on sale for run date {run_date}; check the time columns "
            f"of the items table."
        )
    require_schema(recommendations.sparkSession, path, ddl)
    rows = tables.conform(recommendations, ddl, "recommendations")
    # Kept for the write: what was checked is what is written, and scoring runs once.
    rows.persist(StorageLevel.MEMORY_AND_DISK)
    try:
        rows_per_entity = min(k, num_items_on_sale)
        verify(rows, num_entities=num_entities, rows_per_entity=rows_per_entity)
        version = tables.replace_slice(
            rows,
            path,
            slice_values={schema.RUN_DATE: run_date, schema.QUERY: query},
            metadata=asdict(provenance),
            checks=CHECKS,
        )
    finally:
        rows.unpersist()
    log.info(
        "recommendations: %s rows for %s of %s in %s, %.1f s",
        f"{num_entities * rows_per_entity:,}", f"{num_entities:,}", query, path,
        time.monotonic() - started,
    )  # fmt: skip
    return version


def verify(recommendations: DataFrame, *, num_entities: int, rows_per_entity: int) -> None:
    """Check the rows of one run in one aggregate.

    Promised are `num_entities` entities with exactly `rows_per_entity` rows each, ranks 1, 2, ...,
    finite scores that strictly decrease by rank, no item twice, no null except in `reason`.

    Raises:
        RuntimeError: the first promise that is broken, with an entity that breaks it.
    """
    entity, rank, score = F.col(ENTITY_ID), F.col(schema.RANK), F.col(schema.SCORE_VALUE)
    required = [c for c in recommendations.columns if c not in OPTIONAL]
    has_null = F.greatest(*[F.col(column).isNull() for column in required])
    finite = score.isNotNull() & ~F.isnan(score) & (F.abs(score) < F.lit(float("inf")))
    by_rank = F.array_sort(F.collect_list(F.struct(rank.alias("rank"), score.alias("score"))))
    per_entity = recommendations.groupBy(entity).agg(
        F.bool_or(has_null).alias("has_null"),
        F.count(F.lit(1)).alias("num_rows"),
        F.size(F.collect_set(ITEM_ID)).alias("num_items"),
        F.bool_and(finite).alias("finite"),
        by_rank.alias("by_rank"),
    )
    ranks = F.transform("by_rank", lambda pair: pair["rank"].cast("bigint"))
    scores = F.transform("by_rank", lambda pair: pair["score"])
    faults: dict[str, tuple[Column, str]] = {
        "null": (F.col("has_null"), "has a null"),
        "rows": (F.col("num_rows") != rows_per_entity, f"has not exactly {rows_per_entity} rows"),
        "ranks": (
            ranks != F.sequence(F.lit(1).cast("bigint"), F.col("num_rows")),
            "has ranks other than 1, 2, 3, ...",
        ),
        "finite": (~F.col("finite"), "has a score that is not finite"),
        "order": (~_strictly_decreasing(scores), "has scores that do not decrease by rank"),
        "items": (F.col("num_items") != F.col("num_rows"), "has an item twice"),
    }
    found = per_entity.agg(
        F.count(F.lit(1)).alias("num_entities"),
        *[F.count_if(broken).alias(name) for name, (broken, _) in faults.items()],
        *[
            F.min(F.when(broken, entity)).alias(f"{name}_entity")
            for name, (broken, _) in faults.items()
        ],
    ).collect()[0]
    for name, (_, words) in faults.items():
        if found[name]:
            raise RuntimeError(
                f"recommendations: {ENTITY_ID} {found[f'{name}_entity']!r} {words} "
                f"({found[name]:,} such entities); nothing was written."
            )
    if found["num_entities"] != num_entities:
        raise RuntimeError(
            f"recommendations: rows for {found['num_entities']:,} entities, eligible are "
            f"{num_entities:,}; nothing was written."
        )


def _strictly_decreasing(values: Column) -> Column:
    """Whether each value of the array is below the one before it."""
    rest = F.slice(values, 2, F.greatest(F.size(values) - 1, F.lit(0)))
    falls = F.zip_with(F.slice(values, 1, F.size(rest)), rest, lambda value, after: value > after)
    return F.forall(falls, lambda fall: fall)


def require_schema(spark: SparkSession, path: str, ddl: str) -> None:
    """Refuse a table at `path` whose columns are not the declared ones; no table is fine.

    Raises:
        ValueError: with the first column that differs.
    """
    if not tables.exists(spark, path):
        return
    wanted = _types(cast(StructType, StructType.fromDDL(ddl)))
    present = _types(tables.read(spark, path).schema)
    for column in sorted(wanted.keys() | present.keys()):
        if wanted.get(column) != present.get(column):
            raise ValueError(
                f"output.recommendations: in the table at '{path}' column '{column}' is "
                f"{present.get(column, 'missing')}, this run writes "
                f"{wanted.get(column, 'no such column')}; name another path or move the table away."
            )


def _types(columns: StructType) -> dict[str, str]:
    return {field.name: field.dataType.simpleString() for field in columns.fields}
