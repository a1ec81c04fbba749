"""Rates of what is due, found and read on a worker, from the Parquet files of other stage tables.

Runs on Spark workers; needs numpy, scipy and pyarrow only.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import pyarrow as pa

from recspark import files, schema
from recspark.prepare import due
from recspark.prepare.arrow_rows import Array, column, lists, matrix, moment, timestamps
from recspark.prepare.item_trends import OF_TARGET
from recspark.prepare.life_tables import NUM_INTERVALS

_COUNTED = (schema.ITEM, schema.TREND, schema.REPEATS, schema.AT_RISK)


def find(anchor: int, state_files: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    """ITEM_DUE_RATES of one anchor without run_date, items in their order; none without items."""
    states = files.read(state_files, _COUNTED, moment(anchor)).sort_by(schema.ITEM)
    items = column(states, schema.ITEM)
    if len(items):
        yield pa.RecordBatch.from_arrays(
            [
                timestamps(np.full(len(items), anchor)),
                pa.array(items, pa.int64()),
                lists(_found(states).ravel(), np.full(len(items), NUM_INTERVALS), pa.float64()),
            ],
            names=[schema.ANCHOR_TIME, schema.ITEM, schema.DUE_RATES],
        )


def _found(states: pa.Table) -> Array:
    """float64 (N, I), `due.rates` of the states of one anchor."""
    log_owners_N = matrix(states, schema.TREND)[:, OF_TARGET.index("log_owners")]
    return due.rates(
        matrix(states, schema.REPEATS),
        matrix(states, schema.AT_RISK),
        np.expm1(log_owners_N.astype(float)),
    )


@lru_cache(maxsize=2)
def load(rate_files: tuple[str, ...], anchor: int) -> Array:
    """float64 (N, I) by position among the items of an anchor (microseconds since 1970).

    The result is cached, and must not be changed.
    """
    wanted = (schema.ITEM, schema.DUE_RATES)
    return matrix(files.read(rate_files, wanted, moment(anchor)).sort_by(schema.ITEM), wanted[1])
