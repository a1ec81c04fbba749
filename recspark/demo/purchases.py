"""Who buys what in the demo shop, and when: `purchase_weights` is the whole truth about it.

The purchase of a user at a moment is one item, chosen with a chance proportional to
`browsing + due`:

- browsing sums to 1 over all items. A shelf is chosen by taste, season and trend, then an item of
  the shelf by its popularity, while it is on sale, more so when it is new;
- due belongs to what the user keeps in stock: the last few distinct consumables bought. It is low
  just after a purchase, highest one rhythm later, then slowly forgotten.

Sampling draws from the same weights without listing every item, so a catalogue may be large.
Axes: B users or rows, I items, S shelves, P places in a stock.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from recspark.demo import catalog, draws, shoppers
from recspark.demo.catalog import Assortment
from recspark.demo.draws import Floats, Ints
from recspark.demo.shoppers import Users
from recspark.demo.spec import SECONDS_PER_DAY, Shop

STOCK_PLACES = 12  # distinct consumables that a user keeps coming back to
_LOYALTY = 0.3  # weight of an item that is exactly due, against 1 for all browsing
_BASKET_CHANCES = np.array([0.40, 0.28, 0.17, 0.10, 0.05])  # of 1, 2, ... lines in a visit
_EMPTY = -1


@dataclass(kw_only=True)
class Stock:
    """What users keep at home, filled in the order they buy; changed in place."""

    item_BP: Ints  # position of the item, or -1
    bought_day_BP: Floats  # days since 1970, with the time of day; -inf where empty
    rhythm_days_BP: Floats

    @classmethod
    def empty(cls, num_users: int) -> Self:
        """Nothing bought yet."""
        shape = (num_users, STOCK_PLACES)
        return cls(
            item_BP=np.full(shape, _EMPTY, dtype=np.int64),
            bought_day_BP=np.full(shape, -np.inf),
            rhythm_days_BP=np.ones(shape),
        )

    def of(self, rows: Ints) -> "Stock":
        """A copy of some users' stock."""
        return Stock(
            item_BP=self.item_BP[rows],
            bought_day_BP=self.bought_day_BP[rows],
            rhythm_days_BP=self.rhythm_days_BP[rows],
        )

    def put(self, rows: Ints, item: Ints, day: Floats, rhythm_days: Floats) -> None:
        """Note purchases of consumables, one per row: in the item's place, or the oldest one."""
        is_same = self.item_BP[rows] == item[:, None]
        oldest = np.argmin(self.bought_day_BP[rows], axis=1)
        place = np.where(is_same.any(axis=1), np.argmax(is_same, axis=1), oldest)
        self.item_BP[rows, place] = item
        self.bought_day_BP[rows, place] = day
        self.rhythm_days_BP[rows, place] = rhythm_days


def purchase_weights(
    assortment: Assortment, taste_BS: Floats, stock: Stock, moment_B: Floats
) -> Floats:
    """What each user's next line is if bought at `moment_B` (days since 1970): weights_BI.

    Divide a row by its sum for chances. Rows are aligned with `taste_BS` and `stock`, columns with
    `assortment.items`; an item that is not on sale has weight 0.
    """
    items = assortment.items
    day_B = np.floor(moment_B).astype(np.int64)
    demand_BI = catalog.demand(items, day_B[:, None])
    shelf_demand_BS = np.stack(
        [np.bincount(items.shelf_I, row, catalog.NUM_SHELVES) for row in demand_BI]
    )
    shares_BS = shelf_shares(assortment, taste_BS, day_B)
    weights_BI = (shares_BS / np.where(shelf_demand_BS > 0, shelf_demand_BS, 1))[:, items.shelf_I]
    weights_BI = weights_BI * demand_BI
    rows, places = np.nonzero(stock.item_BP != _EMPTY)
    due_BP = due_weights(assortment, stock, moment_B)
    weights_BI[rows, stock.item_BP[rows, places]] += due_BP[rows, places]
    return weights_BI


def shelf_shares(assortment: Assortment, taste_BS: Floats, day_B: Ints) -> Floats:
    """Chance of each shelf when browsing, [B, S]; rows sum to 1, shelves without items get 0."""
    pull_BS = taste_BS * catalog.season_and_trend(assortment.shop, day_B) * assortment.has_items_S
    return np.asarray(pull_BS / pull_BS.sum(axis=1, keepdims=True))


def due_weights(assortment: Assortment, stock: Stock, moment_B: Floats) -> Floats:
    """How much each item in stock is due, [B, P]; 0 where empty or not on sale."""
    elapsed_BP = moment_B[:, None] - stock.bought_day_BP
    log_ratio_BP = np.log(np.maximum(elapsed_BP / stock.rhythm_days_BP, 1e-9))
    width_BP = np.where(log_ratio_BP < 0, 0.3, 0.6)  # needed again quickly, forgotten slowly
    due_BP = _LOYALTY * np.exp(-0.5 * (log_ratio_BP / width_BP) ** 2)
    day_B1 = np.floor(moment_B).astype(np.int64)[:, None]
    is_sold_BP = catalog.is_on_sale(assortment.items.at(stock.item_BP), day_B1)
    return np.where((stock.item_BP != _EMPTY) & is_sold_BP, due_BP, 0.0)


