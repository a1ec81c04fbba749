"""Whole Spark partitions as numpy columns, for kernels that run under `mapInArrow`.

Arrow batches do not align to keys, so a kernel gathers its partition before it looks at it.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from recspark import schema

Array = np.ndarray[Any, Any]
Columns = dict[str, Array]

DAY = 86_400_000_000  # microseconds
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def gather(batches: Iterator[pa.RecordBatch]) -> pa.Table | None:
    """All rows of the partition, or None when it has none."""
    kept = [batch for batch in batches if batch.num_rows]
    return pa.Table.from_batches(kept) if kept else None


def column(table: pa.Table, name: str, missing: Any = None) -> Array:
    """A column as numpy; timestamps as int64 microseconds since 1970 in UTC.

    Nulls become `missing`, which must be given for a column that has any.
    """
    values = table[name].combine_chunks()
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.timestamp("us", tz=values.type.tz)).cast(pa.int64())
    if missing is not None:
        values = values.fill_null(missing)
    return np.asarray(values.to_numpy(zero_copy_only=False))


def differs(*columns: Array) -> Array:
    """Boolean (E,): the row differs from the one before in any column; the first does."""
    found = np.ones(len(columns[0]), dtype=bool)
    found[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return found


def matrix(table: pa.Table, name: str) -> Array:
    """A column of lists of equal length: one row of the matrix per row of the table."""
    values = table[name].combine_chunks().flatten().to_numpy()
    return np.asarray(values.reshape(len(table), len(values) // max(len(table), 1)))


def timestamps(microseconds: Array) -> pa.Array:
    """Microseconds since 1970 as Spark's timestamps."""
    return pa.array(microseconds, pa.int64()).cast(pa.timestamp("us", tz="UTC"))


def lists(values: Array, lengths: Array, kind: pa.DataType) -> pa.Array:
    """Consecutive runs of `values`, one list per entry of `lengths`."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values, kind))


def packed(values: Array, lengths: Array) -> pa.Array:
    """Consecutive runs of `values` as `schema.PACKED`: one binary per entry of `lengths`.

    Spark copies a binary as a whole and an array value by value.
    """
    stored = np.ascontiguousarray(values, dtype=schema.PACKED)
    offsets = np.concatenate([[0], np.cumsum(lengths * stored.itemsize)]).astype(np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(stored)]
    return pa.Array.from_buffers(pa.binary(), len(lengths), buffers)


def unpacked(binaries: pa.Array | pa.ChunkedArray) -> Array:
    """What `packed` packed, float32, all rows one after another."""
    rows = binaries.combine_chunks() if isinstance(binaries, pa.ChunkedArray) else binaries
    _, offsets, stored = rows.buffers()
    if not len(rows) or stored is None:
        return np.empty(0, dtype=np.float32)
    ends = np.frombuffer(offsets, dtype=np.int32)[rows.offset : rows.offset + len(rows) + 1]
    width = np.dtype(schema.PACKED).itemsize
    count, start = (int(ends[-1]) - int(ends[0])) // width, int(ends[0])
    return np.frombuffer(stored, dtype=schema.PACKED, count=count, offset=start)


def one_row(row: Mapping[str, Any], columns: pa.Schema) -> pa.RecordBatch:
    """A batch of one row without nulls, whose lists of numbers may be numpy arrays."""
    values = [_array([row[field.name]], field.type) for field in columns]
    return pa.RecordBatch.from_arrays(values, schema=columns)


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_struct(kind):
        of_fields = [_array([value[field.name] for value in values], field.type) for field in kind]
        return pa.StructArray.from_arrays(of_fields, fields=list(kind))
    if not pa.types.is_list(kind):
        return pa.array(values, kind)
    if pa.types.is_struct(kind.value_type):
        flat = _array([entry for value in values for entry in value], kind.value_type)
    else:
        dtype = kind.value_type.to_pandas_dtype()
        parts = [np.empty(0, dtype), *(np.asarray(value, dtype) for value in values)]
        flat = pa.array(np.concatenate(parts), kind.value_type)
    offsets = np.cumsum([0, *map(len, values)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat, type=kind)


def moment(microseconds: int) -> datetime:
    """The naive UTC datetime of microseconds since 1970, as `files.read` wants it."""
    return datetime(1970, 1, 1) + timedelta(microseconds=microseconds)  # noqa: DTZ001 - by contract


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970 of a datetime; without a zone it is UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=EPOCH.tzinfo)
    since = aware - EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
