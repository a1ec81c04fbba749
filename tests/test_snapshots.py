import logging
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from recspark import schema
from recspark.prepare import anchors, graph, snapshots
from recspark.prepare.anchors import Anchor
from recspark.query.parse import parse
from recspark.settings import Table
from recspark.tables import conform

TABLES = {
    "users": Table(path="users", primary_key="user_id"),
    "items": Table(path="items", primary_key="item_id"),
    "sales": Table(path="sales", time_column="time",
                   foreign_keys={"user_id": "users", "item_id": "items"}),
}  # fmt: skip
SNAPSHOTS = schema.SNAPSHOTS.removeprefix(f"{schema.RUN_DATE} date, ")


def query(window="0, 7, days", where=""):
    return parse(
        f"PREDICT LIST_DISTINCT(sales.item_id, {window}) RANK TOP 3 FOR EACH users.user_id {where}",
        TABLES,
    )


def day(text):
    return datetime.fromisoformat(text)


def plan(asked, run_date, first_event, *, num_train=6, step_days=None, holdout=True):
    return [
        (f"{anchor.time:%Y-%m-%d}", anchor.split)
        for anchor in anchors.plan(
            asked,
            run_date=day(run_date),
            num_train=num_train,
            step_days=step_days,
            first_event=day(first_event),
            holdout=holdout,
        )
    ]


def test_test_validation_and_training_step_back_one_window_each_from_the_run_date():
    assert plan(query(), "2024-03-29", "2023-01-01", num_train=3) == [
        ("2024-02-23", "train"),
        ("2024-03-01", "train"),
        ("2024-03-08", "train"),
        ("2024-03-15", "validation"),
        ("2024-03-22", "test"),
        ("2024-03-29", "score"),
    ]


def test_a_backtest_keeps_no_test_window_and_long_windows_step_by_half():
    asked = query("0, 30, days")
    assert plan(asked, "2024-03-31", "2023-01-01", num_train=2, holdout=False) == [
        ("2024-01-16", "train"),
        ("2024-01-31", "train"),
        ("2024-03-01", "validation"),
        ("2024-03-31", "score"),
    ]


def test_months_step_back_by_the_calendar():
    asked = query("0, 1, months")
    assert plan(asked, "2024-03-31", "2023-01-01", num_train=1) == [
        ("2023-12-31", "train"),
        ("2024-01-31", "validation"),
        ("2024-02-29", "test"),
        ("2024-03-31", "score"),
    ]


def test_training_anchors_before_there_is_anything_to_learn_from_are_left_out(caplog):
    caplog.set_level(logging.INFO, logger="recspark")
    planned = plan(query(), "2024-03-29", "2024-02-23", step_days=7)
    assert [time for time, split in planned if split == "train"] == ["2024-03-01", "2024-03-08"]
    assert "2 of 6 training anchors" in caplog.text


@pytest.mark.parametrize(
    ("num_buyers", "expected"),
    [(0, 40), (199, 40), (201, 40), (263, 31), (799, 11), (800, 10), (1_000_000, 10)],
)
def test_the_fewer_buy_in_a_window_the_more_training_anchors_there_are(num_buyers, expected):
    assert anchors.enough(num_buyers) == expected


def test_buyers_of_a_window_are_distinct_passing_entities_after_its_anchor_up_to_its_end(table):
    sales = table("""
        buyer:bigint | at:timestamp
        1            | 2024-03-01T00:00:00
        2            | 2024-03-01T00:00:01
        2            | 2024-03-05T00:00:00
        3            | 2024-03-08T00:00:00
        4            | 2024-03-08T00:00:01
        5            | 2024-03-02T00:00:00
                     | 2024-03-02T00:00:00
        """)
    passing = table("""
        key:bigint
        1
        2
        3
        4
        """)
    source = SimpleNamespace(frame=sales, declared=SimpleNamespace(time_column="at"))
    asked = replace(query(), target_entity_key="buyer")
    assert graph.count_buyers(source, passing, asked, day("2024-03-01")) == 2


def test_a_run_date_before_or_soon_after_the_first_event_is_refused():
    with pytest.raises(ValueError, match="run date") as fault:
        plan(query(), "2024-03-01", "2024-03-01T10:00:00")
    assert str(fault.value) == (
        "run date 2024-03-01 lies before the first event of 'sales' (2024-03-01 10:00:00); "
        "choose a later one."
    )
    with pytest.raises(ValueError, match="run date") as fault:
        plan(query(), "2024-03-29", "2024-03-01T00:00:01")
    assert str(fault.value) == (
        "run date 2024-03-29 leaves no room for a training anchor: the first event of 'sales' is "
        "of 2024-03-01 and the earliest run date that works is 2024-03-30."
    )
    assert plan(query(), "2024-03-30", "2024-03-01T00:00:01")[0] == ("2024-03-09", "train")


windows = st.builds(
    lambda start, length, unit: query(f"{start}, {start + length}, {unit}"),
    st.integers(0, 3), st.integers(1, 20), st.sampled_from(["days", "weeks", "months"]),
)  # fmt: skip
dates = st.dates(day("2020-01-01").date(), day("2024-12-31").date()).map(
    lambda date: datetime(date.year, date.month, date.day)
)


