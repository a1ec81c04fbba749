"""The demo shop's items and merchants: each a pure function of the seed and its id.

A *shelf* is a category at a price tier. Every shelf has a first item that is always on sale, so
that it is never empty. Days count from 1970.  Axes: I items, S shelves, B rows.
"""

from dataclasses import dataclass, fields
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from recspark.demo import draws
from recspark.demo.draws import Booleans, Floats, Ints
from recspark.demo.spec import Shop


class Category(NamedTuple):
    """What the items of a category have in common."""

    name: str
    price: float  # of a usual item
    rhythm_days: float  # usual time until it is used up; 0: it lasts
    nouns: tuple[str, ...]


CATEGORIES = (
    Category("Coffee and tea", 9.0, 24, ("Coffee Beans", "Green Tea", "Espresso", "Herbal Tea")),
    Category("Pantry", 5.0, 18, ("Olive Oil", "Pasta", "Honey", "Granola")),
    Category("Pet supplies", 16.0, 30, ("Cat Food", "Dog Treats", "Litter", "Bird Seed")),
    Category("Personal care", 8.0, 40, ("Shampoo", "Hand Cream", "Soap", "Toothpaste")),
    Category("Cleaning", 7.0, 34, ("Dish Soap", "Laundry Liquid", "Sponges", "Floor Cleaner")),
    Category("Kitchen", 28.0, 0, ("Pan", "Knife", "Teapot", "Cutting Board")),
    Category("Garden", 22.0, 0, ("Planter", "Pruning Shears", "Watering Can", "Lantern")),
    Category("Toys", 19.0, 0, ("Puzzle", "Building Blocks", "Board Game", "Plush Bear")),
    Category("Books", 14.0, 0, ("Novel", "Cookbook", "Atlas", "Biography")),
    Category("Sports", 35.0, 0, ("Yoga Mat", "Running Belt", "Dumbbell", "Tennis Balls")),
    Category("Home decor", 24.0, 0, ("Candle Holder", "Cushion", "Wall Clock", "Vase")),
    Category("Stationery", 6.0, 0, ("Notebook", "Gel Pens", "Desk Calendar", "Wrapping Paper")),
)
TIERS = (("Everyday", 0.6), ("Classic", 1.0), ("Artisan", 1.9))  # first word, share of the price
CITIES = ("Amsterdam", "Berlin", "Lisbon", "Lyon", "Milan", "Porto", "Prague", "Vienna")
NUM_SHELVES = len(CATEGORIES) * len(TIERS)

NEVER = np.iinfo(np.int64).max  # day of withdrawal of an item that stays
MOST_DEMAND = 2.5  # on the day of launch, as a multiple of popularity
_NOVELTY_DAYS = 21.0
_ZIPF_EXPONENT = 0.8
_SHARE_LAUNCHED_LATER = 0.35
_SHARE_WITHDRAWN = 0.2


@dataclass(frozen=True, kw_only=True)
class Items:
    """What is true of some items; all arrays are aligned."""

    item_id_I: Ints
    shelf_I: Ints
    price_I: Floats  # list price
    merchant_id_I: Ints
    from_day_I: Ints  # on sale from this day's midnight on
    until_day_I: Ints  # ... until this day's midnight, exclusive; NEVER: no end
    popularity_I: Floats  # Zipf-distributed demand at a time without news
    rhythm_days_I: Floats  # usual days until it is used up; 0: it lasts

    def at(self, positions: Ints) -> "Items":
        """Some of the items, in any shape."""
        return Items(**{f.name: getattr(self, f.name)[positions] for f in fields(self)})

    @property
    def category_I(self) -> Ints:
        """Position in CATEGORIES."""
        return self.shelf_I // len(TIERS)


