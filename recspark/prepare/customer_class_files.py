"""Classes of customers found and read on a worker, from the Parquet files of other stage tables.

Runs on Spark workers; needs numpy, scipy and pyarrow only.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa

from recspark import files, schema
from recspark.prepare import item_state_files, latent_classes, tastes
from recspark.prepare.arrow_rows import Array, column, moment
from recspark.prepare.feature_schema import FeatureSchema
from recspark.prepare.item_trends import trend_names
from recspark.prepare.latent_classes import Classes, Traits

MOST_CUSTOMERS = 2_000  # that classes are found from: half as many find nearly the same


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What a worker has to know: all of it small."""

    state_files: tuple[str, ...]  # Parquet files of the item states
    pool_files: tuple[str, ...]  # and of the entity pool
    features: FeatureSchema


def find(batches: Iterator[pa.RecordBatch], sources: Sources) -> Iterator[pa.RecordBatch]:
    """Kernel over anchors, one row each: CUSTOMER_CLASSES without run_date."""
    for batch in batches:
        for anchor in column(pa.Table.from_batches([batch]), schema.ANCHOR_TIME):
            found = _found(sources, int(anchor))
            row = {
                schema.ANCHOR_TIME: moment(int(anchor)),
                schema.SHARES: found.share_K,
                schema.STRENGTHS: found.strength_T,
                schema.FACTORS: [factor_KV.ravel() for factor_KV in found.factors],
            }
            yield pa.RecordBatch.from_pylist([row], schema=_COLUMNS)


_COLUMNS = pa.schema(
    {
        schema.ANCHOR_TIME: pa.timestamp("us", tz="UTC"),
        schema.SHARES: pa.list_(pa.float64()),
        schema.STRENGTHS: pa.list_(pa.float64()),
        schema.FACTORS: pa.list_(pa.list_(pa.float64())),
    }
)


def _found(sources: Sources, anchor: int) -> Classes:
    pool = files.read(sources.pool_files, [schema.ENTITY, schema.ITEMS], moment(anchor))
    pool = pool.sort_by(schema.ENTITY)
    drawn = np.arange(0, len(pool), -(-len(pool) // MOST_CUSTOMERS) or 1)
    items = pool[schema.ITEMS].take(drawn).combine_chunks()
    owner = np.repeat(np.arange(len(drawn)), items.value_lengths().to_numpy())
    states = item_state_files.load(sources.state_files, anchor)
    place = states.position(items.flatten().to_numpy())
    here = place >= 0
    traits = traits_of(sources.state_files, anchor, sources.features)
    return latent_classes.fit(traits, owner[here], place[here], len(drawn))


@lru_cache(maxsize=2)
def traits_of(state_files: tuple[str, ...], anchor: int, features: FeatureSchema) -> Traits:
    """The traits of the items that exist at an anchor; cached, and must not be changed."""
    states = item_state_files.load(state_files, anchor)
    names = trend_names(features)
    owners_N = np.expm1(np.nan_to_num(states.trend[:, names.index("log_owners")].astype(float)))
    log_price_N: Array = states.trend[:, names.index("log_price")].astype(float)
    return Traits.of(tastes.with_price(list(states.traits.T), log_price_N), owners_N)


@lru_cache(maxsize=2)
def load(class_files: tuple[str, ...], anchor: int) -> Classes:
    """The classes of one anchor (microseconds since 1970); cached, and must not be changed."""
    wanted = [schema.SHARES, schema.STRENGTHS, schema.FACTORS]
    (row,) = files.read(class_files, wanted, moment(anchor)).to_pylist()
    share_K = np.array(row[schema.SHARES])
    factors = tuple(np.reshape(flat, (len(share_K), -1)) for flat in row[schema.FACTORS])
    return Classes(share_K, np.array(row[schema.STRENGTHS]), factors)
