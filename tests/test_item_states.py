"""What is known of an item at an anchor, and what is bought with it."""

from datetime import datetime

import numpy as np
import pytest
from pyspark.sql import functions as F

from recspark.prepare import item_states
from recspark.prepare.feature_schema import FeatureSchema
from recspark.prepare.interactions import EventRoles
from recspark.prepare.item_trends import trend_names
from recspark.prepare.life_tables import EDGES
from recspark.settings import Candidates

ROLES = (
    EventRoles(
        table="sales", entity_position=0, item_position=1, price_position=0, quantity_position=1,
        amount_positions=(2,),
    ),
    EventRoles(table="returns", entity_position=0, item_position=1),
)  # fmt: skip
FEATURES = FeatureSchema(other_tables=("returns",), amounts=("discount",))
MARCH = datetime(2024, 3, 1)  # without a zone: UTC
APRIL = datetime(2024, 4, 1)

# Item 0: users 1 and 2, user 1 again 10 days later. Items 1 and 2: one sale each, by users 1 and 3.
SALES = """
    event:bigint | time:timestamp      | nodes:array<bigint> | amounts:array<double>
    11           | 2024-02-10T00:00:00 | [1 0]               | [2 3 0.5]
    12           | 2024-02-20T00:00:00 | [1 0]               | [2 1 0.1]
    13           | 2024-02-25T00:00:00 | [2 0]               | [8 1 nan]
    14           | 2024-02-25T00:00:00 | [1 1]               | [5 1 nan]
    15           | 2024-02-26T00:00:00 | [3 2]               | [5 1 nan]
    16           | 2024-02-26T00:00:00 | [-1 2]              | [5 1 nan]
    """
LATER = """
    17           | 2024-03-01T00:00:01 | [3 1]               | [9 9 9]
    """
RETURNS = """
    event:bigint | time:timestamp      | nodes:array<bigint> | amounts:array<double>
    21           | 2024-02-22T00:00:00 | [1 0]               | []
    """
ITEMS = """
    node:bigint | start_time:timestamp | end_time:timestamp  | codes:array<int> | parents:array<bigint>
    0           |                      |                     | [2 5]            | [40]
    1           | 2024-02-20T00:00:00  | 2024-03-15T00:00:00 | [1 0]            | [-1]
    2           | 2024-01-01T00:00:00  |                     | [3 2]            | [41]
    3           | 2024-03-02T00:00:00  |                     | [2 2]            | [40]
    """


def states(table, sales=SALES, anchors=(MARCH,), partitions=None, **settings):
    """Rows by (anchor day, item), with the trend by name."""
    events = {"sales": table(sales), "returns": table(RETURNS)}
    if partitions:
        events = {name: frame.repartition(partitions) for name, frame in events.items()}
    built = item_states.build(
        events,
        ROLES,
        table(ITEMS),
        anchors,
        features=FEATURES,
        horizon_days=10,
        settings=Candidates(**settings),
    )
    return {(r["anchor_time"].strftime("%m-%d"), r["item"]): r for r in built.toArrow().to_pylist()}


@pytest.fixture(scope="module")
def built(spark):
    from conftest import drawn

    return states(lambda text: spark.createDataFrame(drawn(text)), anchors=(MARCH, APRIL))


def test_only_items_on_sale_at_the_anchor_have_a_state(built):
    assert sorted(built) == [
        ("03-01", 0), ("03-01", 1), ("03-01", 2), ("04-01", 0), ("04-01", 2), ("04-01", 3),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("log_sales_7", np.log(2)), ("log_sales_30", np.log(4)), ("log_buyers_30", np.log(3)),
        ("log_owners", np.log(3)), ("repeat_rate", 1 / 2), ("repeat_gap_days", 10),
        ("days_since_first_sale", 20), ("days_since_last_sale", 5),
        ("log_decayed_sales_horizon", np.log1p(2**-2 + 2**-1 + 2**-0.5)),
        ("owner_conversion", 1 / 2),  # user 1 could in two periods, and did in one
        ("log_first_buyers_horizon", np.log(2)), ("first_buyer_share", 1),
        ("log_decayed_first_buyers_30", np.log1p(2 ** (-20 / 30) + 2 ** (-5 / 30))),
        ("log_price", np.log(2 * 2 * 8) / 3), ("log_revenue_7", np.log1p(8)),
        ("log_revenue_30", np.log1p(16)), ("returns_log_count_90", np.log(2)),
        ("returns_per_sale", 1 / 3), ("amount_discount", 0.3),
    ],
)  # fmt: skip
def test_the_trend_of_an_item_is_what_its_sales_say(built, name, expected):
    trend = dict(zip(trend_names(FEATURES), built["03-01", 0]["trend"], strict=True))
    assert trend[name] == pytest.approx(expected, rel=1e-5)


def test_an_item_never_sold_has_zero_sales_and_unknown_prices(built):
    trend = dict(zip(trend_names(FEATURES), built["04-01", 3]["trend"], strict=True))
    assert (trend["log_sales_365"], trend["days_on_sale"]) == (0, 30)
    assert np.isnan([trend["log_price"], trend["repeat_rate"], trend["days_since_last_sale"]]).all()
    assert built["04-01", 3]["similar_items"] == []


