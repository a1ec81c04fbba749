"""Delta tables in and out: it and `delta_log` alone know the storage format.

Every source is pinned to one version at the start of a run. Every stage table lies under the
workspace, is partitioned by `run_date` (and by `split` where it has one), and is written by
replacing the slices it owns, so that a second run with the same date leaves the same rows.
"""

import json
import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import cast

from delta.tables import DeltaTable
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from recspark import schema
from recspark.delta_log import DataFile, SliceValue, Splits, data_files, each, version_now
from recspark.settings import NAME_PATTERN, Settings, Table, nearest

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A source table at the version that this run reads."""

    name: str
    declared: Table
    version: int
    frame: DataFrame

    def types(self) -> dict[str, str]:
        """Column name to Spark's simple type name."""
        return {f.name: f.dataType.simpleString() for f in self.frame.schema.fields}


def pin(spark: SparkSession, settings: Settings) -> dict[str, Source]:
    """Resolve every declared table to its latest version and check the declared columns.

    Raises:
        ValueError: a table that does not exist or lacks a declared column.
    """
    return {name: _pin_one(spark, name, table) for name, table in settings.tables.items()}


def _pin_one(spark: SparkSession, name: str, table: Table) -> Source:
    where = f"tables.{name}"
    try:
        handle = (
            DeltaTable.forPath(spark, table.path)
            if table.path is not None
            else DeltaTable.forName(spark, str(table.name))
        )
        version = int(handle.history(1).select("version").collect()[0]["version"])
        reader = spark.read.format("delta").option("versionAsOf", version)
        frame = reader.load(table.path) if table.path is not None else reader.table(str(table.name))
    except AnalysisException:
        raise ValueError(
            f"{where}: no Delta table at '{table.location}'; write it first or correct the config."
        ) from None
    declared = [table.primary_key, table.time_column, table.end_time_column, table.price_column]
    declared += [table.quantity_column, *table.foreign_keys, *table.ignore]
    for column in filter(None, declared):
        if column not in frame.columns:
            raise ValueError(
                f"{where}: no column '{column}' in '{table.location}'"
                f"{nearest(str(column), frame.columns)}"
            )
    for role in ("price_column", "quantity_column"):
        column = getattr(table, role)
        if column is None:
            continue
        kind = frame.schema[column].dataType.simpleString()
        if not schema.is_number(kind):
            raise ValueError(
                f"{where}: {role} '{column}' is {kind}; make it a number or leave {role} out."
            )
    for column in filter(None, [table.time_column, table.end_time_column]):
        kind = frame.schema[column].dataType.simpleString()
        if kind not in ("timestamp", "timestamp_ntz", "date"):
            raise ValueError(
                f"{where}: time column '{column}' is {kind}; make it a timestamp or a date."
            )
    return Source(name=name, declared=table, version=version, frame=frame)


def conform(frame: DataFrame, ddl: str, table: str) -> DataFrame:
    """Select the declared columns in their order, or say which one is wrong.

    Raises:
        ValueError: a column that is missing or has another type than `ddl` declares.
    """
    present = {f.name: f.dataType.simpleString() for f in frame.schema.fields}
    for wanted in cast(StructType, StructType.fromDDL(ddl)).fields:
        kind = wanted.dataType.simpleString()
        found = present.get(wanted.name)
        if found != kind:
            state = f"is {found}" if found else "is missing"
            raise ValueError(
                f"{table}: {wanted.name} should be {kind}, {state}. Present: {sorted(present)}."
            )
    return frame.select(cast(StructType, StructType.fromDDL(ddl)).fieldNames())


def replace_slice(
    frame: DataFrame,
    path: str,
    *,
    slice_values: Mapping[str, SliceValue],
    metadata: Mapping[str, object] | None = None,
    checks: Mapping[str, str] | None = None,
    properties: Mapping[str, str] | None = None,
) -> int:
    """Write `frame` over the slice where each column of `slice_values` has (one of) its value(s).

    The table is created, partitioned by those columns, when it is not there; `checks` are the
    CHECK constraints (name to SQL condition) it carries, added where missing, and `properties` the
    table properties that it is created with. Either all rows arrive or none.

    Returns:
        The version of the table that holds the rows.
    """
    spark = frame.sparkSession
    if checks:
        _ensure_checks(frame, path, list(slice_values), checks)
    where = " AND ".join(
        f"{column} IN ({', '.join(_quoted(v) for v in each(value))})"
        for column, value in slice_values.items()
    )
    (
        frame.write.format("delta")
        .mode("overwrite")
        .option("replaceWhere", where)
        .option("userMetadata", json.dumps(dict(metadata or {}), sort_keys=True, default=str))
        .options(**(properties or {}))
        .partitionBy(*slice_values)
        .save(path)
    )
    return version_now(spark, path)


