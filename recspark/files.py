"""Stage tables read without Spark: on Spark workers and training ranks, by the paths of a plan."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.fs


def read(
    paths: Sequence[str], columns: Sequence[str], anchor_time: datetime | None = None
) -> pa.Table:
    """These columns of Parquet files, of all rows or of one anchor's.

    Args:
        paths: local paths, or URIs of one file system that pyarrow knows (s3, gs, hdfs, ...).
            Partition columns are not in the files.
        columns: names of the columns to read.
        anchor_time: naive UTC; keeps the rows with this `anchor_time`.
    """
    assert paths, "a slice of a stage table without files has nothing to read"
    wanted = None
    if anchor_time is not None:
        moment = pa.scalar(anchor_time.replace(tzinfo=UTC), pa.timestamp("us", tz="UTC"))
        wanted = pc.field("anchor_time") == moment
    file_system, inner = _resolve(paths)
    files = pyarrow.dataset.dataset(inner, format="parquet", filesystem=file_system)
    return files.to_table(columns=list(columns), filter=wanted)


def _resolve(paths: Sequence[str]) -> tuple[pyarrow.fs.FileSystem, list[str]]:
    if "://" not in paths[0]:
        return pyarrow.fs.LocalFileSystem(), list(paths)
    resolved = [pyarrow.fs.FileSystem.from_uri(path) for path in paths]
    return resolved[0][0], [path for _, path in resolved]
