"""What a seed likes of items' traits, against numbers worked out by hand. No Spark."""

import numpy as np
import pytest

from recspark.prepare import latent_classes, tastes
from recspark.prepare.class_covariates import Covariate
from recspark.prepare.latent_classes import Classes, Traits
from recspark.prepare.pair_history import Pairs
from recspark.prepare.trait_counts import UNKNOWN

NUM_ITEMS = 5
# Items 0 and 1 are toys, 2 and 3 books, 4 is neither. Each counts as bought half a time more than
# it was: toys 8 times, books twice.
CATEGORY = np.array([0, 0, 1, 1, UNKNOWN])
NO_PRICE = np.full(NUM_ITEMS, UNKNOWN)
TRAITS = Traits.of([CATEGORY, NO_PRICE], np.array([5.5, 1.5, 0.5, 0.5, 0.5]))
USUAL_TOYS, USUAL_BOOKS = 8 / 10, 2 / 10
LOG_DEMAND = np.log([4.5, 1.5, 0.5, 0.5, 0.5])
# Seed 0 bought both toys, seed 1 a book, seed 2 nothing.
BOUGHT = Pairs(np.array([0, 1, NUM_ITEMS + 2]), {})
STRENGTH = 6.0
NO_COLUMNS = np.empty((3, 0), dtype=np.int64)
ALIKE = Classes(TRAITS, np.ones(1), np.array([STRENGTH, 40.0]), (np.ones((1, 2)), np.ones((1, 1))))


def taste_of(seed, classes=ALIKE, bought=BOUGHT, names=("category",), columns=NO_COLUMNS):
    """The tastes of one seed for every item, by name."""
    return tastes.tastes(
        bought, LOG_DEMAND, classes,
        item_traits=names, seed=np.full(NUM_ITEMS, seed), item=np.arange(NUM_ITEMS), columns_SW=columns,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("seed", "toys", "books"),
    [
        (0, (2 + STRENGTH * USUAL_TOYS) / 8 / USUAL_TOYS, STRENGTH / 8),
        (1, STRENGTH / 7, (1 + STRENGTH * USUAL_BOOKS) / 7 / USUAL_BOOKS),
        (2, 1, 1),
    ],
)
def test_where_all_are_of_one_class_a_taste_is_the_own_share_smoothed_by_everybodys(
    seed, toys, books
):
    expected = np.log([toys, toys, books, books, np.nan])
    np.testing.assert_allclose(taste_of(seed)["taste_of_category"], expected, atol=1e-12)


def test_a_seed_likes_what_the_class_likes_to_which_it_seems_to_belong():
    # A third buys toys only half as often as all do, and books three times as often.
    factors = np.array([[1.0, 1.0], [0.5, 3.0]])
    classes = Classes(
        TRAITS, np.array([2 / 3, 1 / 3]), np.array([STRENGTH, 40.0]), (factors, np.ones((2, 1)))
    )
    found = taste_of(1, classes)["taste_of_category"]
    # All purchases of these: 8, 2 and 1 (neither); 4, 6 and 1.
    toys, books = np.array([8 / 10, 4 / 10]), np.array([2 / 10, 6 / 10])
    belongs = np.array([2 / 3, 1 / 3]) * books  # after one book
    belongs /= belongs.sum()
    like_toys = (belongs * STRENGTH * toys / (STRENGTH + 1)).sum()
    like_books = (belongs * (1 + STRENGTH * books) / (STRENGTH + 1)).sum()
    expected = np.log([like_toys / USUAL_TOYS] * 2 + [like_books / USUAL_BOOKS] * 2 + [np.nan])
    np.testing.assert_allclose(found, expected)


def test_of_a_seed_without_a_history_its_own_columns_tell():
    factors = np.array([[1.0, 1.0], [0.5, 3.0]])
    share_K, lift_VK = np.array([2 / 3, 1 / 3]), np.array([[1.25, 0.5], [0.5, 2.0]])
    classes = Classes(
        TRAITS, share_K, np.array([STRENGTH, 40.0]), (factors, np.ones((2, 1))),
        (Covariate(np.array([4, 7]), lift_VK),),
    )  # fmt: skip
    columns = np.array([[UNKNOWN], [5], [7]])
    toys = np.array([8 / 10, 4 / 10])  # of what each class buys, as above
    # Seed 2 is of the value 7: 2/3 * 0.5 and 1/3 * 2.
    nobody = Pairs(np.empty(0, dtype=np.int64), {})
    for seed, belongs in ((0, share_K), (1, share_K), (2, np.array([1 / 3, 2 / 3]))):
        found = taste_of(seed, classes, nobody, columns=columns)["taste_of_category"]
        assert found[0] == pytest.approx(np.log((belongs * toys).sum() / USUAL_TOYS))


