"""The demo shop as Spark tables: the same rows for any number of partitions.

Workers make their rows from ids alone; the driver holds none of them. Times are UTC.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from recspark.demo import catalog, draws, purchases, shoppers
from recspark.demo.catalog import CATEGORIES, CITIES, NEVER, TIERS, Assortment
from recspark.demo.draws import Booleans, Ints
from recspark.demo.spec import LINES_PER_USER, SECONDS_PER_DAY, Shop

MERCHANTS = "merchant_id bigint, name string, city string"
ITEMS = (
    "item_id bigint, name string, category string, price double, merchant_id bigint, "
    "on_sale_from timestamp, on_sale_until timestamp"  # until: exclusive; null: no end
)
USERS = (
    "user_id bigint, joined_at timestamp, age_band string, city string, "  # both null where unknown
    "email_opt_in boolean"
)
TRANSACTIONS = (
    "transaction_id bigint, user_id bigint, item_id bigint, bought_at timestamp, quantity int, "
    "price double"  # per unit
)
# return_id: the transaction's id
RETURNS = "return_id bigint, user_id bigint, item_id bigint, returned_at timestamp, reason string"

_ROWS_PER_PARTITION = 50_000
_USERS_PER_BLOCK = 1_000  # simulated together; bounds a worker's memory
_FAMILIES = ("Almeida", "Berger", "Conti", "Dubois", "Eriksen", "Fischer", "Garcia", "Horvat")
_TRADES = ("and Daughters", "Supplies", "Market", "Trading", "Goods", "House", "Workshop")
_REASONS = ("changed mind", "damaged", "not as described", "wrong size")

_Columns = dict[str, pa.Array]


def merchants(spark: SparkSession, shop: Shop) -> DataFrame:
    """All merchants, one row each (schema MERCHANTS)."""
    count = catalog.num_merchants(shop)
    return _from_ids(spark, count, partial(_in_blocks, _merchant_columns, shop), MERCHANTS)


def items(spark: SparkSession, shop: Shop, num_partitions: int | None = None) -> DataFrame:
    """All items, one row each (schema ITEMS)."""
    make = partial(_in_blocks, _item_columns, shop)
    return _from_ids(spark, shop.num_items, make, ITEMS, num_partitions)


def users(spark: SparkSession, shop: Shop, num_partitions: int | None = None) -> DataFrame:
    """All users, one row each (schema USERS)."""
    make = partial(_in_blocks, _user_columns, shop)
    return _from_ids(spark, shop.num_users, make, USERS, num_partitions)


def transactions(spark: SparkSession, shop: Shop, num_partitions: int | None = None) -> DataFrame:
    """All purchases, one row per line (schema TRANSACTIONS); about `shop.num_events` of them."""
    make = partial(_purchase_batches, shop)
    return _from_ids(spark, shop.num_users, make, TRANSACTIONS, num_partitions)


def returns(bought: DataFrame, shop: Shop) -> DataFrame:
    """The purchases in `bought` (schema TRANSACTIONS) that went back (schema RETURNS).

    A return takes place 2 to 20 days after the purchase and before the end of the history.
    """
    lines = bought.select("transaction_id", "user_id", "item_id", "bought_at")
    return lines.mapInArrow(partial(_return_batches, shop), RETURNS)


def _from_ids(
    spark: SparkSession,
    count: int,
    make: Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]],
    ddl: str,
    num_partitions: int | None = None,
) -> DataFrame:
    usual = max(spark.sparkContext.defaultParallelism, count // _ROWS_PER_PARTITION)
    ids = spark.range(1, count + 1, numPartitions=num_partitions or usual)
    return ids.mapInArrow(make, ddl)


def _blocks(batches: Iterator[pa.RecordBatch]) -> Iterator[Ints]:
    """The ids of the first column, a block at a time."""
    for batch in batches:
        ids = batch.column(0).to_numpy()
        for start in range(0, len(ids), _USERS_PER_BLOCK):
            yield ids[start : start + _USERS_PER_BLOCK]


def _in_blocks(
    make: Callable[[Shop, Ints], _Columns], shop: Shop, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    for ids in _blocks(batches):
        yield pa.RecordBatch.from_pydict(make(shop, ids))


def _merchant_columns(shop: Shop, ids: Ints) -> _Columns:
    family = draws.integer(shop.seed, "merchants.family", len(_FAMILIES), ids)
    trade = draws.integer(shop.seed, "merchants.trade", len(_TRADES), ids)
    names = [f"{_FAMILIES[f]} {_TRADES[t]}" for f, t in zip(family, trade, strict=True)]
    city = draws.integer(shop.seed, "merchants.city", len(CITIES), ids)
    return {"merchant_id": pa.array(ids), "name": pa.array(names), "city": _words(CITIES, city)}


def _item_columns(shop: Shop, ids: Ints) -> _Columns:
    described = catalog.describe(shop, ids)
    categories = [CATEGORIES[position] for position in described.category_I]
    noun = draws.integer(shop.seed, "items.noun", len(CATEGORIES[0].nouns), ids)
    tier = described.shelf_I % len(TIERS)
    names = [
        f"{TIERS[t][0]} {category.nouns[n]} No. {item_id}"
        for t, category, n, item_id in zip(tier, categories, noun, ids, strict=True)
    ]
    is_kept = described.until_day_I == NEVER
    until_day = np.where(is_kept, 0, described.until_day_I)
    return {
        "item_id": pa.array(ids),
        "name": pa.array(names),
        "category": pa.array([category.name for category in categories]),
        "price": pa.array(described.price_I),
        "merchant_id": pa.array(described.merchant_id_I),
        "on_sale_from": _times(described.from_day_I * SECONDS_PER_DAY),
        "on_sale_until": _times(until_day * SECONDS_PER_DAY, is_null=is_kept),
    }


def _user_columns(shop: Shop, ids: Ints) -> _Columns:
    described = shoppers.describe(shop, ids)
    return {
        "user_id": pa.array(ids),
        "joined_at": _times(described.joined_second_B),
        "age_band": _words(shoppers.AGE_BANDS, described.age_band_B),
        "city": _words(CITIES, described.city_B),
        "email_opt_in": pa.array(described.email_opt_in_B),
    }


def _purchase_batches(shop: Shop, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    assortment = Assortment.of(shop)
    for ids in _blocks(batches):
        lines = purchases.simulate(assortment, shoppers.describe(shop, ids))
        user_id, bought = ids[lines.user_B], assortment.items.at(lines.item_B)
        is_used_up = bought.rhythm_days_I > 0
        several = draws.uniform(shop.seed, "lines.quantity", user_id, lines.number_B)
        extra = (several < 0.3).astype(np.int32) + (several < 0.1)
        price = catalog.paid_price(shop, bought, lines.second_B // SECONDS_PER_DAY)
        yield pa.RecordBatch.from_pydict(
            {
                "transaction_id": pa.array(user_id * LINES_PER_USER + lines.number_B),
                "user_id": pa.array(user_id),
                "item_id": pa.array(bought.item_id_I),
                "bought_at": _times(lines.second_B),
                "quantity": pa.array((1 + extra * is_used_up).astype(np.int32)),
                "price": pa.array(price),
            }
        )


def _return_batches(shop: Shop, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        line_id = batch.column("transaction_id").to_numpy()
        item_id = batch.column("item_id").to_numpy()
        second = batch.column("bought_at").cast(pa.int64()).to_numpy() // 1_000_000
        lasts = catalog.describe(shop, item_id).rhythm_days_I == 0
        delay_days = 2.0 + 18.0 * draws.uniform(shop.seed, "returns.delay", line_id)
        returned = second + np.floor(delay_days * SECONDS_PER_DAY).astype(np.int64)
        chance = np.where(lasts, 0.08, 0.01)
        is_back = draws.uniform(shop.seed, "returns.is_back", line_id) < chance
        kept = np.flatnonzero(is_back & (returned < shop.end_day * SECONDS_PER_DAY))
        reason = draws.integer(shop.seed, "returns.reason", len(_REASONS), line_id[kept])
        yield pa.RecordBatch.from_pydict(
            {
                "return_id": pa.array(line_id[kept]),
                "user_id": pa.array(batch.column("user_id").to_numpy()[kept]),
                "item_id": pa.array(item_id[kept]),
                "returned_at": _times(returned[kept]),
                "reason": _words(_REASONS, reason),
            }
        )


def _words(words: tuple[str, ...], codes: Ints) -> pa.Array:
    """The words at these positions; null where the position is negative."""
    return pa.array(words).take(pa.array(codes, mask=codes < 0))


def _times(seconds: Ints, is_null: Booleans | None = None) -> pa.Array:
    """Seconds since 1970 as timestamps in UTC; null where `is_null`."""
    return pa.array(seconds * 1_000_000, mask=is_null).cast(pa.timestamp("us", tz="UTC"))
