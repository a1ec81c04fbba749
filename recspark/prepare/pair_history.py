"""What the seeds of one anchor did before it: rows, baskets, and (seed, item) pairs.

A basket is all rows of a seed at one moment. numpy only; every sum runs over sorted rows, so
results do not depend on how seeds are split into blocks.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from recspark.prepare.arrow_rows import Array, Columns, differs


@dataclass(frozen=True, eq=False)
class History:
    """Visible rows of the target table for a block of seeds, oldest first within a seed."""

    num_seeds: int
    num_items: int
    seed: Array  # int64 (E,), ascending
    item: Array  # int64 (E,): position among the existing items, -1 if it no longer exists
    key: Array  # int64 (E,): item node, also of items that no longer exist
    age: Array  # float64 (E,), days, >= 0
    price: Array  # float64 (E,), NaN where unknown
    quantity: Array  # float64 (E,), NaN where unknown
    amounts: Columns = field(default_factory=dict)  # further ones by name, float64 (E,), likewise

    @property
    def units(self) -> Array:
        """Quantity where it is known and positive, else 1."""
        return np.where(self.quantity > 0, self.quantity, 1.0)

    @property
    def spend(self) -> Array:
        """Price times units; 0 where the price is unknown."""
        return np.where(self.price > 0, self.price, 0.0) * self.units

    def new_basket(self) -> Array:
        """Boolean (E,): the row opens a basket of its seed."""
        return differs(self.seed, self.age)

    @cached_property
    def baskets_ago(self) -> Array:
        """int64 (E,): how many baskets of the seed came later."""
        opens = self.new_basket()
        number = np.cumsum(opens) - 1
        last = np.cumsum(np.bincount(self.seed[opens], minlength=self.num_seeds)) - 1
        return np.asarray(last[self.seed] - number)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Distinct (seed, existing item) pairs that were bought, with columns aligned to `key`."""

    key: Array  # int64 (P,), ascending: seed * num_items + item
    columns: Columns

    def find(self, keys: Array) -> Array:
        """Row of each pair, P for one that was never bought; in the shape of `keys`."""
        if not len(self.key):
            return np.zeros(keys.shape, dtype=np.int64)
        place = np.minimum(np.searchsorted(self.key, keys), len(self.key) - 1)
        return np.where(self.key[place] == keys, place, len(self.key))

    def at(self, rows: Array, name: str, missing: float) -> Array:
        """A column at what `find` gave, `missing` where the pair was never bought."""
        return np.append(self.columns[name], missing)[rows]


def decay_names(prefix: str) -> tuple[str, ...]:
    """Names of a sum that decays at each of the half-lives."""
    return tuple(f"{prefix}_{name}" for name in HALF_LIVES)


HALF_LIVES = {"quarter": 0.25, "one": 1.0, "three": 3.0, "twelve": 12.0}  # horizons
SLOW_HALF_LIVES = ("one", "three", "twelve")
LAST_BASKETS = (1, 3, 5, 10)
BASKET_DECAYS = (50, 70, 85, 95)  # percent that a basket weighs against the next newer one
_RATE_DECAY = 0.85  # the same in the vectors by which nearest users are found
YEAR = 365.0  # days


def basket_decay_names(prefix: str) -> tuple[str, ...]:
    """Names of a sum over baskets that decays by each of the percentages."""
    return tuple(f"{prefix}_{percent}" for percent in BASKET_DECAYS)


def decayed_by_basket(history: History, horizon: float) -> Array:
    """float64 (E,): what a row counts, less for every basket since and for its age."""
    by_age = np.exp2(-history.age / (HALF_LIVES["twelve"] * horizon))
    return np.asarray(_RATE_DECAY**history.baskets_ago * by_age)


