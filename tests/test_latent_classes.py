"""Classes of customers, against chances worked out by hand and classes that were planted. No Spark."""

import numpy as np
import pytest

from recspark.prepare import latent_classes
from recspark.prepare.latent_classes import Classes, Traits
from recspark.prepare.trait_counts import UNKNOWN, Counts

# Items 0 to 11 are toys, 12 to 23 books, 24 is neither.
CATEGORY = np.array([0] * 12 + [1] * 12 + [UNKNOWN])
NUM_ITEMS, NUM_CUSTOMERS = len(CATEGORY), 200
COLOUR = np.arange(NUM_ITEMS) % 2
NO_COLUMNS = np.empty((NUM_CUSTOMERS, 0), dtype=np.int64)


def shop():
    """Distinct (customer, item): the even ones buy six toys and two books, the odd ones turned."""
    customer = np.repeat(np.arange(NUM_CUSTOMERS), 8)
    number = np.tile(np.arange(8), NUM_CUSTOMERS)
    is_toy = (customer % 2 == 0) == (number < 6)
    return customer, (number + customer) % 12 + np.where(is_toy, 0, 12)


def found(values, customer, item, columns=NO_COLUMNS):
    owners_N = np.bincount(item, minlength=NUM_ITEMS).astype(float)
    traits = Traits.of(values, owners_N)
    return latent_classes.fit(traits, customer, item, columns)


def test_counts_are_of_distinct_items_by_value_and_leave_out_items_without_one():
    counts = Counts.of(np.array([0, 0, 0, 2, 2]), np.array([0, 1, 12, 13, 24]), CATEGORY, 3)
    cells = zip(counts.customer_C, counts.value_C, counts.cells.columns["count"], strict=True)
    assert list(cells) == [(0, 0, 2), (0, 1, 1), (2, 1, 1)]
    assert counts.total_U.tolist() == [3, 0, 1]
    asked = counts.at(np.array([0, 0, 1, 2]), np.array([0, 7, 0, 1]))
    assert asked.tolist() == [2, 0, 0, 1]


def test_the_chance_of_counts_is_dirichlet_multinomial():
    counts = Counts.of(np.array([0, 0, 0]), np.array([0, 1, 12]), CATEGORY, 2)
    shares = np.array([[0.5, 0.5], [0.25, 0.75]])
    # With strength 4: 2 * 3 * 2 / (4 * 5 * 6), and 1 * 2 * 3 / (4 * 5 * 6); no purchases: 1.
    expected = np.log([[12 / 120, 6 / 120], [1, 1]])
    np.testing.assert_allclose(counts.log_chance(shares, 4.0), expected, atol=1e-12)


def test_repeated_counts_speak_less_of_the_class():
    counts = Counts.of(np.array([0, 0, 0]), np.array([0, 1, 12]), CATEGORY, 1)
    tables = counts.tables(np.array([[0.5, 0.5]]), 4.0, np.array([[0.5]]))
    np.testing.assert_allclose(tables, [[0.5 * (1 + 2 / 3), 0.5]])


def test_who_buys_alike_is_found_to_be_of_one_class():
    customer, item = shop()
    classes = found([CATEGORY, COLOUR], customer, item)
    counts = classes.traits.counts(customer, item, NUM_CUSTOMERS)
    belongs_UK = classes.belongs(counts, NO_COLUMNS)
    np.testing.assert_allclose(belongs_UK.sum(axis=1), 1)
    assert classes.share_K.sum() == pytest.approx(1)
    shares_KV, _ = classes.shares
    of_toys_U = belongs_UK @ shares_KV[:, 0]
    assert (of_toys_U[::2] > 0.65).all()
    assert (of_toys_U[1::2] < 0.35).all()


def test_of_who_bought_nothing_the_own_columns_tell():
    # Two of three who like toys are of branch 0, and two of three others of branch 1.
    customer, item = shop()
    number = np.arange(NUM_CUSTOMERS)
    branch = np.where(number % 3 == 0, number % 2 == 0, number % 2 == 1).astype(int)
    classes = found([CATEGORY, COLOUR], customer, item, branch[:, None])
    nobody = np.empty(0, dtype=np.int64)
    belongs = classes.belongs(
        classes.traits.counts(nobody, nobody, 3), np.array([[0], [1], [UNKNOWN]])
    )
    of_toys = belongs @ classes.shares[0][:, 0]
    assert of_toys[0] > 0.55
    assert of_toys[1] < 0.45
    assert of_toys[2] == pytest.approx(0.5, abs=0.02)


def test_a_trait_that_follows_from_another_is_not_counted_twice():
    customer, item = shop()
    maker = np.where(CATEGORY == UNKNOWN, UNKNOWN, CATEGORY + 10)  # each category has its own
    classes = found([CATEGORY, maker], customer, item)
    counts = classes.traits.counts(customer, item, NUM_CUSTOMERS)
    belongs_UK = classes.belongs(counts, NO_COLUMNS)
    of_category, of_maker = classes.shares
    np.testing.assert_allclose(of_maker[:, 10:], of_category, atol=1e-12)
    # Three of four that the even ones buy are toys, not nine of ten.
    of_toys = (belongs_UK[::2] @ of_category[:, 0]).mean()
    assert of_toys == pytest.approx(0.75, abs=0.03)


def test_a_trait_in_which_nobody_differs_leaves_lifts_as_they_are():
    customer, item = shop()
    classes = found([CATEGORY, COLOUR], customer, item)
    of_category, of_colour = classes.factors
    assert np.abs(np.log(of_colour)).max() < 0.1 < np.abs(np.log(of_category)).max()


def test_lifts_keep_everybodys_purchases_at_one():
    traits = Traits.of([CATEGORY], np.full(NUM_ITEMS, 3.0))
    classes = Classes(
        traits, np.array([0.5, 0.5]), np.array([40.0]), (np.array([[3.0, 1.0], [1, 1]]),)
    )
    lifts = classes.lift_KN
    np.testing.assert_allclose((lifts * traits.usual_N).sum(axis=1), 1)
    np.testing.assert_allclose(lifts[0] / lifts[0][-1], [3] * 12 + [1] * 13)
    np.testing.assert_allclose(classes.lifts(without=0), 1)


def test_a_trait_alone_has_no_classes_as_nothing_goes_with_it():
    classes = found([CATEGORY], *shop())
    assert classes.share_K.tolist() == [1]
    np.testing.assert_allclose(classes.lift_KN, 1)


@pytest.mark.parametrize("values", [[], [CATEGORY], [CATEGORY, COLOUR]])
def test_without_customers_or_traits_everybody_buys_as_all_do(values):
    traits = Traits.of(values, np.zeros(NUM_ITEMS))
    nobody = np.empty(0, dtype=np.int64)
    classes = latent_classes.fit(traits, nobody, nobody, NO_COLUMNS[:0])
    assert classes.share_K.tolist() == [1]
    np.testing.assert_allclose(classes.lift_KN, 1)
    counts = traits.counts(nobody, nobody, 2)
    assert classes.belongs(counts, NO_COLUMNS[:2]).tolist() == [[1], [1]]


def test_a_shop_without_items_has_classes_too():
    nothing = np.empty(0, dtype=np.int64)
    traits = Traits.of([nothing], np.empty(0))
    assert latent_classes.fit(traits, nothing, nothing, NO_COLUMNS[:0]).share_K.tolist() == [1]
