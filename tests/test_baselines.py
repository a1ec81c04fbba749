from datetime import datetime

import numpy as np
import pytest

from recspark.evaluate import baselines
from recspark.evaluate.baselines import PERSONAL_FREQUENCY, POPULARITY, Baseline
from recspark.evaluate.purchases import History

EVENTS = """
    time:timestamp      | nodes:array<bigint>
    2024-03-01T00:00:00 | [9 1 10]
    2024-03-01T08:00:00 | [9 1 10]
    2024-03-02T00:00:00 | [9 1 10]
    2024-03-05T00:00:00 | [9 2 11]
    2024-03-08T00:00:00 | [9 1 12]
    2024-03-08T00:00:01 | [9 1 13]
    2024-03-07T00:00:00 | [9 -1 13]
    """  # merchant, entity, item; the last two are after the anchor, and of nobody known
SEEDS = """
    entity:bigint | anchor_time:timestamp | labels:array<bigint>
    1             | 2024-03-08T00:00:00   | [10]
    2             | 2024-03-08T00:00:00   | [12 13]
    3             | 2024-03-08T00:00:00   | []
    """
ON_SALE = """
    node:bigint | start_time:timestamp | end_time:timestamp
    10          |                      |
    11          | 2024-03-08T00:00:00  | 2024-03-08T00:00:01
    12          |                      | 2024-03-09T00:00:00
    13          | 2024-01-01T00:00:00  |
    """


def lists_of(method, *, history, seeds, k):
    """Entity and day of the anchor to the list of one method."""
    tuned = [popularity(method.popularity_half_life)]
    tuned += [method] if method.name != POPULARITY else []
    ranked = baselines.rank(tuned, history=history, seeds=seeds, k=k, seed=1)
    rows = ranked.select("entity", "anchor_time", method.name).toArrow().to_pylist()
    return {(row["entity"], row["anchor_time"].strftime("%m-%d")): row[method.name] for row in rows}


def history(table, items=ON_SALE):
    return History(events=table(EVENTS), entity_position=1, item_position=2, items=table(items))


def popularity(half_life):
    return Baseline(
        name=POPULARITY, choice=half_life, popularity_half_life=half_life, validation_map=0.0
    )


def personal(half_life, popularity_half_life=None):
    return Baseline(
        name=PERSONAL_FREQUENCY,
        choice=half_life,
        popularity_half_life=popularity_half_life,
        validation_map=0.0,
    )


def tune(history, snapshots, half_lives=(None, 1)):
    tried = {POPULARITY: half_lives, PERSONAL_FREQUENCY: half_lives}
    found = baselines.tune(history=history, snapshots=snapshots, k=2, seed=1, choices=tried)
    return list(found.values())


def test_without_decay_the_item_bought_on_most_days_comes_first_and_equals_by_node(table):
    found = lists_of(popularity(None), history=history(table), seeds=table(SEEDS), k=3)
    assert list(found.values()) == [[10, 11, 12]] * 3


def test_with_a_short_half_life_the_newest_purchase_comes_first(table):
    found = lists_of(popularity(2), history=history(table), seeds=table(SEEDS), k=2)
    assert found[3, "03-08"] == [12, 11]  # weights: 12 1, 11 2^-1.5, 10 2^-3 + 2^-3.5


def test_own_purchases_come_before_popular_ones_and_no_item_twice(table):
    found = lists_of(personal(None), history=history(table), seeds=table(SEEDS), k=3)
    assert found == {
        (1, "03-08"): [10, 12, 11],
        (2, "03-08"): [11, 10, 12],
        (3, "03-08"): [10, 11, 12],
    }


def test_only_items_on_sale_at_the_anchor_are_listed(table):
    items = """
        node:bigint | start_time:timestamp | end_time:timestamp
        10          |                      | 2024-03-08T00:00:00
        11          | 2024-03-08T00:00:01  |
        12          | 2024-03-08T00:00:00  |
        """
    found = lists_of(personal(7), history=history(table, items), seeds=table(SEEDS), k=3)
    assert list(found.values()) == [[12]] * 3


def test_each_seed_sees_what_is_visible_at_its_own_anchor(table):
    seeds = table("""
        entity:bigint | anchor_time:timestamp
        1             | 2024-03-01T00:00:00
        1             | 2024-03-05T00:00:00
        1             | 2024-03-08T00:00:01
        2             | 2024-02-29T00:00:00
        """)
    items = "node:bigint | start_time:timestamp | end_time:timestamp\n" + "\n".join(
        f"{node} | |" for node in (10, 11, 12, 13)
    )
    found = lists_of(personal(1), history=history(table, items), seeds=seeds, k=4)
    assert found == {
        (1, "03-01"): [10],
        (1, "03-05"): [10, 11],
        (1, "03-08"): [12, 13, 10, 11],
        (2, "02-29"): [],
    }


