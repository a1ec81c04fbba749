"""Baselines that look beyond what the entity itself bought, on shops with a known answer."""

from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recspark.evaluate import baselines, factors, item_item, nearest_users, segments
from recspark.evaluate.histories import Purchases, Rows
from recspark.evaluate.nearest_users import NearestUsers, Sample, Vector
from recspark.evaluate.purchases import History

ANCHOR = datetime(2024, 3, 8)
ANCHOR_MICROS = int((ANCHOR - datetime(1970, 1, 1)) / timedelta(microseconds=1))


def purchases(owners, items, ages):
    columns = [np.array(values, dtype=np.int64) for values in (owners, items, ages)]
    return Purchases.sort(max(owners) + 1, *columns, np.zeros(len(items), dtype=np.int64))


def rows_of(bought, entities):
    codes = np.zeros((len(entities), 0), dtype=np.int64)
    return Rows(anchor=ANCHOR_MICROS, entities=np.array(entities), codes=codes, purchases=bought)


def told(scores):
    cells = zip(scores.owners.tolist(), scores.items.tolist(), scores.values.tolist(), strict=True)
    return {(owner, item): value for owner, item, value in cells}


def test_a_vector_adds_up_baskets_by_their_place_in_groups_counted_from_the_newest():
    vector = Vector(group_size=2, within=0.5, across=0.1, half_life=None)
    bought = purchases([0, 0, 0, 0, 1], [7, 7, 7, 8, 7], [0, 3, 9, 9, 4])
    vectors = bought.vectors(nearest_users._weights(bought, vector), 9).toarray()
    # Baskets of the first: ages 0 and 3 in one group, 9 in the next.
    assert vectors[0, [7, 8]] == pytest.approx([(1 + 0.5 + 0.1) / 3, 0.1 / 3])
    assert vectors[1, 7] == 1
    aged = vector._replace(within=1, across=1, half_life=3)
    vectors = bought.vectors(nearest_users._weights(bought, aged), 9).toarray()
    assert vectors[0, [7, 8]] == pytest.approx([(1 + 1 / 2 + 1 / 8) / 3, 1 / 24])


def test_the_nearest_entities_lend_their_items_and_nobody_is_its_own_neighbour():
    once = Vector(group_size=1, within=1.0, across=1.0, half_life=None)
    sampled = Sample(
        entities=np.array([4, 5, 6]), purchases=purchases([0, 1, 1, 2], [1, 1, 2, 3], [1, 1, 1, 1])
    )
    rows = rows_of(purchases([0, 1], [1, 3], [2, 1]), [4, 9])
    choices = tuple(nearest_users.Choice(vector=once, num_neighbours=n, alpha=0.75) for n in (1, 5))
    found = list(NearestUsers(choices=choices, samples={ANCHOR_MICROS: sampled}).score(rows))
    # Entity 4 is in the sample; only 5 has an item in common with it. 6 is like entity 9.
    for scores in found:
        assert told(scores) == pytest.approx({(0, 1): 1.0, (0, 2): 0.25, (1, 3): 1.0})


def test_an_entity_gets_the_vector_that_solves_the_equations_of_als():
    items = factors.ItemFactors(items=np.array([3, 8]), vectors=np.array([[1.0, 0.5], [0.0, 2.0]]))
    choice = factors.Choice(rank=2, regularization=0.1, alpha=3.0, half_life=None)
    rows = rows_of(purchases([1, 1, 1, 1], [3, 3, 5, 8], [1, 2, 1, 1]), [0, 1])
    fitted = factors.Factors(choices=(choice,), fitted=({ANCHOR_MICROS: items},), k=2)
    (scores,) = fitted.score(rows)
    # Item 3 on two days, 8 on one: confidences 1 + 6 and 1 + 3. Nothing is fitted for item 5, and
    # entity 0 bought nothing.
    three, eight = items.vectors
    gram = items.vectors.T @ items.vectors + 6 * np.outer(three, three)
    gram += 3 * np.outer(eight, eight) + 0.1 * 2 * np.eye(2)
    solved = items.vectors @ np.linalg.solve(gram, 7 * three + 4 * eight)
    assert told(scores) == pytest.approx({(1, 3): solved[0], (1, 8): solved[1]}, abs=1e-6)


