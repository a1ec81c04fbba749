"""Features of (seed, candidate) pairs, in groups that can be switched off one by one.

All are computed from rows `<= anchor`; times in days; NaN where unknown. numpy only. Half-lives
are multiples of the horizon: quarter 0.25, one 1, three 3, twelve 12.
"""

from dataclasses import dataclass

import numpy as np

from recspark.encodings import TASTE
from recspark.prepare import due, habits, tastes
from recspark.prepare.arrow_rows import Array, Columns
from recspark.prepare.feature_schema import FeatureSchema, of_amount
from recspark.prepare.item_trends import OF_TARGET
from recspark.prepare.latent_classes import Classes
from recspark.prepare.pair_history import (
    BASKET_DECAYS,
    HALF_LIVES,
    LAST_BASKETS,
    SLOW_HALF_LIVES,
    History,
    Pairs,
    basket_decay_names,
    decay_names,
    ratio,
)
from recspark.prepare.retrieval import SOURCES, Retrieved

SOURCE_RANKS = tuple(f"{source}_rank" for source in SOURCES)
USER = (
    "baskets",
    "distinct_items",
    "tempo",
    "recency",
    "tenure",
    "repeat_share",
    "basket_size",
    "basket_spend",
    "row_quantity",
    "decayed_rows",
    "season_rows",
    *habits.OF_USER,
)
_GROUPS: dict[str, tuple[str, ...]] = {
    "sources": (*SOURCE_RANKS, "popularity_place"),
    "copurchase": (
        "copurchase_score",
        "copurchase_mean",
        "basket_similarity",
        "recent_copurchase",
        "closest_similarity",
        "closest_recent_similarity",
    ),
    "neighbours": ("neighbours_rate", "neighbours_rate_of_nearest", "neighbours_recent"),
    "counts": (
        "purchases",
        "rows",
        "share_of_baskets",
        "share_of_rows",
        "share_since_first",
    ),
    "recency": ("days_since_last", "days_since_first", "distinct_items_since"),
    "decays": (*decay_names("decayed"), "decayed_share"),
    "gaps": ("mean_gap", "gap_spread", "last_gap"),
    "due": ("due_own", "due_last_gap", "due_item", "due_user", "due_chance", "tempo_due"),
    "baskets": (
        "baskets_ago",
        *(f"in_last_{n}_baskets" for n in LAST_BASKETS),
        *basket_decay_names("basket_decayed"),
        *basket_decay_names("basket_share"),
        "basket_rate",
    ),
    "amounts": (
        *(f"decayed_quantity_{name}" for name in SLOW_HALF_LIVES),
        *(f"decayed_spend_{name}" for name in SLOW_HALF_LIVES),
        "mean_quantity",
        "last_quantity",
        "stock_days",
        "share_of_spend",
    ),
    "chance": ("chance",),
    "prices": ("price_against_last", "price_against_own", "price_against_user"),
    "habits": ("popularity_against_user", "novelty_against_user", "spend_against_user"),
    "season": ("season_purchases",),
    "user": tuple(f"user_{name}" for name in USER),
    "item": tuple(f"item_{name}" for name in OF_TARGET),
}
_NO_PAIR_IS_ZERO = ("purchases", "rows", "season_purchases")


def groups(features: FeatureSchema) -> dict[str, tuple[str, ...]]:
    """Feature names by group; every further event table (in order) is a group of its own."""
    amounts = [of_amount(name) for name in features.amounts]
    of_amounts = {
        "amounts": tuple(f"{what}_{name}" for name in amounts for what in ("mean", "decayed")),
        "user": tuple(f"user_{name}" for name in amounts),
        "item": tuple(f"item_{name}" for name in amounts),
    }
    known = {group: names + of_amounts.get(group, ()) for group, names in _GROUPS.items()}
    of_traits = {"tastes": tastes.names(features.item_traits)}
    of_others = {f"events_{name}": _other_names(name) for name in features.other_tables}
    return known | of_traits | of_others


def pair_names(features: FeatureSchema) -> tuple[str, ...]:
    """The columns of `features`, in order."""
    return tuple(name for group in groups(features).values() for name in group)


def _other_names(table: str) -> tuple[str, ...]:
    columns = ("count", "days_since_last", "decayed", "user_count", "user_days_since_last")
    return tuple(f"{table}_{column}" for column in columns)


@dataclass(frozen=True, eq=False)
class Block:
    """All that is known of a block of S seeds of one anchor and their C candidates each."""

    history: History
    pairs: Pairs
    users: Columns  # (S,), of `pair_history.seed_columns` and `habits.habits`
    trend: Columns  # (N,)
    due_rates: Array  # (N, I), of `due.rates`
    classes: Classes  # of the anchor's customers
    log_demand_N: Array  # `tastes.log_demand`
    columns_SW: Array  # int64, the seeds' own, as `FeatureSchema.entity_traits`; -1: none
    retrieved: Retrieved
    others: dict[str, History]  # further event tables, by name
    features: FeatureSchema
    horizon_days: float

    @property
    def seed(self) -> Array:
        """int64 (S * C,)."""
        return np.repeat(np.arange(self.history.num_seeds), self.retrieved.items.shape[1])

    @property
    def item(self) -> Array:
        """int64 (S * C,), positions."""
        return np.asarray(self.retrieved.items.ravel())


