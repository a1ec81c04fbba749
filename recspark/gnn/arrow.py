"""Arrow columns as numpy arrays of the shapes the network wants."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MICROSECONDS_PER_DAY = 86_400_000_000


def days(times: Any, *, null: float) -> np.ndarray:
    """Timestamps as float64 days since 1970 in UTC, nulls as `null`."""
    if isinstance(times, pa.ChunkedArray):
        times = times.combine_chunks()
    micros = pc.cast(pc.cast(times, pa.timestamp("us")), pa.int64())
    values = pc.fill_null(micros, 0).to_numpy(zero_copy_only=False) / MICROSECONDS_PER_DAY
    return np.where(pc.is_valid(times).to_numpy(zero_copy_only=False), values, null)


def matrix(lists: Any, width: int, dtype: Any) -> np.ndarray:
    """A list column whose rows all have `width` entries as an array (rows, width)."""
    values, _ = ragged(lists, dtype)
    assert len(values) == len(lists) * width, f"{len(lists)} rows of {width}, got {len(values)}"
    return values.reshape(len(lists), width)


def ragged(lists: Any, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """A list column as flat values and int64 offsets, one more than rows, from 0."""
    if isinstance(lists, pa.ChunkedArray):
        lists = lists.combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    values = lists.flatten().to_numpy(zero_copy_only=False).astype(dtype)
    return values, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def flat(batch: pa.RecordBatch, column: str, row: int, dtype: Any) -> np.ndarray:
    """The list in one row of a column."""
    values = batch.column(column)[row].values
    array: np.ndarray = values.to_numpy(zero_copy_only=False).astype(dtype)
    return array


def joined(parts: list[np.ndarray], dtype: Any) -> np.ndarray:
    """One after another; of none an empty array."""
    return np.concatenate([np.zeros(0, dtype), *(part.astype(dtype) for part in parts)])