@pytest.fixture(scope="module")
def two_tastes(spark, tmp_path_factory):
    """Ten entities buy items 0..3, ten buy 4..7; entity e has not bought one of its four yet."""
    rows = [
        (ANCHOR - timedelta(days=3 + entity + place), [entity, 4 * (entity % 2) + item])
        for entity in range(20)
        for place, item in enumerate(i for i in range(4) if i != entity // 2 % 4)
    ]
    folder = tmp_path_factory.mktemp("states")
    groups = [
        [other for other in range(i // 4 * 4, i // 4 * 4 + 4) if other != i] for i in range(8)
    ]
    states = pa.table(
        {
            "anchor_time": pa.array([ANCHOR] * 8, pa.timestamp("us", tz="UTC")),
            "item": list(range(8)),
            "trend": pa.array([[0.0]] * 8, pa.list_(pa.float32())),
            "traits": pa.array([[0]] * 8, pa.list_(pa.int32())),
            "repeats": pa.array([[0]] * 8, pa.list_(pa.int64())),
            "at_risk": pa.array([[1]] * 8, pa.list_(pa.int64())),
            "similar_items": groups,
            "similarities": pa.array([[0.5, 0.25, 0.125]] * 8, pa.list_(pa.float32())),
        }
    )
    pq.write_table(states, folder / "states.parquet")
    nodes = "id as node, cast(null as timestamp) start_time, cast(null as timestamp) end_time"
    return History(
        events=spark.createDataFrame(rows, "time timestamp, nodes array<bigint>"),
        entity_position=0,
        item_position=1,
        items=spark.range(8).selectExpr(*nodes.split(", ")),
        entities=spark.range(20).selectExpr("id as node", "array(0, int(2 + id % 2)) as codes"),
        categories=("nothing", "taste"),
        item_state_files=(str(folder / "states.parquet"),),
    )


def missing(entity):
    return 4 * (entity % 2) + entity // 2 % 4


def test_methods_that_look_at_others_find_the_item_an_entity_has_not_bought_yet(spark, two_tastes):
    snapshots = spark.createDataFrame(
        [(entity, ANCHOR, [missing(entity)]) for entity in range(20)],
        "entity bigint, anchor_time timestamp, labels array<bigint>",
    )
    tried = {
        baselines.POPULARITY: [None],
        baselines.SEGMENT_POPULARITY: [
            segments.Choice(column=column, position=position, half_life=None)
            for position, column in enumerate(two_tastes.categories)
        ],
        baselines.ALS: [
            factors.Choice(rank=2, regularization=0.01, alpha=1.0, half_life=None, iterations=5)
        ],
        baselines.ITEM_ITEM: [item_item.Choice(half_life=None, own_similarity=1.0)],
        baselines.PERSONAL_FREQUENCY: [None],
        baselines.TIFU_KNN: [
            nearest_users.Choice(
                vector=Vector(group_size=2, within=1.0, across=1.0, half_life=None),
                num_neighbours=9,
                alpha=0.5,
            )
        ],
    }
    tuned = baselines.tune(history=two_tastes, snapshots=snapshots, k=4, seed=3, choices=tried)
    assert tuned[baselines.SEGMENT_POPULARITY].choice.column == "taste"

    def lists(partitions):
        seeds = snapshots.repartition(partitions)
        found = baselines.rank(list(tuned.values()), history=two_tastes, seeds=seeds, k=4, seed=3)
        return {row["entity"]: row for row in found.toArrow().to_pylist()}

    listed = lists(1)
    for entity, row in listed.items():
        taste = {4 * (entity % 2) + item for item in range(4)}
        for name in set(tuned) - {baselines.POPULARITY, baselines.PERSONAL_FREQUENCY}:
            assert set(row[name]) == taste, (entity, name)
        assert set(row[baselines.PERSONAL_FREQUENCY][:3]) == taste - {missing(entity)}
    exact = set(tuned) - {baselines.ALS}
    again = lists(5)
    assert {e: [row[n] for n in exact] for e, row in again.items()} == {
        e: [row[n] for n in exact] for e, row in listed.items()
    }


def test_what_similar_items_say_is_added_up_over_what_was_bought(two_tastes):
    choice = item_item.Choice(half_life=1, own_similarity=0.0)
    method = item_item.ItemItem(choices=(choice,), files=two_tastes.item_state_files)
    (scores,) = method.score(rows_of(purchases([0, 0, 0], [0, 1, 1], [1, 1, 2]), [0]))
    # Item 0 weighs 1/2 and says 1/2 for 1, 1/4 for 2, 1/8 for 3; item 1 weighs 3/4.
    assert told(scores) == pytest.approx(
        {(0, 0): 0.375, (0, 1): 0.25, (0, 2): 0.125 + 0.1875, (0, 3): 0.0625 + 0.09375}
    )