def num_merchants(shop: Shop) -> int:
    """One merchant for about twenty items, at least four."""
    return max(4, shop.num_items // 20)


def describe(shop: Shop, item_ids: Ints) -> Items:
    """The items with these ids, which lie in [1, shop.num_items]."""
    seed = shop.seed
    is_first = item_ids <= NUM_SHELVES
    shelf = np.where(
        is_first, item_ids - 1, draws.integer(seed, "items.shelf", NUM_SHELVES, item_ids)
    )
    category, tier = shelf // len(TIERS), shelf % len(TIERS)
    usual_price = np.array([c.price for c in CATEGORIES])[category]
    price = usual_price * np.array([share for _, share in TIERS])[tier]
    spread = np.exp(0.25 * draws.normal(seed, "items.price", item_ids))
    usual_rhythm = np.array([c.rhythm_days for c in CATEGORIES])[category]
    from_day, until_day = _days_on_sale(shop, item_ids, is_first)
    rank = draws.uniform(seed, "items.rank", item_ids) * shop.num_items
    merchants = num_merchants(shop)
    return Items(
        item_id_I=item_ids,
        shelf_I=shelf,
        price_I=np.round(price * spread, 2),
        merchant_id_I=draws.integer(seed, "items.merchant", merchants, item_ids) + 1,
        from_day_I=from_day,
        until_day_I=until_day,
        popularity_I=(rank + 1.0) ** -_ZIPF_EXPONENT,
        rhythm_days_I=usual_rhythm * np.exp(0.3 * draws.normal(seed, "items.rhythm", item_ids)),
    )


def _days_on_sale(shop: Shop, item_ids: Ints, is_first: Booleans) -> tuple[Ints, Ints]:
    """First day on sale and day of withdrawal; a shelf's first item is there throughout."""
    seed = shop.seed
    is_late = draws.uniform(seed, "items.is_late", item_ids) < _SHARE_LAUNCHED_LATER
    launch = shop.first_day + draws.integer(seed, "items.launch", shop.num_days, item_ids)
    earlier = shop.first_day - draws.integer(seed, "items.earlier", 720, item_ids)
    from_day = np.where(is_late & ~is_first, launch, earlier)
    is_withdrawn = draws.uniform(seed, "items.is_withdrawn", item_ids) < _SHARE_WITHDRAWN
    sold_from = np.maximum(from_day, shop.first_day)
    room = shop.end_day + 30 - sold_from  # some withdrawals are planned beyond the history
    shelf_life = 45 + np.floor(draws.uniform(seed, "items.life", item_ids) * room).astype(np.int64)
    return from_day, np.where(is_withdrawn & ~is_first, sold_from + shelf_life, NEVER)


def demand(items: Items, day: npt.ArrayLike) -> Floats:
    """How much each item is wanted on its shelf on a day: 0 while it is not on sale, more when new.

    At most `popularity * MOST_DEMAND`. `day` broadcasts against the items.
    """
    age_days = np.maximum(np.asarray(day) - items.from_day_I, 0)
    freshness = 1.0 + (MOST_DEMAND - 1.0) * np.exp(-age_days / _NOVELTY_DAYS)
    return is_on_sale(items, day) * items.popularity_I * freshness


def is_on_sale(items: Items, day: npt.ArrayLike) -> Booleans:
    """Whether each item can be bought on a day, which broadcasts against the items."""
    return (items.from_day_I <= np.asarray(day)) & (np.asarray(day) < items.until_day_I)


def paid_price(shop: Shop, items: Items, day: Ints) -> Floats:
    """The price per unit on a day: a tenth of all (item, week) pairs are a deal, 20 % off.

    Deals do not change demand.
    """
    is_deal = draws.uniform(shop.seed, "items.deal", items.item_id_I, day // 7) < 0.1
    return np.round(items.price_I * np.where(is_deal, 0.8, 1.0), 2)


def season_and_trend(shop: Shop, day: Ints) -> Floats:
    """How much each shelf is wanted on each day, before taste: [days, S], above zero.

    Categories have a yearly wave and grow or shrink steadily; both have an own phase and slope.
    """
    category = np.arange(len(CATEGORIES))
    seed = shop.seed
    phase = draws.uniform(seed, "categories.phase", category)
    swing = 0.2 + 0.6 * draws.uniform(seed, "categories.swing", category)
    growth = 0.5 * draws.normal(seed, "categories.growth", category)
    year = day[:, None] / 365.25
    years_run = (day[:, None] - shop.first_day) / 365.25
    wave = 1.0 + swing * np.sin(2.0 * np.pi * (year - phase))
    return np.repeat(wave * np.exp(growth * years_run), len(TIERS), axis=1)


@dataclass(frozen=True, kw_only=True)
class Assortment:
    """All items of a shop, laid out so that one can be drawn from a shelf."""

    shop: Shop
    items: Items
    by_shelf_I: Ints  # positions of items, shelf by shelf
    reached_I: Floats  # cumulated popularity in that order
    shelf_start_S1: Ints  # where each shelf starts in that order, and the end

    @classmethod
    def of(cls, shop: Shop) -> Self:
        """Work out the whole catalogue; a worker does it once per task."""
        items = describe(shop, np.arange(1, shop.num_items + 1, dtype=np.int64))
        by_shelf = np.argsort(items.shelf_I, kind="stable")
        sizes = np.bincount(items.shelf_I, minlength=NUM_SHELVES)
        return cls(
            shop=shop,
            items=items,
            by_shelf_I=by_shelf,
            reached_I=np.cumsum(items.popularity_I[by_shelf]),
            shelf_start_S1=np.concatenate([[0], np.cumsum(sizes)]),
        )

    @property
    def has_items_S(self) -> Booleans:
        """Which shelves hold any item; with few items some hold none."""
        return np.diff(self.shelf_start_S1) > 0

    def popular_on(self, shelf_B: Ints, draw_B: Floats) -> Ints:
        """Positions of items drawn from these shelves by popularity, launched yet or not."""
        first, end = self.shelf_start_S1[shelf_B], self.shelf_start_S1[shelf_B + 1]
        before = np.where(first > 0, self.reached_I[first - 1], 0.0)
        target = before + draw_B * (self.reached_I[end - 1] - before)
        place = np.searchsorted(self.reached_I, target, side="right")
        return self.by_shelf_I[np.clip(place, first, end - 1)]
