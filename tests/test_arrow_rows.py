"""Numbers packed into binaries come out as they went in, from whole arrays and from slices."""

import numpy as np
import pyarrow as pa
import pytest

from recspark.prepare.arrow_rows import packed, unpacked

VALUES = np.array([0.5, np.nan, -2.0, 7.25, 1e-30], dtype=np.float32)


@pytest.fixture
def rows():
    """Three rows of two, no and three numbers."""
    return packed(VALUES, np.array([2, 0, 3]))


def test_each_row_is_the_bytes_of_its_numbers(rows):
    assert rows.type == pa.binary()
    assert rows.to_pylist() == [VALUES[:2].tobytes(), b"", VALUES[2:].tobytes()]


def test_what_is_packed_comes_out_again(rows):
    assert np.array_equal(unpacked(rows), VALUES, equal_nan=True)
    assert np.array_equal(unpacked(rows.slice(1)), VALUES[2:])
    assert np.array_equal(unpacked(pa.chunked_array([rows.slice(2), rows])), [*VALUES[2:], *VALUES],
                          equal_nan=True)  # fmt: skip


def test_nothing_packed_is_nothing(rows):
    assert len(unpacked(rows.slice(1, 1))) == 0
    assert len(unpacked(packed(VALUES[:0], np.zeros(0, dtype=np.int64)))) == 0
