"""Quantiles of feature columns, from a fixed-size sample that a hash of the key chooses.

The network reads every pair and trend feature through its empirical distribution function, which
makes counts, days and prices comparable and outliers harmless.
"""

from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark.prepare.arrow_rows import unpacked

NUM_KNOTS = 129  # quantile levels 0, 1/128, ..., 1
SEED_ROWS = 1_000  # seeds with all their candidates, brought to the driver whatever the size
ITEM_ROWS = 20_000  # (item, anchor) rows


def knots(
    frame: DataFrame, column: str, width: int, *, key: list[str], num_rows: int, seed: int
) -> tuple[tuple[float, ...], ...]:
    """Per feature its quantiles, ascending, float32 values.

    Args:
        frame: has `column`, array<float> or packed as a binary, row-major with `width` features;
            NaN where missing.
        column: name of that column.
        width: number of features.
        key: columns that identify a row; they decide with `seed` which rows are sampled.
        num_rows: how many rows are sampled.
        seed: of the sample.

    Returns:
        `width` tuples of `NUM_KNOTS` values; a feature that is always missing has only zeros.
    """
    drawn = F.xxhash64(F.lit(seed), *key)
    sampled = frame.orderBy(drawn, *key).limit(num_rows).select(column)
    rows = cast(Any, sampled).toArrow()[column].combine_chunks()
    flat = unpacked(rows) if pa.types.is_binary(rows.type) else rows.flatten().to_numpy()
    values: NDArray[np.float32] = flat.reshape(-1, width)
    levels = np.linspace(0, 1, NUM_KNOTS)
    return tuple(_quantiles(values[:, feature], levels) for feature in range(width))


def _quantiles(values: NDArray[np.float32], levels: NDArray[np.float64]) -> tuple[float, ...]:
    present = values[np.isfinite(values)]
    if not len(present):
        return (0.0,) * len(levels)
    found = np.quantile(present, levels, method="inverted_cdf")
    return tuple(float(value) for value in found)
