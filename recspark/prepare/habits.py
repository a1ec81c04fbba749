"""What a seed tends to buy: known items or new ones, popular or rare, many at a time or few.

numpy only; one value per seed, NaN where its history does not say. An item's usual quantity, price
and number of owners are those of the anchor.
"""

import numpy as np

from recspark.prepare.arrow_rows import Array, Columns, differs
from recspark.prepare.pair_history import History, mean

REPEAT_BASKETS = (1, 3, 10)  # newest baskets over which a share of repeated rows is taken
_TASTE_BASKETS = 5  # newest baskets whose items show the taste of today

OF_USER = (
    *(f"repeat_share_last_{number}" for number in REPEAT_BASKETS),
    "popularity",
    "popularity_of_first",
    "novelty",
    "quantity_against_usual",
)


def habits(history: History, trend: Columns) -> Columns:
    """`OF_USER` and `log_row_spend`, float64 (S,).

    `trend` has the columns of the items by position.
    """
    ago, repeated = history.baskets_ago, _repeated(history)
    found = {
        f"repeat_share_last_{number}": _mean(history, repeated.astype(float), ago < number)
        for number in REPEAT_BASKETS
    }
    exists, lately = history.item >= 0, ago < _TASTE_BASKETS
    item = np.maximum(history.item, 0)
    owners = _at(trend["log_owners"], item)
    first_sold = _at(trend["days_since_first_sale"], item)
    novelty = np.log1p(np.maximum(first_sold - history.age, 0))
    quantity = np.log(history.units) - _at(trend["log_quantity"], item)
    spend = history.spend
    log_spend = np.log(np.where(spend > 0, spend, 1.0))
    return found | {
        "popularity": _mean(history, owners, exists & lately),
        "popularity_of_first": _mean(history, owners, exists & ~repeated),
        "novelty": _mean(history, novelty, exists & lately),
        "quantity_against_usual": _mean(history, quantity, exists & (history.quantity > 0)),
        "log_row_spend": _mean(history, log_spend, spend > 0),
    }


def _repeated(history: History) -> Array:
    """Boolean (E,): the seed bought the item in an earlier basket."""
    order = np.lexsort((history.key, history.seed))  # stable: oldest first within a pair
    seed, key, age = history.seed[order], history.key[order], history.age[order]
    opens = differs(seed, key)
    first_age = age[opens][np.cumsum(opens) - 1]
    repeated = np.empty(len(order), dtype=bool)
    repeated[order] = age < first_age
    return repeated


def _at(values: Array, item: Array) -> Array:
    """Values by item; NaN where no item exists at all."""
    return values[item] if len(values) else np.full(len(item), np.nan)


def _mean(history: History, values: Array, wanted: Array) -> Array:
    """Mean per seed over the wanted rows whose value is known."""
    return mean(history.seed[wanted], values[wanted], history.num_seeds)