def features(block: Block) -> Array:
    """float32 (S * C, F), columns as `pair_names` of what the block has, NaN: unknown."""
    seed, item = block.seed, block.item
    keys = seed * block.history.num_items + item
    user = {name: values[seed] for name, values in block.users.items()}
    amounts = tuple(map(of_amount, block.features.amounts))
    trend = {name: block.trend[name][item] for name in (*OF_TARGET, *amounts)}
    rows = block.pairs.find(keys)
    pair = {
        name: block.pairs.at(rows, name, 0.0 if _is_zero_without_pair(name) else np.nan)
        for name in block.pairs.columns
    }
    found = dict(block.retrieved.columns)
    found |= {name: values for name, values in pair.items()}
    found |= _shares(pair, user) | _due(pair, user, trend)
    found |= _prices(pair, user, trend) | _habits(user, trend)
    found |= {f"user_{name}": user[name] for name in (*USER, *amounts)}
    found |= {f"item_{name}": trend[name] for name in (*OF_TARGET, *amounts)}
    found |= tastes.tastes(
        block.pairs, block.log_demand_N, block.classes,
        item_traits=block.features.item_traits,
        seed=seed, item=item, columns_SW=block.columns_SW,
    )  # fmt: skip
    found |= _chances(block, found[TASTE], pair["days_since_last"], item)
    for name, other in block.others.items():
        found |= _of_other(name, other, keys, seed, block.horizon_days)
    names = pair_names(block.features)
    matrix = np.empty((len(keys), len(names)), dtype=np.float32)
    for place, name in enumerate(names):
        matrix[:, place] = found[name]
    return matrix


def _is_zero_without_pair(name: str) -> bool:
    return name in _NO_PAIR_IS_ZERO or name.startswith(
        ("decayed_", "basket_decayed_", "in_last_", "spend")
    )


def _shares(pair: Columns, user: Columns) -> Columns:
    of_baskets = {
        f"basket_share_{percent}": ratio(
            pair[f"basket_decayed_{percent}"], user[f"basket_rows_{percent}"]
        )
        for percent in BASKET_DECAYS
    }
    return of_baskets | {
        "basket_rate": ratio(pair["decayed_by_basket"], user["baskets"]),
        "share_of_baskets": ratio(pair["purchases"], user["baskets"]),
        "share_of_rows": ratio(pair["rows"], user["rows"]),
        "share_of_spend": ratio(pair["spend"], user["spend"]),
        "decayed_share": ratio(pair["decayed_one"], user["decayed_rows"]),
        # Of the baskets that the tempo promises since the first purchase, how many held the item.
        "share_since_first": ratio(pair["purchases"], pair["days_since_first"] / user["tempo"] + 1),
    }


def _due(pair: Columns, user: Columns, trend: Columns) -> Columns:
    """Days since the last purchase over what is usual: for the pair, the item, the user."""
    recency = pair["days_since_last"]
    return {
        "due_own": ratio(recency, pair["mean_gap"]),
        "due_last_gap": ratio(recency, pair["last_gap"]),
        "due_item": ratio(recency, trend["repeat_gap_days"]),
        "due_user": ratio(recency, user["tempo"]),
        "tempo_due": ratio(user["recency"], user["tempo"]),
    }


def _chances(block: Block, taste: Array, days: Array, item: Array) -> Columns:
    """Logarithms of chances of a line in the horizon: because it is due, and for any reason.

    What is not due is wanted in proportion to taste and demand, as everybody's demand sums to 1.
    """
    is_due = due.mean_chance(block.due_rates[item], days, block.horizon_days)
    wanted = np.exp(taste) / np.exp(block.log_demand_N).sum()
    return {
        "due_chance": np.where(np.isnan(days), np.nan, due.log_chance(is_due)),
        "chance": due.log_chance(is_due + wanted),
    }


def _prices(pair: Columns, user: Columns, trend: Columns) -> Columns:
    """Logarithm of the price now over what the user last paid, usually pays for it, and pays."""
    now = trend["log_price_now"]
    return {
        "price_against_last": now - pair["last_log_price"],
        "price_against_own": now - pair["mean_log_price"],
        "price_against_user": now - user["log_price"],
    }


def _habits(user: Columns, trend: Columns) -> Columns:
    """The item against what the user usually buys, logarithms."""
    novelty = np.log1p(trend["days_since_first_sale"])
    return {
        "popularity_against_user": trend["log_owners"] - user["popularity"],
        "novelty_against_user": novelty - user["novelty"],
        "spend_against_user": trend["log_quantity"] + trend["log_price"] - user["log_row_spend"],
    }


def _of_other(table: str, other: History, keys: Array, seed: Array, horizon: float) -> Columns:
    """Count, recency and decayed count of a further event table, per pair and per user."""
    here = other.item >= 0
    key = other.seed[here] * other.num_items + other.item[here]
    age = other.age[here]
    order = np.lexsort((age, key))
    key, age = key[order], age[order]
    distinct, first, counts = np.unique(key, return_index=True, return_counts=True)
    pair = np.repeat(np.arange(len(distinct)), counts)
    weight = np.exp2(-age / (HALF_LIVES["three"] * horizon))
    pairs = Pairs(
        distinct,
        {
            "count": counts.astype(float),
            "newest": age[first],
            "decayed": np.bincount(pair, weight, len(distinct)),
        },
    )
    rows = pairs.find(keys)
    per_user = np.bincount(other.seed, minlength=other.num_seeds).astype(float)
    newest = np.full(other.num_seeds, np.nan)
    np.fmin.at(newest, other.seed, other.age)
    values = (
        pairs.at(rows, "count", 0.0),
        pairs.at(rows, "newest", np.nan),
        pairs.at(rows, "decayed", 0.0),
        per_user[seed],
        newest[seed],
    )
    return dict(zip(_other_names(table), values, strict=True))