def seed_columns(history: History, horizon: float) -> Columns:
    """Per seed, float64 (S,): tempo, tenure, sizes and totals; NaN where there is no history."""
    size = history.num_seeds
    opens = history.new_basket()
    baskets = np.bincount(history.seed[opens], minlength=size)
    rows = np.bincount(history.seed, minlength=size)
    oldest, newest = _extremes(history.seed, history.age, size)
    order = np.lexsort((history.key, history.seed))
    seed = history.seed[order]
    first = differs(seed, history.key[order])
    distinct = np.bincount(seed[first], minlength=size)
    spend = np.bincount(history.seed, history.spend, size)
    units = np.bincount(history.seed, history.units, size)
    known = history.price > 0
    log_price = np.log(np.where(known, history.price, 1.0))
    in_season, ago = _same_season(history.age, horizon), history.baskets_ago
    of_baskets = {
        name: np.bincount(history.seed, (percent / 100) ** ago, size)
        for name, percent in zip(basket_decay_names("basket_rows"), BASKET_DECAYS, strict=True)
    }
    return of_baskets | {
        "baskets": baskets.astype(float),
        "rows": rows.astype(float),
        "distinct_items": distinct.astype(float),
        "tempo": ratio(oldest - newest, baskets - 1),
        "recency": newest,
        "tenure": oldest,
        "repeat_share": 1 - ratio(distinct, rows),
        "basket_size": ratio(rows, baskets),
        "basket_spend": np.where(spend > 0, ratio(spend, baskets), np.nan),
        "row_quantity": ratio(units, rows),
        "spend": spend,
        "log_price": mean(history.seed[known], log_price[known], size),
        "decayed_rows": np.bincount(history.seed, np.exp2(-history.age / horizon), size),
        "season_rows": np.bincount(history.seed[in_season], minlength=size).astype(float),
        **{name: mean(history.seed, values, size) for name, values in history.amounts.items()},
    }