def test_own_items_bought_equally_often_come_by_their_popularity(table):
    events = table("""
        time:timestamp      | nodes:array<bigint>
        2024-03-01T00:00:00 | [1 10]
        2024-03-01T00:00:00 | [1 11]
        2024-03-01T00:00:00 | [2 11]
        2024-03-07T00:00:00 | [3 10]
        2024-03-01T00:00:00 | [4 11]
        """)
    shop = History(events=events, entity_position=0, item_position=1, items=table(ON_SALE))
    seeds = table(SEEDS).where("entity = 1")
    long, short = personal(7, None), personal(7, 1)
    assert lists_of(long, history=shop, seeds=seeds, k=2)[1, "03-08"] == [11, 10]
    assert lists_of(short, history=shop, seeds=seeds, k=2)[1, "03-08"] == [10, 11]


def test_the_half_lives_with_the_best_map_on_labelled_seeds_are_chosen(table):
    labelled = table("""
        entity:bigint | anchor_time:timestamp | labels:array<bigint>
        1             | 2024-03-08T00:00:00   | [10]
        2             | 2024-03-08T00:00:00   | [12]
        3             | 2024-03-08T00:00:00   | []
        """)
    tuned = tune(history(table), labelled)
    # Popularity: no decay lists [10 11], MAP 1 and 0; one day lists [12 11], MAP 0 and 1: equal.
    # Own, filled from [10 11]: no decay [10 12] and [11 10], MAP 1 and 0; one day [12 10] and
    # [11 10], MAP 1/2 and 0.
    assert [(b.name, b.choice, b.popularity_half_life) for b in tuned] == [
        (POPULARITY, None, None),
        (PERSONAL_FREQUENCY, None, None),
    ]
    assert [b.validation_map for b in tuned] == pytest.approx([0.5, 0.5], abs=1e-9)

    newest = labelled.where("entity = 2")
    tuned = tune(history(table), newest)
    # One day lists [12 11] for everybody, so entity 2 gets its own 11, then 12.
    assert [(b.choice, b.popularity_half_life) for b in tuned] == [(1, 1), (None, 1)]
    assert [b.validation_map for b in tuned] == pytest.approx([1, 0.5], abs=1e-9)


def test_a_validation_window_without_purchases_is_refused(table):
    nobody = table(SEEDS).where("entity = 3")
    with pytest.raises(ValueError, match="nobody bought anything after the validation anchor"):
        tune(history(table), nobody)


def random_shop():
    rng = np.random.default_rng(7)
    return [
        (datetime(2024, 1, 1 + int(day), int(hour)), [int(user), int(item)])
        for user, item, day, hour in zip(
            rng.integers(0, 12, 400), rng.zipf(1.5, 400) % 30, rng.integers(0, 20, 400),
            rng.integers(0, 24, 400), strict=True,
        )
    ]  # fmt: skip


def by_loop(rows, anchor, entity, half_life, k):
    """The definition of personal frequency, one purchase at a time."""
    days = {(user, item, (anchor - time).days) for time, (user, item) in rows if time <= anchor}
    weight = {day: 0.5 ** (day / half_life) for _, _, day in days}
    own, everybody = {}, {}
    for user, item, day in sorted(days):
        everybody[item] = everybody.get(item, 0) + weight[day]
        if user == entity:
            own[item] = own.get(item, 0) + weight[day]
    own, everybody = ({i: round(w, 7) for i, w in of.items()} for of in (own, everybody))
    popular = sorted(everybody, key=lambda item: (-everybody[item], item))
    ranked = sorted(own, key=lambda item: (-own[item], popular.index(item)))
    return (ranked + [item for item in popular if item not in own])[:k]


def test_a_shop_of_400_purchases_is_ranked_as_by_a_loop_for_any_number_of_partitions(spark):
    rows = random_shop()
    anchor = datetime(2024, 1, 15, 12)
    seeds = spark.createDataFrame(
        [(entity, anchor) for entity in range(14)], "entity bigint, anchor_time timestamp"
    )
    events = spark.createDataFrame(rows, "time timestamp, nodes array<bigint>")
    items = spark.range(30).selectExpr(
        "id as node", "cast(null as timestamp) start_time", "cast(null as timestamp) end_time"
    )
    looped = {(e, "01-15"): by_loop(rows, anchor, e, 3.0, 12) for e in range(14)}
    for partitions in (1, 7):
        split = History(
            events=events.repartition(partitions), entity_position=0, item_position=1, items=items
        )
        found = lists_of(
            personal(3.0, 3.0), history=split, seeds=seeds.repartition(partitions), k=12
        )
        assert found == looped
