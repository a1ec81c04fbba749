"""Stage tables read without Spark: on Spark workers and training ranks, by the paths of a plan."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet as pq

from recspark.ranges import RowRange

_ROWS_AT_A_TIME = 16  # a row of `subgraphs` can hold megabytes


def read(
    paths: Sequence[str], columns: Sequence[str], anchor_time: datetime | None = None
) -> pa.Table:
    """These columns of Parquet files, of all rows or of one anchor's, in the order of `paths`.

    Args:
        paths: local paths, or URIs of one file system that pyarrow knows (s3, gs, hdfs, ...).
            Partition columns are not in the files.
        columns: names of the columns to read.
        anchor_time: naive UTC; keeps the rows with this `anchor_time`.
    """
    assert paths, f"a slice of a stage table without files has no {list(columns)} to read"
    wanted = None
    if anchor_time is not None:
        moment = pa.scalar(anchor_time.replace(tzinfo=UTC), pa.timestamp("us", tz="UTC"))
        wanted = pc.field("anchor_time") == moment
    resolved = [_resolve(path) for path in paths]
    inner = [path for _, path in resolved]
    stored = pyarrow.dataset.dataset(inner, format="parquet", filesystem=resolved[0][0])
    return stored.to_table(columns=list(columns), filter=wanted)


def read_rows(rows: RowRange, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield exactly the rows of a range, few at a time, opening only the row groups they lie in."""
    first, end = rows.first_row, rows.first_row + rows.num_rows
    file_system, inner = _resolve(rows.path)
    with file_system.open_input_file(inner) as source, pq.ParquetFile(source) as file:
        offset = 0
        for row_group in range(file.num_row_groups):
            size = file.metadata.row_group(row_group).num_rows
            if offset < end and offset + size > first:
                position = offset
                for batch in file.iter_batches(
                    _ROWS_AT_A_TIME, row_groups=[row_group], columns=list(columns)
                ):
                    low = max(first - position, 0)
                    high = min(end - position, batch.num_rows)
                    if low < high:
                        yield batch.slice(low, high - low)
                    position += batch.num_rows
            offset += size
    if offset < end:
        raise ValueError(
            f"{rows.path} has {offset} rows, rows up to {end} were asked for; plan the ranges anew."
        )


def _resolve(path: str) -> tuple[pyarrow.fs.FileSystem, str]:
    if "://" not in path:
        return pyarrow.fs.LocalFileSystem(), path.removeprefix("file:")
    # Hadoop's name for S3 is not Arrow's.
    uri = path.replace("s3a://", "s3://", 1)
    file_system, inner = pyarrow.fs.FileSystem.from_uri(uri)
    return file_system, inner