def test_the_taste_for_an_item_takes_all_traits_together_and_demand_goes_on_top():
    maker = np.array([0, 1, 0, 1, 0])
    traits = Traits.of([CATEGORY, maker, NO_PRICE], np.full(NUM_ITEMS, 2.0))
    classes = latent_classes.none(traits)
    found = taste_of(0, classes, names=("category", "maker"))
    both = np.nan_to_num(found["taste_of_category"]) + found["taste_of_maker"]
    np.testing.assert_allclose(found["taste_overall"], both)  # with one class, nothing mixes
    np.testing.assert_allclose(found["taste"], LOG_DEMAND + both)


def test_demand_is_first_buyers_per_customer_who_has_yet_to_buy():
    # Five found the first item, half of whose customers have it; two the second, which is rare.
    first_buyers, owners = np.log1p(np.array([5.0, 2.0, 0.0, 1.0])), np.array([0.5, 0.0, 0.0, 1.0])
    expected = np.log([5.5 / 0.5, 2.5, 0.5, 1.5 / 0.05])  # an item that all own has some left
    np.testing.assert_allclose(tastes.log_demand(first_buyers, owners), expected)


def test_purchases_of_a_seed_beside_others_do_not_mix():
    # A value that only the last seed has, and a trait that most items lack.
    maker = np.array([UNKNOWN, UNKNOWN, 3, UNKNOWN, UNKNOWN])
    traits = Traits.of([maker, NO_PRICE], np.full(NUM_ITEMS, 2.0))
    for seed in (0, 1):  # nothing known of its makers; all that anybody buys is of 3
        found = taste_of(seed, latent_classes.none(traits), names=("maker",))
        assert found["taste_of_maker"][2] == pytest.approx(0)
        assert np.isnan(found["taste_of_maker"][[0, 1, 3, 4]]).all()


# Nine toys at 1 to 9 and six books at 10 to 60, and one thing more.
SHELVES = np.array([0] * 9 + [1] * 6 + [2])
LOG_PRICES = np.log(np.array([*range(1, 10), *range(10, 70, 10), 5.0]))


def test_tiers_within_a_category_hold_equally_many_of_its_items():
    tiers = tastes.tiers_within(SHELVES, LOG_PRICES)
    assert tiers.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 0, 1, 1, 2, 2, UNKNOWN]
    # Equal prices are of one tier, and an unknown one is of none.
    prices = np.log(np.array([3.0, 3, 3, 3, 1, 2, 2]))
    prices[-1] = np.nan
    tiers = tastes.tiers_within(np.zeros(7, int), prices)
    assert tiers.tolist() == [1, 1, 1, 1, 0, 0, UNKNOWN]


def test_prices_are_compared_within_the_trait_that_tells_most_of_them():
    even = np.arange(16) % 2
    *item_traits, tiers = tastes.with_price([even, SHELVES], LOG_PRICES)
    assert [values is given for values, given in zip(item_traits, [even, SHELVES], strict=True)]
    np.testing.assert_array_equal(tiers, tastes.tiers_within(SHELVES, LOG_PRICES))
    # Where values have too few items, prices are compared over all.
    (tiers,) = tastes.with_price([], LOG_PRICES)
    np.testing.assert_array_equal(tiers, tastes.price_tiers(LOG_PRICES))
    *_, tiers = tastes.with_price([np.arange(16)], LOG_PRICES)
    np.testing.assert_array_equal(tiers, tastes.price_tiers(LOG_PRICES))


def test_price_tiers_hold_equally_many_items():
    prices = np.log(np.append(np.arange(1.0, 81.0), np.nan))
    tiers = tastes.price_tiers(prices)
    assert tiers[-1] == UNKNOWN
    assert np.bincount(tiers[:-1]).tolist() == [10] * tastes.PRICE_TIERS
    assert (tastes.price_tiers(np.full(3, np.nan)) == UNKNOWN).all()


def test_without_traits_prices_or_purchases_nothing_is_known():
    nobody = Pairs(np.empty(0, dtype=np.int64), {})
    traits = Traits.of([NO_PRICE], np.full(NUM_ITEMS, 2.0))
    found = taste_of(0, latent_classes.none(traits), nobody, names=())
    assert np.isnan(found["taste_by_price"]).all()
    assert "taste_overall" not in found  # it would be the taste for the price again
    assert found["taste"][0] == pytest.approx(np.log(4.5))
    assert list(found) == list(tastes.names([]))
