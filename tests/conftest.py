import os
import sys
import time
from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest

os.environ |= {"TZ": "UTC", "PYSPARK_PYTHON": sys.executable}  # else executors use the machine's
time.tzset()

ARROW_TYPES = {
    "int": pa.int32(), "bigint": pa.int64(), "double": pa.float64(), "float": pa.float32(),
    "string": pa.string(), "boolean": pa.bool_(), "timestamp": pa.timestamp("us", tz="UTC"),
    "packed": pa.binary(),
}  # fmt: skip


def parse_cell(text, kind):
    """A cell of a drawn table: blank is null, [1 2] a list, packed as float32 where so called."""
    if text == "":
        return None
    if kind.startswith("array<"):
        return [parse_cell(part, kind[6:-1]) for part in text.strip("[]").split()]
    if kind in ("int", "bigint"):
        return int(text)
    if kind in ("double", "float"):
        return float(text)
    if kind == "packed":
        return np.array(text.strip("[]").split(), dtype="<f4").tobytes()
    if kind == "boolean":
        return text == "true"
    if kind == "timestamp":
        return datetime.fromisoformat(text + "+00:00")
    return text


def arrow_type(kind):
    return pa.list_(arrow_type(kind[6:-1])) if kind.startswith("array<") else ARROW_TYPES[kind]


def drawn(text):
    """Parse a drawn table, `name:type | name:type` above its rows, to Arrow."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    header, *rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    names, kinds = zip(*[column.split(":", 1) for column in header], strict=True)
    columns = [
        pa.array([parse_cell(row[i], kind) for row in rows], arrow_type(kind))
        for i, kind in enumerate(kinds)
    ]
    return pa.table(columns, names=names)


@pytest.fixture(scope="session")
def spark():
    """One JVM for the run, with Delta. Tests never change its settings."""
    from recspark.session import open_session

    session = open_session("recspark-tests")
    yield session
    session.stop()


@pytest.fixture
def table(spark):
    """Draw a table in the test: `table('a:bigint | t:timestamp ...')` is a DataFrame."""
    return lambda text: spark.createDataFrame(drawn(text))
