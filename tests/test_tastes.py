"""What a seed likes of items' traits, against numbers worked out by hand. No Spark."""

import numpy as np
import pytest

from recspark.prepare import tastes
from recspark.prepare.pair_history import Pairs

NUM_ITEMS, PRIOR = 5, tastes.PRIOR
# Items 0 and 1 are toys, 2 and 3 books, 4 is neither; only 0 to 2 were sold, to 6, 2 and 2 people.
CATEGORY = {"category": np.array([0, 0, 1, 1, -1])}
TREND = {
    "log_owners": np.log1p([6, 2, 2, 0, 0]),
    "log_decayed_sales_30": np.log1p([4, 1, 0, 0, 0]),
    "log_price": np.full(NUM_ITEMS, np.nan),
}
# Seed 0 bought both toys, seed 1 a book, seed 2 nothing.
BOUGHT = Pairs(np.array([0, 1, NUM_ITEMS + 2]), {})
OF_TOYS, OF_BOOKS = 8 / 10, 2 / 10  # of everybody's purchases


def taste_of(seed, name="taste_of_category", trend=TREND, traits=CATEGORY, bought=BOUGHT):
    """The taste of one seed for every item."""
    found = tastes.tastes(
        bought, trend, traits,
        seed=np.full(NUM_ITEMS, seed), item=np.arange(NUM_ITEMS), num_seeds=3,
    )  # fmt: skip
    return found[name]


@pytest.mark.parametrize(
    ("seed", "toys", "books"),
    [
        (0, (2 + PRIOR * OF_TOYS) / (2 + PRIOR) / OF_TOYS, PRIOR / (2 + PRIOR)),
        (1, PRIOR / (1 + PRIOR), (1 + PRIOR * OF_BOOKS) / (1 + PRIOR) / OF_BOOKS),
        (2, 1, 1),
    ],
)
def test_a_taste_is_the_smoothed_share_of_a_category_over_everybodys(seed, toys, books):
    expected = np.log([toys, toys, books, books, np.nan])
    np.testing.assert_allclose(taste_of(seed), expected)


def test_purchases_of_a_seed_beside_others_do_not_mix():
    # A value that only the last seed has, and a trait that most items lack.
    alone = {"maker": np.array([-1, -1, 3, -1, -1])}
    assert taste_of(0, "taste_of_maker", traits=alone)[2] == 0  # nothing known of its makers
    assert taste_of(1, "taste_of_maker", traits=alone)[2] == 0  # all that anybody buys is of 3
    assert np.isnan(taste_of(1, "taste_of_maker", traits=alone)[[0, 1, 3, 4]]).all()


def test_all_tastes_and_late_sales_make_naive_bayes():
    trend = TREND | {"log_price": np.log([1.0, 1.0, 9.0, 9.0, 9.0])}
    parts = [taste_of(0, name, trend) for name in ("taste_of_category", "taste_by_price")]
    sold = np.log([4.5, 1.5, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(taste_of(0, "taste", trend), sold + np.nansum(parts, axis=0))


# Nine toys at 1 to 9 and six books at 10 to 60, each sold to two people, and one thing more.
SHELVES = {"category": np.array([0] * 9 + [1] * 6 + [2])}
PRICES = {
    "log_owners": np.log1p(np.full(16, 2.0)),
    "log_decayed_sales_30": np.zeros(16),
    "log_price": np.log(np.array([*range(1, 10), *range(10, 70, 10), 5.0])),
}


def test_tiers_within_a_category_hold_equally_many_of_its_items():
    tiers = tastes.tiers_within(SHELVES["category"], PRICES["log_price"])
    assert tiers.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 0, 1, 1, 2, 2, tastes.UNKNOWN]
    # Equal prices are of one tier, and an unknown one is of none.
    prices = np.log(np.array([3.0, 3, 3, 3, 1, 2, 2]))
    prices[-1] = np.nan
    tiers = tastes.tiers_within(np.zeros(7, int), prices)
    assert tiers.tolist() == [1, 1, 1, 1, 0, 0, tastes.UNKNOWN]


def test_who_buys_the_dear_toys_likes_dear_toys_most_and_dear_books_too():
    items = np.arange(16)
    found = tastes.tastes(
        Pairs(np.array([6, 7, 8]), {}), PRICES, SHELVES,
        seed=np.zeros(16, int), item=items, num_seeds=1,
    )["taste_by_price_within_category"]  # fmt: skip
    # Three dear toys where a tier has 1 of 3: inclined (0 + 3) / (1 + 3) and (3 + 3) / (1 + 3).
    cheap, dear = 4 * 0.75 / 3, 4 * 1.5 / 3
    toys = [np.log(cheap / 7 * 3)] * 6 + [np.log((3 + dear) / 7 * 3)] * 3
    books = [np.log(cheap / 4 * 3)] * 4 + [np.log(dear / 4 * 3)] * 2
    np.testing.assert_allclose(found, [*toys, *books, np.nan])


def test_the_taste_for_prices_within_a_category_goes_before_that_over_all():
    found = tastes.tastes(
        Pairs(np.array([6, 7, 8]), {}), PRICES, SHELVES,
        seed=np.zeros(16, int), item=np.arange(16), num_seeds=1,
    )  # fmt: skip
    within, over_all = found["taste_by_price_within_category"], found["taste_by_price"]
    of_price = np.where(np.isnan(within), over_all, within)
    expected = np.log(0.5) + found["taste_of_category"] + of_price
    np.testing.assert_allclose(found["taste"], expected)


def test_price_tiers_hold_equally_many_items():
    prices = np.log(np.append(np.arange(1.0, 81.0), np.nan))
    tiers = tastes.price_tiers(prices)
    assert tiers[-1] == tastes.UNKNOWN
    assert np.bincount(tiers[:-1]).tolist() == [10] * tastes.PRICE_TIERS
    assert (tastes.price_tiers(np.full(3, np.nan)) == tastes.UNKNOWN).all()


def test_without_traits_prices_or_purchases_nothing_is_known():
    nobody = Pairs(np.empty(0, dtype=np.int64), {})
    found = tastes.tastes(
        nobody, TREND, {}, seed=np.zeros(1, int), item=np.zeros(1, int), num_seeds=1
    )
    assert np.isnan(found["taste_by_price"]).all()
    assert found["taste"] == pytest.approx(np.log(4.5))
    assert list(found) == list(tastes.names([]))