def _ensure_checks(
    frame: DataFrame, path: str, partition_by: Sequence[str], checks: Mapping[str, str]
) -> None:
    """Create the table if it is not there, and add the checks that it lacks.

    Each is a commit of its own, so a run that died in between leaves a table without some.
    """
    spark = frame.sparkSession
    empty = frame.limit(0)
    empty.write.format("delta").partitionBy(*partition_by).mode("ignore").save(path)
    detail = DeltaTable.forPath(spark, path).detail().select("location", "properties").collect()[0]
    location = detail["location"]  # SQL does not resolve relative paths
    for name, condition in checks.items():
        if f"delta.constraints.{name}" not in detail["properties"]:
            spark.sql(f"ALTER TABLE delta.`{location}` ADD CONSTRAINT {name} CHECK ({condition})")


def _quoted(value: str | date) -> str:
    text = str(value)
    assert re.fullmatch(NAME_PATTERN, text), f"{text!r} is no name, date or number"
    return f"'{text}'"


def exists(spark: SparkSession, path: str) -> bool:
    """Whether a table lies at this path."""
    return DeltaTable.isDeltaTable(spark, path)


def read(spark: SparkSession, path: str) -> DataFrame:
    """The table at `path`, at its newest version."""
    return spark.read.format("delta").load(path)


def write_source(frame: DataFrame, path: str) -> None:
    """Write a whole source table, replacing what was there, its schema included."""
    frame.write.format("delta").mode("overwrite").option("overwriteSchema", "true").save(path)


# Stage tables are read by their files: of Delta's statistics only the numbers of rows are needed.
_STAGE = {"delta.dataSkippingNumIndexedCols": "0"}


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """The stage tables of one run: each read and replaced by its run date."""

    spark: SparkSession
    settings: Settings
    run_date: date
    _schemas: dict[str, StructType] = field(default_factory=dict, init=False, repr=False)
    _written: dict[str, list[DataFile]] = field(default_factory=dict, init=False, repr=False)

    def write(self, table: str, frame: DataFrame, ddl: str, **part: str | Splits) -> DataFrame:
        """Replace this run's slice of a stage table and return it, read back from storage.

        `part` names a further partition column and the value, or values, that this slice has in
        it, such as `split="train"`. `frame` need not have `run_date`, nor a column of which
        `part` gives a single value. Logs one line with the rows written and the seconds it took.
        """
        started = time.monotonic()
        frame = frame.withColumn(schema.RUN_DATE, F.lit(self.run_date).cast("date"))
        for column, value in part.items():
            if isinstance(value, str):
                frame = frame.withColumn(column, F.lit(value))
        path, owned = self.settings.stage_path(table), self._owned(part)
        frame, before = conform(frame, ddl, table), version_now(self.spark, path)
        try:
            replace_slice(frame, path, slice_values=owned, properties=_STAGE)
        except AnalysisException:
            if not self._is_of_another_release(frame, path):
                raise
            log.warning("%s: another release wrote it with other columns; it starts anew", table)
            empty = frame.limit(0).write.format("delta").mode("overwrite")
            empty.option("overwriteSchema", "true").partitionBy(*owned).save(path)
            replace_slice(frame, path, slice_values=owned)
        self._schemas[table] = frame.schema
        files = data_files(self.spark, path, before, owned)
        others = [file for file in self._written.get(table, []) if not file.lies_in(owned)]
        self._written[table] = others + files
        rows = sum(file.num_rows for file in files)
        label = ", ".join([table, *("+".join(map(str, each(v))) for v in part.values())])
        log.info("%s: %s rows, %.1f s", label, f"{rows:,}", time.monotonic() - started)
        return self.read(table, **part)

    def read(self, table: str, **part: str | Splits) -> DataFrame:
        """This run's slice of a stage table, as this run wrote it last.

        By its files: Delta runs a Spark job whenever a query reads a table, only to find them.
        """
        found, kind = self.paths(table, **part), self._schemas[table]
        if not found:
            return self.spark.createDataFrame([], kind)
        root = self.settings.stage_path(table)
        rows = self.spark.read.schema(kind).option("basePath", root).parquet(*found)
        return rows.select(kind.fieldNames())  # Spark puts partition columns last

    def files(self, table: str, **part: str | Splits) -> tuple[DataFile, ...]:
        """The Parquet files of this run's slice."""
        owned = self._owned(part)
        return tuple(file for file in self._written[table] if file.lies_in(owned))

    def paths(self, table: str, **part: str | Splits) -> tuple[str, ...]:
        """The paths of `files`."""
        return tuple(file.path for file in self.files(table, **part))

    def _is_of_another_release(self, frame: DataFrame, path: str) -> bool:
        """Whether a stage table lies there with other columns. It can be made anew."""
        if not DeltaTable.isDeltaTable(self.spark, path):
            return False
        stored = DeltaTable.forPath(self.spark, path).toDF()
        return sorted(stored.dtypes) != sorted(frame.dtypes)

    def _owned(self, part: Mapping[str, str | Splits]) -> dict[str, SliceValue]:
        return {schema.RUN_DATE: self.run_date, **part}
