"""What columns of customers tell of their classes, against chances worked out by hand. No Spark."""

import numpy as np
import pytest

from recspark.prepare import class_covariates
from recspark.prepare.class_covariates import Covariate
from recspark.prepare.trait_counts import UNKNOWN

SHARE_K = np.array([0.6, 0.4])
NUM_CUSTOMERS = 100
# The first sixty are of class 0, the others of class 1, and purchases tell so 9 to 1.
CLASS_U = np.repeat([0, 1], [60, 40])
LOG_CHANCE_UK = np.log(np.where(CLASS_U[:, None] == np.arange(2), 0.9, 0.1))
CERTAIN_UK = np.where(CLASS_U[:, None] == np.arange(2), 0.0, -20.0)
# Of the value 0 are 42 of class 0 and 8 of class 1, of the value 1 are 18 and 32.
MOSTLY = np.repeat([0, 1, 0, 1], [42, 18, 8, 32])
SIDES = np.arange(NUM_CUSTOMERS) % 2  # half and half of each class


def fit(*columns):
    return class_covariates.fit(LOG_CHANCE_UK, SHARE_K, np.stack(columns, axis=1))


def test_a_column_that_goes_with_the_class_shifts_how_likely_the_classes_are():
    (found,) = fit(CLASS_U + 5)
    assert found.value_V.tolist() == [5, 6]
    # All sixty of the value 5 are of class 0, and the weakest prior counts as 2.5 customers.
    likely = (60 + 2.5 * 0.6) / 62.5
    expected = [likely / 0.6, (1 - likely) / 0.4]
    np.testing.assert_allclose(found.lift_VK[0], expected, atol=0.02)


def test_a_column_that_tells_a_little_shifts_a_little():
    (found,) = class_covariates.fit(CERTAIN_UK, SHARE_K, MOSTLY[:, None])
    expected = np.array([[42 + 1.5, 8 + 1], [18 + 1.5, 32 + 1]]) / np.array([[31.5, 21]])
    np.testing.assert_allclose(found.lift_VK, expected, rtol=1e-6)


def test_a_customer_does_not_speak_for_itself():
    # Pairs of customers of both classes: one knows nothing of the other by the pair's number.
    pairs = np.append(np.arange(40), np.arange(60))
    (found,) = fit(pairs)
    assert len(found.value_V) == 0


@pytest.mark.parametrize(
    "column",
    [SIDES, np.zeros(NUM_CUSTOMERS, int), np.full(NUM_CUSTOMERS, UNKNOWN), np.arange(NUM_CUSTOMERS)],
    ids=["halves", "constant", "unknown", "of its own each"],
)  # fmt: skip
def test_a_column_that_tells_nothing_is_not_used(column):
    (found,) = fit(column)
    assert found.value_V.tolist() == []
    assert found.lift_VK.shape == (0, 2)


def test_a_column_that_repeats_another_is_counted_once():
    columns = np.stack([MOSTLY, MOSTLY + 7], axis=1)
    first, again = class_covariates.fit(CERTAIN_UK, SHARE_K, columns)
    assert np.abs(again.log_lifts(MOSTLY + 7)).max() < 0.05 < np.abs(first.log_lifts(MOSTLY)).min()


def test_values_of_few_customers_and_unknown_ones_tell_nothing():
    few = CLASS_U.copy()
    few[:4], few[4:10] = 8, UNKNOWN
    (found,) = fit(few)
    assert found.value_V.tolist() == [0, 1]
    asked = found.log_lifts(np.array([8, UNKNOWN, 77, 0]))
    np.testing.assert_array_equal(asked[:3], 0)
    assert (asked[3] != 0).all()


def test_priors_add_up_over_columns_and_are_shares_where_there_are_none():
    covariates = (
        Covariate(np.array([2]), np.array([[1.5, 0.25]])), Covariate.nothing(2),
        Covariate(np.array([4]), np.array([[0.5, 1.75]])),
    )  # fmt: skip
    columns = np.array([[2, 0, 4], [2, 0, UNKNOWN], [3, 0, 3]])
    log_UK = class_covariates.log_prior(SHARE_K, covariates, columns)
    np.testing.assert_allclose(
        np.exp(log_UK), [[0.6 * 0.75, 0.4 * 0.4375], [0.6 * 1.5, 0.4 * 0.25], SHARE_K]
    )
    alone = class_covariates.log_prior(SHARE_K, (), columns)
    np.testing.assert_allclose(np.exp(alone), np.tile(SHARE_K, (3, 1)))


def test_without_customers_no_column_tells():
    (found,) = class_covariates.fit(np.empty((0, 2)), SHARE_K, np.empty((0, 1), dtype=np.int64))
    assert found.value_V.tolist() == []
