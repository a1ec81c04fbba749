"""What is due is told from what owners would buy anyway. No Spark."""

import numpy as np
import pytest

from recspark.prepare import due
from recspark.prepare.life_tables import EDGES, NUM_INTERVALS

MIDDLES = np.append(np.sqrt(np.maximum(EDGES[:-1], 0.5) * EDGES[1:]), EDGES[-1] * 1.2)
NUM_ITEMS = 90


def curve(days, usual):
    """Chance of a line: 0.3 where an item is exactly due, less before and after."""
    return 0.3 * np.exp(-0.5 * (np.log(days / usual) / 0.4) ** 2)


@pytest.fixture(scope="module")
def shop():
    """Items used up in 8 to 60 days, a third that last, all bought by their owners anyway too."""
    draws = np.random.default_rng(0)
    usual = np.where(np.arange(NUM_ITEMS) % 3 > 0, np.exp(draws.uniform(*np.log([8, 60]), NUM_ITEMS)), np.inf)  # fmt: skip
    owners = draws.integers(5, 100, NUM_ITEMS).astype(float)
    others = 3 * owners / owners.sum()
    rates = np.stack([curve(MIDDLES, u) if np.isfinite(u) else 0 * MIDDLES for u in usual])
    at_risk = np.tile(200.0 * (MIDDLES < 200), (NUM_ITEMS, 1))
    counted = draws.poisson(at_risk * (rates + others[:, None])).astype(float)
    return usual, owners, rates, at_risk, counted


def test_rates_are_found_beside_what_owners_buy_anyway(shop):
    usual, owners, rates, at_risk, counted = shop
    found = due.rates(counted, at_risk, owners)
    used_up = np.isfinite(usual)
    assert found.shape == rates.shape
    assert np.corrcoef(found[used_up].ravel(), rates[used_up].ravel())[0, 1] > 0.98
    assert found[used_up].sum() == pytest.approx(rates[used_up].sum(), rel=0.1)
    # Repeats without what is due are a rate of 0.033 a line; next to nothing of it is left.
    assert found[~used_up][:, MIDDLES < 200].mean() < 0.003


def test_an_item_with_few_repeats_follows_the_curve_of_the_others(shop):
    _, owners, _, at_risk, counted = shop
    thin = np.zeros((1, NUM_INTERVALS))
    soon = int(np.searchsorted(EDGES, 20)) - 1
    thin[0, soon] = 3
    found = due.rates(
        np.concatenate([counted, thin]),
        np.concatenate([at_risk, 3.0 * (MIDDLES < 40)[None]]),
        np.append(owners, 10.0),
    )[-1]
    assert found[soon] > 0.1
    assert EDGES[np.argmax(found)] == pytest.approx(20, rel=0.3)
    assert found[np.searchsorted(EDGES, 150)] < 0.02


def test_rates_do_not_depend_on_the_order_of_items(shop):
    _, owners, _, at_risk, counted = shop
    order = np.random.default_rng(1).permutation(NUM_ITEMS)
    found = due.rates(counted, at_risk, owners)[order]
    again = due.rates(counted[order], at_risk[order], owners[order])
    np.testing.assert_allclose(again, found, rtol=1e-6, atol=1e-12)


def test_nothing_is_due_where_nothing_was_ever_bought_again():
    nothing = np.zeros((2, NUM_INTERVALS))
    assert (due.rates(nothing, nothing + 5, np.ones(2)) == 0).all()
    assert due.rates(nothing[:0], nothing[:0], np.ones(0)).shape == (0, NUM_INTERVALS)


def test_a_single_repeat_is_enough_to_learn_from():
    counted = np.zeros((2, NUM_INTERVALS))
    counted[0, 20] = 1
    found = due.rates(counted, np.full((2, NUM_INTERVALS), 10.0), np.ones(2))
    assert np.isfinite(found).all()
    assert (found >= 0).all()


def test_items_beyond_those_learnt_from_are_told_too(shop, monkeypatch):
    _, owners, rates, at_risk, counted = shop
    monkeypatch.setattr(due, "_MOST_ITEMS", 50)
    found = due.rates(counted, at_risk, owners)
    assert np.corrcoef(found.ravel(), rates.ravel())[0, 1] > 0.95


def test_rates_are_the_same_however_many_items_are_told_at_once(shop, monkeypatch):
    _, owners, _, at_risk, counted = shop
    found = due.rates(counted, at_risk, owners)
    monkeypatch.setattr(due, "_ITEMS_AT_ONCE", 7)
    np.testing.assert_allclose(due.rates(counted, at_risk, owners), found, rtol=1e-9)


def test_the_chance_is_the_mean_of_the_rate_over_the_horizon():
    rates = np.zeros((3, NUM_INTERVALS))
    rates[:, EDGES == 2.0] = 0.5  # from 2 days to 2.38
    rates[:, -1] = 0.1  # from 724 days on
    found = due.mean_chance(rates, np.array([1.0, 1000.0, np.nan]), 7.0)
    assert found == pytest.approx([0.5 * (2**1.25 - 2) / 7, 0.1, 0])
    assert due.log_chance(found)[2] == pytest.approx(np.log(1e-5))
