"""Parts of a pair's features that speak for a recommendation, and what they are when they do not.

A part's contribution is what the score loses when its features take these values: as if the item
had never been bought, had nothing in common with what was bought, and so on.
"""

import math
from collections.abc import Mapping

from recspark.encodings import NEW, OWN, POPULAR, PRICE, SIMILAR, TASTE, TOGETHER
from recspark.prepare import pair_features
from recspark.prepare.feature_schema import FeatureSchema

_OWN_GROUPS = ("counts", "recency", "decays", "gaps", "due", "baskets", "amounts", "season")
_OF_THE_USER = ("tempo_due",)  # in a group of pairs, but the same for every item
_ZERO_WITHOUT_PAIR = (
    "purchases", "rows", "season_purchases", "share_of_baskets", "share_of_rows", "share_of_spend",
    "decayed_share", "basket_rate",
)  # fmt: skip
_SUMS = ("decayed_", "basket_decayed_", "basket_share_", "in_last_")


def parts(
    middle: Mapping[str, float], features: FeatureSchema
) -> dict[str, dict[str, float | None]]:
    """Part to feature to its value without the part; None: missing.

    `middle` is the median of each feature over candidates: what popularity is compared with.
    """
    groups = pair_features.groups(features)
    own = {"bought_rank": None} | {
        name: _without_pair(name)
        for group in _OWN_GROUPS
        for name in groups[group]
        if name not in _OF_THE_USER
    }
    items = {"popular_rank": None, "popularity_place": middle["popularity_place"]} | {
        name: middle[name]
        for name in groups["item"]
        if name.startswith(("item_log_sales", "item_log_buyers", "item_log_decayed", "item_sales"))
    }
    price: dict[str, float | None] = dict.fromkeys((*groups["prices"], "item_price_change"), 0.0)
    taste: dict[str, float | None] = dict.fromkeys(groups["tastes"], 0.0)
    return {
        OWN: own,
        TOGETHER: {"copurchased_rank": None} | dict.fromkeys(groups["copurchase"], 0.0),
        SIMILAR: {"neighbours_rank": None} | dict.fromkeys(groups["neighbours"], 0.0),
        NEW: {"new_rank": None, "item_days_since_first_sale": None, "item_days_on_sale": None},
        PRICE: price,
        TASTE: taste | {TASTE: _or_missing(middle[TASTE])},
        POPULAR: {name: _or_missing(value) for name, value in items.items()},
    }


def _without_pair(name: str) -> float | None:
    zero = name in _ZERO_WITHOUT_PAIR or name.startswith(_SUMS)
    return 0.0 if zero else None


def _or_missing(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