@settings(max_examples=200, deadline=None)
@given(windows, dates, dates, st.integers(0, 86_399), st.none() | st.integers(1, 40), st.booleans())
def test_no_label_window_reaches_into_a_later_split(asked, run_date, first, second, step, holdout):
    first_event = first + timedelta(seconds=second)
    given_anchors = {"num_train": 4, "step_days": step, "first_event": first_event}
    assume(first_event <= run_date)
    try:
        planned = anchors.plan(asked, run_date=run_date, holdout=holdout, **given_anchors)
    except ValueError as refusal:
        earliest = day(str(refusal).rstrip(".").rpartition(" ")[2])
        assert earliest > run_date
        anchors.plan(asked, run_date=earliest, holdout=holdout, **given_anchors)
        yesterday = earliest - timedelta(days=1)
        with pytest.raises(ValueError, match="run date"):
            anchors.plan(asked, run_date=yesterday, holdout=holdout, **given_anchors)
        return
    times = {split: [a.time for a in planned if a.split == split] for split in
             ("train", "validation", "test", "score")}  # fmt: skip
    splits = [times[split] for split in times if times[split]]
    assert len(splits) == (4 if holdout else 3)
    assert [a.time for a in planned] == sorted({a.time for a in planned})
    for earlier, later in pairwise(splits):
        assert max(map(asked.window.closes, earlier)) <= min(later)
    assert min(times["train"]) > first_event


TRAIN, VALIDATION, SCORE = (
    Anchor(day("2024-03-01"), schema.TRAIN),
    Anchor(day("2024-03-08"), schema.VALIDATION),
    Anchor(day("2024-03-15"), schema.SCORE),
)


def build(
    nodes, events, asked=None, most=99, planned=(TRAIN, VALIDATION, SCORE), scored_entities=None
):
    return conform(
        snapshots.build(
            planned,
            nodes=nodes,
            events=events,
            entity_position=0,
            item_position=1,
            query=asked or query(),
            scored_entities=scored_entities,
            max_seeds_per_anchor=most,
            seed=7,
        ),
        SNAPSHOTS,
        table="snapshots",
    )


def rows(frame):
    return sorted(
        (row[0], f"{row[1]:%m-%d}", row[2], row[3])
        for row in zip(*frame.toArrow().to_pydict().values(), strict=True)
    )


def test_labels_are_the_distinct_items_bought_after_the_anchor_and_up_to_its_end(table):
    users = table("""
        node:bigint | start_time:timestamp | end_time:timestamp
        0           |                      |
        1           | 2024-03-01T00:00:00  |
        2           | 2024-03-01T00:00:01  | 2024-03-15T00:00:00
        """)
    sales = table("""
        time:timestamp             | nodes:array<bigint>
        2024-03-01T00:00:00        | [0 9]
        2024-03-01T00:00:00.000001 | [0 8]
        2024-03-02T00:00:00        | [0 3]
        2024-03-03T00:00:00        | [0 8]
        2024-03-08T00:00:00        | [1 5]
        2024-03-08T00:00:00.000001 | [1 6]
        2024-03-07T00:00:00        | [2 4]
        2024-03-15T00:00:00        | [2 7]
        2024-03-15T00:00:00.000001 | [0 7]
        2024-03-02T00:00:00        | [0 -1]
        2024-03-02T00:00:00        | [-1 1]
        2024-03-02T00:00:00        | [5 1]
        """)
    assert rows(build(users, sales)) == [
        ("score", "03-15", 0, []),
        ("score", "03-15", 1, []),
        ("train", "03-01", 0, [3, 8]),
        ("train", "03-01", 1, [5]),
        ("validation", "03-08", 1, [6]),
        ("validation", "03-08", 2, [7]),
    ]


def test_a_backtest_scores_those_who_bought_and_existed(table):
    users = table("""
        node:bigint | start_time:timestamp | end_time:timestamp
        0           |                      |
        1           | 2024-03-16T00:00:00  |
        2           |                      |
        """)
    sales = table("""
        time:timestamp      | nodes:array<bigint>
        2024-03-02T00:00:00 | [0 3]
        2024-03-09T00:00:00 | [2 5]
        """)
    buyers = table("""
        entity:bigint
        1
        2
        """)
    assert rows(build(users, sales, scored_entities=buyers)) == [
        ("score", "03-15", 2, []),
        ("train", "03-01", 0, [3]),
        ("validation", "03-08", 2, [5]),
    ]


def test_a_window_may_open_after_the_anchor_and_span_months(table):
    users = table("""
        node:bigint | start_time:timestamp | end_time:timestamp
        0           |                      |
        """)
    sales = table("""
        time:timestamp      | nodes:array<bigint>
        2024-02-29T00:00:00 | [0 1]
        2024-02-29T00:00:01 | [0 2]
        2024-03-31T00:00:00 | [0 3]
        2024-03-31T00:00:01 | [0 4]
        """)
    anchor = Anchor(day("2024-01-31"), schema.TRAIN)
    found = build(users, sales, asked=query("1, 2, months"), planned=[anchor])
    assert rows(found) == [("train", "01-31", 0, [2, 3])]


