"""Numbers packed into binaries come out as they went in; rows of numpy arrays are as of lists."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from recspark.prepare.arrow_rows import one_row, packed, unpacked

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


def test_a_row_of_numpy_arrays_is_what_arrow_makes_of_lists():
    columns = pa.schema(
        [
            ("when", pa.timestamp("us", tz="UTC")), ("packed", pa.binary()),
            ("flags", pa.list_(pa.bool_())), ("none", pa.list_(pa.int64())),
            ("parts", pa.list_(pa.struct([("name", pa.string()), ("x", pa.list_(pa.float32()))]))),
        ]
    )  # fmt: skip
    row = {"when": datetime(2026, 1, 2, tzinfo=UTC), "packed": b"ab", "none": []}
    parts = [("a", [1.5, float("nan")]), ("b", []), ("c", [2.0])]
    drawn = row | {
        "flags": np.array([True, False]),
        "parts": [{"name": name, "x": np.array(x)} for name, x in parts],
    }
    listed = row | {
        "flags": [True, False],
        "parts": [{"name": name, "x": x} for name, x in parts],
    }
    expected = pa.RecordBatch.from_pylist([listed], schema=columns)
    found = one_row(drawn, columns)
    assert found.schema == expected.schema
    np.testing.assert_equal(found.to_pylist(), expected.to_pylist())