def test_items_bought_by_the_same_user_are_similar_and_others_are_not(built):
    counts = {(1, 0): 2 ** (-20 / 180) + 2 ** (-10 / 180), (2, 0): 2 ** (-5 / 180)}
    mine, other = (np.log1p(counts[key]) for key in [(1, 0), (2, 0)])
    assert built["03-01", 1]["similar_items"] == [0]
    assert built["03-01", 1]["similarities"] == pytest.approx([mine / np.hypot(mine, other)])
    assert built["03-01", 2]["similar_items"] == []


def test_the_life_table_counts_repeats_and_lines_at_risk(built):
    # After user 1 bought item 0, the next lines are it again, 10 days later, and item 1 15 days
    # after the first time but 5 after the second. Nobody ever buys item 2 again.
    def counted(name):
        row = zip(EDGES, built["03-01", 0][name], strict=True)
        return {round(float(low), 1): count for low, count in row if count}

    assert counted("repeats") == {9.5: 1}
    assert counted("at_risk") == {9.5: 1, 4.8: 1}
    assert sum(built["03-01", 2]["at_risk"]) == sum(built["04-01", 3]["at_risk"]) == 0


def test_traits_are_places_among_the_categories_and_what_is_pointed_to_or_unknown(built):
    # Codes 0 (missing) and 1 (not seen when fitted) are no trait that two items share.
    assert built["03-01", 0]["traits"] == [0, 3, 40]
    assert built["03-01", 1]["traits"] == [-1, -1, -1]
    assert built["04-01", 3]["traits"] == [0, 0, 40]


def test_sales_after_the_anchor_and_the_partitioning_change_nothing(table, built):
    # Both in one comparison: a state is a float array, so text compares it bit by bit, NaN too.
    again = states(table, sales=SALES + LATER, partitions=3)
    assert {key: str(row) for key, row in again.items()} == {
        key: str(row) for key, row in built.items() if key[0] == "03-01"
    }


def test_readers_of_an_anchor_find_it_in_one_file_for_every_so_many_items(table, monkeypatch):
    monkeypatch.setattr(item_states, "ITEMS_PER_FILE", 2)
    events = {"sales": table(SALES), "returns": table(RETURNS)}
    frame = item_states.build(
        events,
        ROLES,
        table(ITEMS),
        (MARCH, APRIL),
        features=FEATURES,
        horizon_days=10,
        settings=Candidates(),
    )
    assert frame.rdd.getNumPartitions() == 2 * 2  # anchors, and blocks of four items
    places = {}
    for row in frame.withColumn("place", F.spark_partition_id()).collect():
        places.setdefault((row["anchor_time"], row["item"] // 2), set()).add(row["place"])
    assert len(places) == 4
    assert all(len(found) == 1 for found in places.values())


def test_blocks_of_items_give_the_same_similarities_as_one_block(table, built, monkeypatch):
    from recspark.prepare import similarity

    kernels = run_blocks(similarity, monkeypatch, items_per_block=2)
    assert kernels[1] == ([0], pytest.approx(built["03-01", 1]["similarities"]))


def run_blocks(similarity, monkeypatch, items_per_block):
    """The kernels in this process, with small blocks: workers do not see a patched module."""
    import pyarrow as pa

    monkeypatch.setattr(similarity, "ITEMS_PER_BLOCK", items_per_block)
    days = {"2024-02-10": 19763, "2024-02-20": 19773, "2024-02-25": 19778}
    bought = [(1, 0, "2024-02-10"), (1, 0, "2024-02-20"), (2, 0, "2024-02-25")]
    bought += [(1, 1, "2024-02-25"), (3, 2, "2024-02-25")]
    rows = pa.RecordBatch.from_pydict(
        {
            "entity": [e for e, _, _ in bought],
            "item": [i for _, i, _ in bought],
            "event": list(range(len(bought))),
            "time": [days[day] * 86_400_000_000 for _, _, day in bought],
        }
    )
    anchor = 19783 * 86_400_000_000
    batches = list(similarity.histories(iter([rows]), [anchor], 100))
    squares = {}
    for row in (r for batch in batches for r in batch.to_pylist()):
        for item, weight in zip(row["items"], row["weights"], strict=True):
            squares[row["entity"], item] = weight**2
    norms = [sum(v for (_, i), v in squares.items() if i == item) for item in range(3)]
    given = pa.RecordBatch.from_pydict(
        {
            "anchor_time": pa.array([anchor] * 2, pa.timestamp("us", tz="UTC")),
            "item_block": pa.array([0, 1], pa.int32()),
            "entity": [-1, -1],
            "items": [[0, 1, 2]] * 2,
            "weights": pa.array([norms] * 2, pa.list_(pa.float32())),
        }
    )
    found = similarity.similar(iter([*batches, given]), 50, norms_given=True)
    rows = [row for batch in found for row in batch.to_pylist()]
    return {row["item"]: (row["similar_items"], row["similarities"]) for row in rows}