def test_the_truth_of_a_backtest_is_made_like_labels_and_knows_only_users_of_its_date(table):
    users = table("""
        node:bigint | start_time:timestamp | end_time:timestamp
        0           |                      |
        1           | 2024-03-16T00:00:00  |
        """)
    later = table("""
        time:timestamp             | nodes:array<bigint>
        2024-03-15T00:00:00        | [0 1]
        2024-03-22T00:00:00        | [0 3]
        2024-03-16T00:00:00        | [0 2]
        2024-03-22T00:00:00.000001 | [0 4]
        2024-03-17T00:00:00        | [1 5]
        """)
    found = snapshots.truth(
        later, SCORE, nodes=users, entity_position=0, item_position=1, query=query()
    )
    assert found.toArrow().to_pydict() == {"entity": [0], "labels": [[2, 3]]}


def test_too_many_seeds_are_thinned_alike_for_any_partitioning_but_never_those_to_score(spark):
    users = spark.sql(
        "SELECT id AS node, CAST(NULL AS timestamp) AS start_time, "
        "CAST(NULL AS timestamp) AS end_time FROM range(20)"
    )
    sales = spark.sql(
        "SELECT timestamp'2024-03-02' + make_dt_interval(7 * w) AS time, array(u, u % 3) AS nodes "
        "FROM (SELECT id AS u FROM range(20)) CROSS JOIN (SELECT id AS w FROM range(2))"
    )
    kept = rows(build(users, sales, most=5))
    chosen = {split: [row[2] for row in kept if row[0] == split] for split in
              ("train", "validation", "score")}  # fmt: skip
    assert chosen["score"] == list(range(20))
    assert len(chosen["train"]) == len(chosen["validation"]) == 5
    assert chosen["train"] != chosen["validation"]  # each anchor draws for itself
    assert rows(build(users.repartition(7), sales.repartition(5, "time"), most=5)) == kept


def test_only_entities_that_pass_the_where_are_eligible(table):
    users = table("""
        user_id:bigint | opted_in:boolean | country:string | visits:double | joined:timestamp
        1              | true             | FR             | 3             | 2024-01-02T00:00:00
        2              | true             | FI             |               | 2024-01-02T00:00:00
        3              | false            | DE             | 3             | 2024-01-02T00:00:00
        4              |                  | DE             | 1             | 2024-01-01T00:00:00
        5              | true             |                | 2.5           | 2023-12-31T00:00:00
        """)
    cases = {
        "": [1, 2, 3, 4, 5],
        "users.opted_in = TRUE": [1, 2, 5],
        "NOT users.opted_in = TRUE": [3],
        "users.country LIKE 'F%' OR users.country IS NULL": [1, 2, 5],
        "users.country NOT IN ('FR', 'DE')": [2],
        "users.visits >= 2.5 AND users.visits < 3": [5],
        "users.visits != 3 AND users.visits > 1": [5],
        "users.joined <= DATE '2024-01-01'": [4, 5],
    }
    # Every case in one action: the union of what each finds, beside its number.
    found = [
        snapshots.entities(users, query(where=f"WHERE {condition}" if condition else ""))
        .selectExpr(f"{number} AS number", "user_id")
        for number, condition in enumerate(cases)
    ]  # fmt: skip
    union = found[0]
    for frame in found[1:]:
        union = union.unionByName(frame)
    pairs = list(zip(*union.toArrow().to_pydict().values(), strict=True))
    for number, (condition, expected) in enumerate(cases.items()):
        assert sorted(user for n, user in pairs if n == number) == expected, condition


def test_seeds_are_counted_for_every_anchor_and_too_few_are_refused(table, caplog):
    caplog.set_level(logging.INFO, logger="recspark")
    seeds = table("""
        split:string | anchor_time:timestamp | entity:bigint
        train        | 2024-03-01T00:00:00   | 0
        train        | 2024-03-01T00:00:00   | 1
        validation   | 2024-03-08T00:00:00   | 0
        score        | 2024-03-15T00:00:00   | 0
        """)
    older = Anchor(day("2024-02-23"), schema.TRAIN)
    counts = snapshots.check_not_empty(seeds, [older, TRAIN, VALIDATION, SCORE])
    assert list(counts.values()) == [0, 2, 1, 1]
    assert "4 anchors 2024-02-23..2024-03-15, seeds train 2, validation 1, score 1" in caplog.text
    with pytest.raises(ValueError, match=r"no purchase in any training window \(anchors 2024-02-2"):
        snapshots.check_not_empty(seeds, [older, VALIDATION, SCORE])
    with pytest.raises(ValueError, match="nobody to recommend to"):
        snapshots.check_not_empty(seeds, [TRAIN, Anchor(day("2024-04-01"), schema.SCORE)])
