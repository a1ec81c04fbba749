"""What Delta's log tells of a table without a Spark job: versions, and the files of a slice."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any
from urllib.parse import unquote

from pyspark.sql import SparkSession

Splits = tuple[str, ...]
SliceValue = str | date | Splits  # a tuple: any of these


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """A Parquet file of a table's slice, with what the table's log says of it.

    Partition columns are not in the file.
    """

    path: str
    num_rows: int
    values: Mapping[str, str]  # partition column to value, as text

    def lies_in(self, slice_values: Mapping[str, SliceValue]) -> bool:
        """Whether each column has (one of) its value(s)."""
        return all(
            self.values[column] in [str(one) for one in each(value)]
            for column, value in slice_values.items()
        )


def each(value: SliceValue) -> tuple[str | date, ...]:
    """The values that a slice has in a column."""
    return value if isinstance(value, tuple) else (value,)


def version_now(spark: SparkSession, path: str) -> int:
    """The newest version of the table at `path`, -1 where there is none; no Spark job."""
    delta_log = _delta_log(spark, path)
    defaults = [getattr(delta_log, f"update$default${place}")() for place in (1, 2, 3)]
    return int(delta_log.update(*defaults).version())


def data_files(
    spark: SparkSession, path: str, after: int, slice_values: Mapping[str, SliceValue]
) -> list[DataFile]:
    """The Parquet files of a slice that commits after version `after` wrote, ordered by path.

    Told by the commits themselves: to list a version's files is a Spark job, and seconds a table.
    The list grows with the number of files only.
    """
    delta_log = _delta_log(spark, path)
    defaults = [getattr(delta_log, f"getChanges$default${place}")() for place in (2, 3)]
    root = str(delta_log.dataPath().toString()).removeprefix("file:")
    found: dict[str, DataFile] = {}
    commits = delta_log.getChanges(after + 1, *defaults)
    while commits.hasNext():
        actions = commits.next()._2()
        for action in map(actions.apply, range(actions.size())):
            kind = action.getClass().getSimpleName()
            if kind == "RemoveFile":
                found.pop(action.path(), None)
            elif kind == "AddFile":
                values = {column: action.partitionValues().apply(column) for column in slice_values}
                num_rows = json.loads(action.stats())["numRecords"]
                where = f"{root}/{unquote(action.path())}"
                found[action.path()] = DataFile(path=where, num_rows=num_rows, values=values)
    own = [file for file in found.values() if file.lies_in(slice_values)]
    return sorted(own, key=lambda file: file.path)


def _delta_log(spark: SparkSession, path: str) -> Any:
    jvm = spark._jvm
    assert jvm is not None
    return jvm.org.apache.spark.sql.delta.DeltaLog.forTable(spark._jsparkSession, path)
