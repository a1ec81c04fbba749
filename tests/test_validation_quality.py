"""What validation takes for chance."""

import numpy as np
import pytest

from recspark.gnn import validation
from recspark.gnn.validation import Quality


def qualities(users, found_VB):
    return validation._qualities(validation._replicate_sums(users, found_VB).astype(float))


def test_the_spread_of_paired_replicates_is_the_standard_error_of_the_difference():
    draw = np.random.default_rng(1)
    shared = draw.random(500)  # users differ much, models on the same user little
    found = np.stack([shared + 0.1 * draw.random(500) for _ in range(3)]) / 2
    first, second, _ = qualities(np.arange(500), found)
    differences = found[0] - found[1]
    spread = np.std(np.subtract(first.replicates, second.replicates))
    assert spread == pytest.approx(differences.std() / 500**0.5, rel=0.15)
    assert first.mean - second.mean == pytest.approx(differences.mean(), abs=1e-6)


def test_only_who_bought_counts_and_the_order_of_users_does_not():
    found = np.array([[0.5, np.nan, 0.25], [1.0, np.nan, 0.0]])
    told = qualities(np.array([7, 8, 9]), found)
    assert [one.mean for one in told] == [0.375, 0.5]
    assert told == qualities(np.array([9, 7]), found[:, [2, 0]])


def test_nobody_bought_is_zero_and_no_worse_than_itself():
    (told,) = qualities(np.array([7]), np.array([[np.nan]]))
    assert (told.mean, set(told.replicates)) == (0.0, {0.0})
    assert told.is_no_worse(told)


@pytest.mark.parametrize(("mean", "expected"), [(0.30, True), (0.29, True), (0.28, False)])
def test_lower_by_more_than_one_standard_error_is_worse(mean, expected):
    best = Quality(mean=0.3, replicates=(0.3, 0.3, 0.3, 0.3))
    other = Quality(mean=mean, replicates=(mean - 0.01, mean + 0.01, mean - 0.01, mean + 0.01))
    assert other.is_no_worse(best) is expected


@pytest.mark.parametrize(("mean", "expected"), [(0.31, False), (0.33, False), (0.34, True)])
def test_higher_by_more_than_three_standard_errors_is_clearly_better(mean, expected):
    usual = Quality(mean=0.3, replicates=(0.3, 0.3, 0.3, 0.3))
    other = Quality(mean=mean, replicates=(mean - 0.01, mean + 0.01, mean - 0.01, mean + 0.01))
    assert other.is_clearly_better(usual) is expected
