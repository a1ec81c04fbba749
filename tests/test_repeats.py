"""Spells between purchases, rates by the days since, and what they promise. No Spark."""

import numpy as np
import pytest

from recspark.prepare import repeats
from recspark.prepare.repeats import EDGES, NUM_INTERVALS, Spells

# item, entity, age: item 0 bought by two entities, item 1 by nobody, item 2 twice on one day.
PURCHASES = np.array([
    (0, 5, 40.5), (0, 5, 30.5), (0, 5, 10.25), (0, 7, 9.0), (2, 5, 20.75), (2, 5, 20.25),
]).T  # fmt: skip


def spells(purchases=PURCHASES, num_items=3):
    item, entity, age = purchases
    return Spells.of(item.astype(np.int64), entity.astype(np.int64), age, num_items)


def test_spells_end_with_the_next_purchase_on_another_day_or_stay_open():
    found = spells()
    assert (found.item.tolist(), found.days.tolist()) == ([0, 0], [10, 20.25])
    assert (found.open_item.tolist(), found.open_days.tolist()) == ([0, 0, 2], [10.25, 9, 20.75])
    np.testing.assert_equal(found.median_days(), [10, np.nan, np.nan])


def test_every_day_of_every_spell_is_at_risk_once():
    counted, at_risk = spells().table()
    assert at_risk.sum(axis=1).tolist() == pytest.approx([10 + 20.25 + 10.25 + 9, 0, 20.75])
    assert counted.sum(axis=1).tolist() == [2, 0, 0]
    first = np.searchsorted(EDGES, 10, side="right") - 1
    assert EDGES[first] <= 10 < EDGES[first + 1]
    assert counted[0, first] == 1


def test_a_rate_is_repeats_over_days_at_risk_and_that_of_all_where_an_item_has_none():
    counted, at_risk = np.zeros((2, NUM_INTERVALS)), np.zeros((2, NUM_INTERVALS))
    counted[0], at_risk[0] = 5_000, 50_000
    rates = repeats.hazards(counted, at_risk)
    assert rates[0] == pytest.approx(np.full(NUM_INTERVALS, 0.1), rel=0.02)
    assert rates[1] == pytest.approx(rates[0], rel=0.02)


def test_an_item_with_few_repeats_follows_the_items_that_it_is_like():
    # Forty coffees are bought again after 11 to 16 days, forty lamps hardly ever.
    counted, at_risk = np.zeros((82, NUM_INTERVALS)), np.full((82, NUM_INTERVALS), 200.0)
    soon = int(np.searchsorted(EDGES, 12)) - 1
    counted[:40, soon] = 20
    counted[80, soon] = 2  # a new coffee
    at_risk[80:] = 20.0  # and a new lamp, as rarely bought until now
    rates = repeats.hazards(counted, at_risk)
    assert rates[80, soon] == pytest.approx(0.1, rel=0.1)
    assert rates[81, soon] < 0.02
    assert rates[80, soon + 3] < 0.01  # nobody buys any of them again that late
    assert rates[0, soon] == pytest.approx(0.1, rel=0.02)


def test_rates_do_not_depend_on_the_order_of_items():
    draws = np.random.default_rng(0)
    at_risk = draws.uniform(1, 500, (60, NUM_INTERVALS))
    counted = draws.poisson(at_risk * draws.choice([0.002, 0.02, 0.1], (60, 1))).astype(float)
    order = draws.permutation(60)
    found = repeats.hazards(counted, at_risk)[order]
    np.testing.assert_allclose(repeats.hazards(counted[order], at_risk[order]), found, rtol=1e-6)


def test_what_is_expected_is_the_rate_over_the_days_of_the_horizon():
    rates = np.zeros((3, NUM_INTERVALS))
    rates[:, EDGES == 2.0] = 0.5  # from 2 days to 2.83
    rates[:, -1] = 0.1  # from 724 days on
    found = repeats.log_expected(rates, np.array([1.0, 1000.0, np.nan]), 7.0)
    assert found[:2] == pytest.approx(np.log([0.5 * (2**1.5 - 2), 0.7]), abs=1e-4)
    assert np.isnan(found[2])


def test_no_purchases_at_all_leave_nothing_to_divide_by():
    nothing = spells(np.empty((3, 0)), num_items=2)
    assert np.isnan(nothing.median_days()).all()
    assert np.isfinite(repeats.hazards(*nothing.table())).all()
    assert repeats.hazards(*spells(np.empty((3, 0)), num_items=0).table()).shape[0] == 0