def choose(
    assortment: Assortment,
    taste_BS: Floats,
    stock: Stock,
    moment_B: Floats,
    user_id_B: Ints,
    line_B: Ints,
) -> Ints:
    """Draw each user's next item (its position) with the chances of `purchase_weights`.

    The draw is a function of the seed, the user and the number of the line.
    """
    seed = assortment.shop.seed
    due_BP = due_weights(assortment, stock, moment_B)
    browsing = np.ones((len(moment_B), 1))
    way = draws.weighted(
        draws.uniform(seed, "lines.way", user_id_B, line_B), np.hstack([browsing, due_BP])
    )
    chosen = stock.item_BP[np.arange(len(way)), np.maximum(way - 1, 0)]
    is_browsing = np.flatnonzero(way == 0)
    chosen[is_browsing] = _browse(
        assortment,
        taste_BS[is_browsing],
        np.floor(moment_B[is_browsing]).astype(np.int64),
        user_id_B[is_browsing],
        line_B[is_browsing],
    )
    return chosen


def _browse(
    assortment: Assortment, taste_BS: Floats, day_B: Ints, user_id_B: Ints, line_B: Ints
) -> Ints:
    """Draw a shelf, then from it by popularity until an item is accepted.

    Accepting in proportion to the day's demand makes the draw exact for that day without a table
    of every item's demand on every day.
    """
    seed, items = assortment.shop.seed, assortment.items
    shelf_B = draws.weighted(
        draws.uniform(seed, "lines.shelf", user_id_B, line_B),
        shelf_shares(assortment, taste_BS, day_B),
    )
    chosen = np.full(len(day_B), _EMPTY, dtype=np.int64)
    open_rows = np.arange(len(day_B))
    attempt = 0
    while len(open_rows):
        keys = (user_id_B[open_rows], line_B[open_rows], np.int64(attempt))
        offered = assortment.popular_on(
            shelf_B[open_rows], draws.uniform(seed, "lines.item", *keys)
        )
        demand = catalog.demand(items.at(offered), day_B[open_rows])
        most = items.popularity_I[offered] * catalog.MOST_DEMAND
        is_taken = draws.uniform(seed, "lines.accept", *keys) < demand / most
        chosen[open_rows[is_taken]] = offered[is_taken]
        open_rows = open_rows[~is_taken]
        attempt += 1
    return chosen


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Purchases, user by user in order of time; all arrays are aligned."""

    user_B: Ints  # position of the user
    number_B: Ints  # from 0 within the user
    second_B: Ints  # since 1970
    item_B: Ints  # position of the item


def simulate(assortment: Assortment, users: Users) -> Lines:
    """Everything that these users ever buy; other users have no influence on it."""
    shop = assortment.shop
    user, second = _visits(shop, users)
    size = draws.weighted(
        draws.uniform(shop.seed, "visits.size", users.user_id_B[user], second),
        np.broadcast_to(_BASKET_CHANCES, (len(user), len(_BASKET_CHANCES))),
    )
    user, second = np.repeat(user, size + 1), np.repeat(second, size + 1)
    num_lines = np.bincount(user, minlength=len(users.user_id_B))
    first_line = np.cumsum(num_lines) - num_lines
    number = np.arange(len(user), dtype=np.int64) - first_line[user]
    item = np.full(len(user), _EMPTY, dtype=np.int64)
    taste_BS = shoppers.taste(shop, users)
    stock = Stock.empty(len(users.user_id_B))
    for step in range(int(num_lines.max(initial=0))):
        # The next line of every user who still has one: what they have in stock decides it.
        rows = np.flatnonzero(num_lines > step)
        lines = first_line[rows] + step
        moment = second[lines] / SECONDS_PER_DAY
        chosen = choose(
            assortment, taste_BS[rows], stock.of(rows), moment, users.user_id_B[rows], number[lines]
        )
        item[lines] = chosen
        restock(assortment, stock, rows, users.user_id_B[rows], chosen, moment)
    return Lines(user_B=user, number_B=number, second_B=second, item_B=item)


def restock(
    assortment: Assortment,
    stock: Stock,
    rows: Ints,
    user_id: Ints,
    item: Ints,
    moment: Floats,
) -> None:
    """Put purchases, one per row, into stock; items that last are not kept."""
    usual_days = assortment.items.rhythm_days_I[item]
    is_used_up = usual_days > 0
    kept, item = rows[is_used_up], item[is_used_up]
    item_id = assortment.items.item_id_I[item]
    days = shoppers.rhythm(assortment.shop, user_id[is_used_up], item_id, usual_days[is_used_up])
    stock.put(kept, item, moment[is_used_up], days)


def _visits(shop: Shop, users: Users) -> tuple[Ints, Ints]:
    """Position of the user and second of every visit, user by user in order of time."""
    opened = np.maximum(users.joined_second_B, shop.first_day * SECONDS_PER_DAY)
    span = shop.end_day * SECONDS_PER_DAY - opened
    lines_per_visit = float((_BASKET_CHANCES * np.arange(1, len(_BASKET_CHANCES) + 1)).sum())
    usual = shop.num_events / shop.num_users / lines_per_visit / shoppers.SHARE_PRESENT
    expected = usual * users.activity_B * span / (shop.num_days * SECONDS_PER_DAY)
    rounding = draws.uniform(shop.seed, "users.rounding", users.user_id_B)
    num_visits = np.floor(expected + rounding).astype(np.int64)
    user = np.repeat(np.arange(len(num_visits)), num_visits)
    number = np.arange(len(user)) - (np.cumsum(num_visits) - num_visits)[user]
    part = draws.uniform(shop.seed, "visits.second", users.user_id_B[user], number)
    second = opened[user] + np.floor(part * span[user]).astype(np.int64)
    order = np.lexsort((second, user))
    return user[order], second[order]
