"""When items were bought again, and in which lines they could have been. No Spark."""

import numpy as np
import pyarrow as pa
import pytest

from recspark import schema
from recspark.prepare import life_tables
from recspark.prepare.life_tables import EDGES, NUM_INTERVALS

DAY = 86_400
# Entity, item, day. Entity 5 buys item 0 on days 10, 20 and 50, and other items between.
ROWS = [(5, 0, 10), (5, 1, 13), (5, 2, 13), (5, 0, 20), (5, 1, 31), (5, 0, 50), (7, 0, 12), (7, 3, 40)]  # fmt: skip


def tables(rows, anchors, at_once=None, monkeypatch=None):
    """(repeats, lines at risk) by (anchor day, item), both by the lower edge, zeros left out."""
    if at_once:
        monkeypatch.setattr(life_tables, "_PURCHASES_AT_ONCE", at_once)
    entity, item, day = zip(*rows, strict=True)
    batch = pa.RecordBatch.from_pydict(
        {
            schema.ENTITY: pa.array(entity, pa.int64()),
            schema.ITEM: pa.array(item, pa.int64()),
            schema.TIME: pa.array([int(d * DAY * 1e6) for d in day], pa.timestamp("us", tz="UTC")),
        }
    )
    microseconds = [int(anchor * DAY * 1e6) for anchor in anchors]
    found = {}
    for part in life_tables.tables(iter([batch]), microseconds):
        for row in part.to_pylist():
            key = (int(row[schema.ANCHOR_TIME].timestamp()) // DAY, row[schema.ITEM])
            counted = np.array([row[schema.REPEATS], row[schema.AT_RISK]])
            found[key] = found.get(key, np.zeros((2, NUM_INTERVALS), dtype=int)) + counted
    return {key: tuple(map(drawn, counted)) for key, counted in found.items()}


def drawn(counts):
    return {round(float(low), 1): int(n) for low, n in zip(EDGES, counts, strict=True) if n}


def test_lines_after_a_purchase_are_at_risk_until_it_is_bought_again():
    repeats, at_risk = tables(ROWS, [60])[60, 0]
    # From day 10: two lines after 3 days, then itself after 10. From day 20: a line after 11, itself
    # after 30. From day 50: nothing. Of entity 7: a line after 28 days.
    assert at_risk == {2.8: 2, 9.5: 2, 26.9: 2}
    assert repeats == {9.5: 1, 26.9: 1}


def test_an_anchor_sees_no_line_after_it():
    found = tables(ROWS, [13, 20, 49])
    assert found[13, 0] == ({}, {2.8: 2})
    assert found[20, 0] == ({9.5: 1}, {2.8: 2, 9.5: 1})
    assert found[49, 0] == ({9.5: 1}, {2.8: 2, 9.5: 2, 26.9: 1})
    earlier = [row for row in ROWS if row[2] <= 20]
    assert {k: v for k, v in found.items() if k[0] == 20} == tables(earlier, [20])


def test_a_part_of_a_second_after_the_anchor_is_after_it():
    assert tables([(1, 0, 5), (1, 0, 20 + 1e-9 * 400)], [20])[20, 0] == ({}, {})


def test_what_is_bought_twice_at_one_moment_is_one_line():
    assert tables([(1, 0, 5), (1, 0, 5), (1, 1, 6), (1, 1, 6)], [9])[9, 0] == ({}, {1.0: 1})


@pytest.mark.parametrize("at_once", [1, 3])
def test_tables_are_the_same_however_entities_are_taken_together(at_once, monkeypatch):
    rows = [(e, int(i), int(d)) for e in range(9) for i, d in zip("01201", "24579", strict=True)]
    whole = tables(rows, [8, 30])
    assert tables(rows[::-1], [8, 30], at_once, monkeypatch) == whole


def test_lines_long_after_count_in_the_last_interval():
    assert tables([(1, 0, 0), (1, 1, 3000), (2, 0, 1)], [4000])[4000, 0] == ({}, {724.1: 1})
