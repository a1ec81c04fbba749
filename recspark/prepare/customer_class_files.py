"""Classes of customers found and read on a worker, from the Parquet files of other stage tables.

Runs on Spark workers; needs numpy, scipy and pyarrow only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa

from recspark import files, schema
from recspark.prepare import item_state_files, latent_classes, nearest_users, tastes
from recspark.prepare.arrow_rows import Array, moment, timestamps
from recspark.prepare.class_covariates import Covariate
from recspark.prepare.feature_schema import FeatureSchema
from recspark.prepare.item_trends import trend_names
from recspark.prepare.latent_classes import Classes, Traits

_COLUMNS = (
    schema.SHARES, schema.STRENGTHS, schema.FACTORS, schema.VALUES, schema.LIFTS,
)  # fmt: skip
MOST_CUSTOMERS = 2_000  # that classes are found from: half as many find nearly the same


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What a worker has to know: all of it small."""

    state_files: tuple[str, ...]  # Parquet files of the item states
    pool_files: tuple[str, ...]  # and of the entity pool
    features: FeatureSchema


def find(anchor: int, sources: Sources) -> Iterator[pa.RecordBatch]:
    """CUSTOMER_CLASSES of one anchor without run_date: one row."""
    yield stored(anchor, _found(sources, anchor))


def stored(anchor: int, found: Classes) -> pa.RecordBatch:
    """The row of one anchor (microseconds since 1970)."""
    return pa.RecordBatch.from_arrays(
        [
            timestamps(np.array([anchor])),
            pa.array([found.share_K]),
            pa.array([found.strength_T]),
            _nested([factor_KV.ravel() for factor_KV in found.factors], pa.float64()),
            _nested([of_column.value_V for of_column in found.covariates], pa.int64()),
            _nested([of_column.lift_VK.ravel() for of_column in found.covariates], pa.float64()),
        ],
        names=[schema.ANCHOR_TIME, *_COLUMNS],
    )


def _nested(arrays: Sequence[Array], kind: pa.DataType) -> pa.Array:
    """One row, a list of lists."""
    return pa.array([list(arrays)], pa.list_(pa.list_(kind)))


def _found(sources: Sources, anchor: int) -> Classes:
    pool = nearest_users.load(sources.pool_files, sources.state_files, anchor)
    every = -(-pool.rates.shape[0] // MOST_CUSTOMERS) or 1
    drawn, columns = pool.rates[::every], pool.columns[::every]
    owner = np.repeat(np.arange(drawn.shape[0]), np.diff(drawn.indptr))
    traits = _traits(sources.state_files, anchor, sources.features)
    return latent_classes.fit(traits, owner, drawn.indices, columns)


def _traits(state_files: tuple[str, ...], anchor: int, features: FeatureSchema) -> Traits:
    """The traits of the items that exist at an anchor."""
    states = item_state_files.load(state_files, anchor)
    names = trend_names(features)
    owners_N = np.expm1(np.nan_to_num(states.trend[:, names.index("log_owners")].astype(float)))
    log_price_N: Array = states.trend[:, names.index("log_price")].astype(float)
    return Traits.of(tastes.with_price(list(states.traits.T), log_price_N), owners_N)


@lru_cache(maxsize=2)
def load(
    class_files: tuple[str, ...],
    state_files: tuple[str, ...],
    anchor: int,
    features: FeatureSchema,
) -> Classes:
    """The classes of one anchor (microseconds since 1970); cached, and must not be changed."""
    (row,) = files.read(class_files, _COLUMNS, moment(anchor)).to_pylist()
    share_K = np.array(row[schema.SHARES])
    factors = tuple(np.reshape(flat, (len(share_K), -1)) for flat in row[schema.FACTORS])
    traits = _traits(state_files, anchor, features)
    covariates = tuple(
        Covariate(np.array(values, dtype=np.int64), np.reshape(flat, (-1, len(share_K))))
        for values, flat in zip(row[schema.VALUES], row[schema.LIFTS], strict=True)
    )
    return Classes(traits, share_K, np.array(row[schema.STRENGTHS]), factors, covariates)