def pairs(history: History, horizon: float) -> Pairs:
    """Aggregate the rows of existing items to pairs; see the names in `pair_features`."""
    order = np.lexsort((np.arange(len(history.seed)), history.item, history.seed))
    order = order[history.item[order] >= 0]
    key = history.seed[order] * history.num_items + history.item[order]
    age, ago = history.age[order], history.baskets_ago[order]
    first = differs(key)
    pair = np.cumsum(first) - 1
    size = int(first.sum())
    visit = differs(key, age)
    last = np.append(np.flatnonzero(first)[1:] - 1, len(key) - 1)[:size]
    columns = _counts(pair, age, visit, first, last, size, horizon)
    columns |= _basket_counts(pair[visit], ago[visit], ago[last], size)
    columns |= _amounts(pair, age, history, order, last, size, horizon)
    columns["rows"] = np.bincount(pair, minlength=size).astype(float)
    rates = decayed_by_basket(history, horizon)[order]
    columns["decayed_by_basket"] = np.bincount(pair, rates, size)
    columns["distinct_items_since"] = _bought_later(key[first] // history.num_items, age[last])
    return Pairs(key[first], columns)


def _counts(
    pair: Array, age: Array, visit: Array, first: Array, last: Array, size: int, horizon: float
) -> Columns:
    """Purchases, when they were, the gaps between them, and their decayed counts."""
    purchases = np.bincount(pair[visit], minlength=size).astype(float)
    oldest, newest = age[first], age[last]
    mean_gap = ratio(oldest - newest, purchases - 1)
    visits, at = pair[visit], age[visit]
    gap = -np.diff(at, prepend=np.nan)
    gap[first[visit]] = np.nan
    known = ~np.isnan(gap)
    squares = np.bincount(visits[known], gap[known] ** 2, size)
    spread = np.sqrt(np.maximum(ratio(squares, purchases - 1) - mean_gap**2, 0))
    ends = np.cumsum(purchases).astype(int) - 1
    in_season = _same_season(age, horizon)
    columns = {
        "purchases": purchases,
        "days_since_last": newest,
        "days_since_first": oldest,
        "mean_gap": mean_gap,
        "gap_spread": spread,
        "last_gap": gap[ends],
        "season_purchases": np.bincount(pair[in_season], minlength=size).astype(float),
    }
    for name, multiple in HALF_LIVES.items():
        weight = np.exp2(-at / (multiple * horizon))
        columns[f"decayed_{name}"] = np.bincount(visits, weight, size)
    return columns


def _basket_counts(visits: Array, ago: Array, last_ago: Array, size: int) -> Columns:
    columns = {"baskets_ago": last_ago.astype(float)}
    for number in LAST_BASKETS:
        inside = np.bincount(visits[ago < number], minlength=size)
        columns[f"in_last_{number}_baskets"] = inside.astype(float)
    for name, percent in zip(basket_decay_names("basket_decayed"), BASKET_DECAYS, strict=True):
        columns[name] = np.bincount(visits, (percent / 100) ** ago, size)
    return columns


def _bought_later(seed: Array, newest: Array) -> Array:
    """How many other items a pair's seed bought after the last purchase of this one."""
    order = np.lexsort((newest, seed))
    opens = differs(seed[order])
    changes = differs(seed[order], newest[order])
    place = np.arange(len(order))
    start = place[opens][np.cumsum(opens) - 1]
    found = np.empty(len(order))
    found[order] = place[changes][np.cumsum(changes) - 1] - start
    return found


def _amounts(
    pair: Array,
    age: Array,
    history: History,
    order: Array,
    last: Array,
    size: int,
    horizon: float,
) -> Columns:
    units, spend, price = history.units[order], history.spend[order], history.price[order]
    total = np.bincount(pair, units, size)
    oldest = age[np.searchsorted(pair, np.arange(size))]
    newest = age[last]
    last_visit = age == newest[pair]
    last_units = np.bincount(pair[last_visit], units[last_visit], size)
    # What was bought before the last time lasted from the first time to the last.
    days_per_unit = ratio(oldest - newest, total - last_units)
    known = price > 0
    log_price = np.log(np.where(known, price, 1.0))
    last_price = np.where(known[last], log_price[last], np.nan)
    columns = {
        "mean_quantity": ratio(total, np.bincount(pair, minlength=size)),
        "last_quantity": last_units,
        "stock_days": np.where(oldest > newest, last_units * days_per_unit - newest, np.nan),
        "spend": np.bincount(pair, spend, size),
        "last_log_price": last_price,
        "mean_log_price": mean(pair[known], log_price[known], size),
    }
    weights = {name: np.exp2(-age / (HALF_LIVES[name] * horizon)) for name in SLOW_HALF_LIVES}
    for name, weight in weights.items():
        columns[f"decayed_quantity_{name}"] = np.bincount(pair, units * weight, size)
        columns[f"decayed_spend_{name}"] = np.bincount(pair, spend * weight, size)
    for name, amounts in history.amounts.items():
        mine = amounts[order]
        columns[f"mean_{name}"] = mean(pair, mine, size)
        columns[f"decayed_{name}"] = np.bincount(pair, np.nan_to_num(mine) * weights["three"], size)
    return columns


def mean(owner: Array, values: Array, size: int) -> Array:
    """Mean of each owner's known values, float64 (size,), NaN where it has none."""
    known = ~np.isnan(values)
    total = np.bincount(owner[known], values[known], size)
    return ratio(total, np.bincount(owner[known], minlength=size))


def ratio(part: Array, whole: Array) -> Array:
    """`part / whole`, NaN where the whole is not above 0."""
    return np.asarray(np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan))


def _same_season(age: Array, horizon: float) -> Array:
    """Rows of the days one year before the label window: ages in [365 - horizon, 365)."""
    return np.asarray((age < YEAR) & (age >= YEAR - horizon))


def _extremes(seed: Array, age: Array, size: int) -> tuple[Array, Array]:
    """Oldest and newest age per seed, NaN without rows."""
    oldest, newest = np.full(size, np.nan), np.full(size, np.nan)
    np.fmax.at(oldest, seed, age)
    np.fmin.at(newest, seed, age)
    return oldest, newest
