"""Spells between purchases on different days. No Spark."""

import numpy as np

from recspark.prepare.repeats import Spells

# item, entity, age: item 0 bought by two entities, item 1 by nobody, item 2 twice on one day.
PURCHASES = np.array([
    (0, 5, 40.5), (0, 5, 30.5), (0, 5, 10.25), (0, 7, 9.0), (2, 5, 20.75), (2, 5, 20.25),
]).T  # fmt: skip


def spells(purchases=PURCHASES, num_items=3):
    item, entity, age = purchases
    return Spells.of(item.astype(np.int64), entity.astype(np.int64), age, num_items)


def test_spells_end_with_the_next_purchase_on_another_day():
    found = spells()
    assert (found.item.tolist(), found.days.tolist()) == ([0, 0], [10, 20.25])
    np.testing.assert_equal(found.median_days(), [10, np.nan, np.nan])


def test_a_buyer_is_one_who_bought_again_only_on_several_days():
    np.testing.assert_equal(spells().repeat_rate(), [1 / 2, np.nan, 0])


def test_no_purchases_at_all_leave_nothing_to_divide_by():
    assert np.isnan(spells(np.empty((3, 0)), num_items=2).median_days()).all()
    assert np.isnan(spells(np.empty((3, 0)), num_items=2).repeat_rate()).all()
