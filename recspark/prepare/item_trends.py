"""What is known of an item at an anchor: how much, how lately and to whom it sells.

Runs on Spark workers; needs numpy and pyarrow only. Ages are days from an event to the anchor;
"the last w days" are ages in [0, w).
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from recspark import schema, windows
from recspark.prepare.arrow_rows import (
    DAY,
    Array,
    Columns,
    column,
    differs,
    gather,
    lists,
    timestamps,
)
from recspark.prepare.feature_schema import FeatureSchema, of_amount
from recspark.prepare.pair_history import YEAR, mean, ratio
from recspark.prepare.repeats import Spells

WINDOWS = (7, 14, 30, 60, 120, 365)  # days
RATE_WINDOWS = (60, 120)  # days over which a rate of sales is taken
HALF_LIVES = (7, 30, 90)  # days
PERIODS = 3  # past horizons from which chances to buy are counted
ITEM_ROW = -1  # the `kind` of a row that is an item, not an event
SALE_START, SALE_END = "sale_start", "sale_end"
NEVER, ALWAYS = np.iinfo(np.int64).max, np.iinfo(np.int64).min

NAMES = (schema.ANCHOR_TIME, schema.ITEM, schema.TREND)
COLUMNS = f"{schema.ANCHOR_TIME} timestamp, {schema.ITEM} bigint, {schema.TREND} array<float>"

OF_TARGET = (
    *(f"log_sales_{w}" for w in WINDOWS),
    *(f"log_buyers_{w}" for w in WINDOWS),
    *(f"sales_ratio_{a}_{b}" for a, b in itertools.pairwise(WINDOWS)),
    *(f"log_decayed_sales_{h}" for h in HALF_LIVES),
    "log_decayed_sales_horizon",
    "log_sales_year_ago",
    "season_ratio",
    "days_since_first_sale",
    "days_since_last_sale",
    "days_on_sale",
    *(f"sales_missed_{w}" for w in RATE_WINDOWS),
    "log_owners",
    "repeat_rate",
    "repeat_gap_days",
    "owner_conversion",
    "log_first_buyers_horizon",
    "log_decayed_first_buyers_30",
    "first_buyer_share",
    "log_price",
    "log_price_now",
    "price_change",
    "log_quantity",
    "log_revenue_7",
    "log_revenue_30",
)


def trend_names(features: FeatureSchema) -> tuple[str, ...]:
    """Columns of `trend`."""
    of_others = [(f"{name}_log_count_90", f"{name}_per_sale") for name in features.other_tables]
    of_amounts = map(of_amount, features.amounts)
    return OF_TARGET + tuple(name for pair in of_others for name in pair) + tuple(of_amounts)


def trends(
    batches: Iterator[pa.RecordBatch],
    anchors: Sequence[int],
    horizon_days: float,
    features: FeatureSchema,
) -> Iterator[pa.RecordBatch]:
    """Kernel over a partition of events and items by item: `COLUMNS`.

    One row per anchor (microseconds since 1970) and item that exists at it.
    """
    table = gather(batches)
    if table is None:
        return
    names = ("kind", schema.ITEM, schema.ENTITY, schema.EVENT, "price", "quantity")
    rows = {name: column(table, name, missing=0) for name in names}
    amounts = features.stored_amounts()
    rows |= {name: column(table, stored, missing=np.nan) for name, stored in amounts.items()}
    rows[schema.TIME] = column(table, schema.TIME, missing=0)
    rows[SALE_START] = column(table, SALE_START, missing=ALWAYS)
    rows[SALE_END] = column(table, SALE_END, missing=NEVER)
    order = np.lexsort(tuple(rows[n] for n in (schema.EVENT, schema.TIME, schema.ENTITY, "item")))
    rows = {name: values[order] for name, values in rows.items()}
    is_item = rows["kind"] == ITEM_ROW
    items = {name: rows[name][is_item] for name in (schema.ITEM, SALE_START, SALE_END)}
    wanted, other_tables = trend_names(features), features.other_tables
    for anchor in anchors:
        exists = windows.exists(items[SALE_START], items[SALE_END], anchor)
        nodes, start = items[schema.ITEM][exists], items[SALE_START][exists]
        if not len(nodes):
            continue
        seen = ~is_item & windows.is_visible(rows[schema.TIME], anchor)
        place = np.minimum(np.searchsorted(nodes, rows[schema.ITEM]), len(nodes) - 1)
        seen &= nodes[place] == rows[schema.ITEM]
        by_kind = [
            _of_kind(rows, seen, place, anchor, kind) for kind in range(len(other_tables) + 1)
        ]
        sales = by_kind[0]
        spells = Spells.of(sales["place"], sales["entity"], sales["age"], len(nodes))
        found = _of_target(sales, len(nodes), horizon_days)
        found |= {
            "repeat_rate": spells.repeat_rate(),
            "repeat_gap_days": spells.median_days(),
        }
        on_sale = np.where(start == ALWAYS, anchor + DAY, start)
        found["days_on_sale"] = np.where(start == ALWAYS, np.nan, (anchor - on_sale) / DAY)
        num_sales = np.bincount(sales["place"], minlength=len(nodes))
        for name, others in zip(other_tables, by_kind[1:], strict=True):
            recent = others["place"][others["age"] < 90]
            found[f"{name}_log_count_90"] = np.log1p(np.bincount(recent, minlength=len(nodes)))
            all_of_it = np.bincount(others["place"], minlength=len(nodes))
            found[f"{name}_per_sale"] = ratio(all_of_it, num_sales)
        mine = seen & (rows["kind"] == 0)
        found |= {name: mean(place[mine], rows[name][mine], len(nodes)) for name in amounts}
        assert set(found) == set(wanted)
        trend = np.stack([found[name] for name in wanted], axis=1)
        yield pa.RecordBatch.from_arrays(
            [
                timestamps(np.full(len(nodes), anchor)),
                pa.array(nodes, pa.int64()),
                _rows(trend),
            ],
            names=NAMES,
        )


def _rows(matrix: Array) -> pa.ListArray:
    """The rows of a matrix as lists of float32."""
    lengths = np.full(len(matrix), matrix.shape[1])
    return lists(matrix.ravel().astype(np.float32), lengths, pa.float32())


def _of_kind(rows: Columns, seen: Array, place: Array, anchor: int, kind: int) -> Columns:
    """The visible rows of one event table: item positions, entities, ages and amounts."""
    mine = seen & (rows["kind"] == kind)
    return {
        "place": place[mine],
        "entity": rows[schema.ENTITY][mine],
        "age": (anchor - rows[schema.TIME][mine]) / DAY,
        "price": rows["price"][mine],
        "quantity": rows["quantity"][mine],
    }


def _of_target(sales: Columns, num_items: int, horizon: float) -> Columns:
    place, age = sales["place"], sales["age"]
    return {
        **_volumes(place, age, num_items, horizon),
        **_buyers(sales, num_items, horizon),
        **_prices(sales, num_items),
    }


def _volumes(place: Array, age: Array, num_items: int, horizon: float) -> Columns:
    found: Columns = {}
    counts = {w: np.bincount(place[age < w], minlength=num_items) for w in WINDOWS}
    for w in WINDOWS:
        found[f"log_sales_{w}"] = np.log1p(counts[w])
    for a, b in itertools.pairwise(WINDOWS):
        found[f"sales_ratio_{a}_{b}"] = ratio(counts[a] / a, counts[b] / b)
    for name, half_life in [*((str(h), float(h)) for h in HALF_LIVES), ("horizon", horizon)]:
        decayed = np.bincount(place, np.exp2(-age / half_life), num_items)
        found[f"log_decayed_sales_{name}"] = np.log1p(decayed)
    # The same days one year ago as the label window: ages in [365 - horizon, 365).
    ago = np.bincount(place[(age < YEAR) & (age >= YEAR - horizon)], minlength=num_items)
    before = np.bincount(place[(age >= YEAR) & (age < YEAR + horizon)], minlength=num_items)
    found["log_sales_year_ago"] = np.log1p(ago)
    found["season_ratio"] = np.log1p(ago) - np.log1p(before)
    oldest, newest = np.full(num_items, np.nan), np.full(num_items, np.nan)
    np.fmax.at(oldest, place, age)
    np.fmin.at(newest, place, age)
    for w in RATE_WINDOWS:
        # Sales that the rate promised since the last one: many where an item is out of stock.
        found[f"sales_missed_{w}"] = newest * counts[w] / w
    return found | {"days_since_first_sale": oldest, "days_since_last_sale": newest}


def _buyers(sales: Columns, num_items: int, horizon: float) -> Columns:
    """Who bought, and how often owners and others buy within a horizon."""
    place, age = sales["place"], sales["age"]
    first = differs(place, sales["entity"])
    pair = np.cumsum(first) - 1
    owned = place[first]
    oldest = age[first]  # rows of a pair lie oldest first
    newest = age[np.append(np.flatnonzero(first)[1:] - 1, len(age) - 1)[: len(owned)]]
    owners = np.bincount(owned, minlength=num_items)
    could, did = np.zeros(num_items), np.zeros(num_items)
    for period in range(1, PERIODS + 1):
        opened = period * horizon
        owner = oldest >= opened
        within = (age < opened) & (age >= opened - horizon)
        bought = np.bincount(pair[within], minlength=len(owned)) > 0
        could += np.bincount(owned[owner], minlength=num_items)
        did += np.bincount(owned[owner & bought], minlength=num_items)
    newcomers = np.bincount(owned[oldest < horizon], minlength=num_items)
    active = np.bincount(owned[newest < horizon], minlength=num_items)
    found = {
        "log_owners": np.log1p(owners),
        "owner_conversion": ratio(did, could),
        "log_first_buyers_horizon": np.log1p(newcomers),
        "log_decayed_first_buyers_30": np.log1p(
            np.bincount(owned, np.exp2(-oldest / 30), num_items)
        ),
        "first_buyer_share": ratio(newcomers, active),
    }
    for w in WINDOWS:
        found[f"log_buyers_{w}"] = np.log1p(np.bincount(owned[newest < w], minlength=num_items))
    return found


def _prices(sales: Columns, num_items: int) -> Columns:
    place, age, price = sales["place"], sales["age"], sales["price"]
    known = price > 0
    log_price = np.log(np.where(known, price, 1.0))
    lately = known & (age < 30)
    usual = mean(place[known], log_price[known], num_items)
    now = mean(place[lately], log_price[lately], num_items)
    quantity = sales["quantity"]
    bought = quantity > 0
    units = np.where(bought, quantity, 1.0)
    spend = np.where(known, price, 0.0) * units
    found = {
        "log_price": usual,
        "log_price_now": np.where(np.isnan(now), usual, now),
        "price_change": now - usual,
        "log_quantity": mean(place[bought], np.log(units[bought]), num_items),
    }
    has_price = np.bincount(place[known], minlength=num_items) > 0
    for w in (7, 30):
        revenue = np.log1p(np.bincount(place[age < w], spend[age < w], num_items))
        found[f"log_revenue_{w}"] = np.where(has_price, revenue, np.nan)
    return found
