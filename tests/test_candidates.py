"""Candidates of drawn seeds: which items, how many, and blind to the future."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recspark import files, schema
from recspark.prepare import (
    candidates,
    customer_class_files,
    customer_classes,
    due,
    entity_pool,
    item_due_rate_files,
    item_due_rates,
    item_state_files,
    item_states,
    latent_classes,
    life_tables,
)
from recspark.prepare.arrow_rows import matrix, microseconds
from recspark.prepare.class_covariates import Covariate
from recspark.prepare.feature_schema import FeatureSchema
from recspark.prepare.interactions import EventRoles
from recspark.prepare.latent_classes import Classes, Traits
from recspark.prepare.pair_features import pair_names
from recspark.settings import Candidates

ROLES = (
    EventRoles(table="sales", entity_position=0, item_position=1, price_position=0),
    EventRoles(table="wishes", entity_position=0, item_position=1),
)
ANCHORS = (datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 3, 11, tzinfo=UTC))
SALES = """
    event:bigint | time:timestamp      | nodes:array<bigint> | amounts:array<double>
    11           | 2024-02-10T00:00:00 | [0 0]               | [2]
    12           | 2024-02-20T00:00:00 | [1 0]               | [2]
    13           | 2024-02-25T00:00:00 | [1 1]               | [8]
    14           | 2024-03-01T00:00:00 | [1 2]               | [8]
    15           | 2024-02-28T00:00:00 | [0 4]               | [1]
    """
LATER = """
    16           | 2024-03-11T00:00:01 | [2 3]               | [5]
    """
WISHES = """
    event:bigint | time:timestamp      | nodes:array<bigint> | amounts:array<double>
    21           | 2024-02-27T00:00:00 | [0 1]               | []
    """
# Item 4 leaves before the first anchor, item 5 comes between the two.
ITEMS = """
    node:bigint | start_time:timestamp | end_time:timestamp  | codes:array<int> | parents:array<bigint>
    0           |                      |                     | [2]              | [7]
    1           |                      |                     | [3]              | [7]
    2           |                      |                     | [2]              | [-1]
    3           | 2024-02-28T00:00:00  |                     | [1]              | [7]
    4           |                      | 2024-03-01T00:00:00 | [0]              | [7]
    5           | 2024-03-05T00:00:00  |                     | [2]              | [7]
    """
USERS = """
    node:bigint | codes:array<int> | parents:array<bigint>
    0           | [2]              | []
    1           | [3]              | []
    2           | [0]              | []
    9           | [2]              | []
    """
SEEDS = """
    split:string | anchor_time:timestamp | entity:bigint | labels:array<bigint>
    train        | 2024-03-01T00:00:00   | 0             | [1 5]
    train        | 2024-03-01T00:00:00   | 1             | []
    test         | 2024-03-11T00:00:00   | 0             | [0]
    test         | 2024-03-11T00:00:00   | 9             | [5]
    """
FEATURES = FeatureSchema(other_tables=("wishes",), item_traits=("category", "merchant"))
NAMES = pair_names(FEATURES)


def parquet(folder):
    return tuple(sorted(str(path) for path in folder.glob("*.parquet")))


def tables(table, folder, events, items=ITEMS):
    """Files of the item states, the entity pool, the customers' classes and the items' due rates."""
    known = {"features": FEATURES, "horizon_days": 10, "settings": Candidates()}
    states = item_states.build(events, ROLES, table(items), ANCHORS, **known)
    states.write.parquet(str(folder / "states"))
    pool = entity_pool.build(
        events, ROLES[0], table(USERS), ANCHORS, history_per_entity=100, horizon_days=10.0, seed=7
    )
    pool.write.parquet(str(folder / "pool"))
    found = [parquet(folder / name) for name in ("states", "pool")]
    classes = customer_classes.build(pool.sparkSession, ANCHORS, *found, features=FEATURES)
    classes.write.parquet(str(folder / "classes"))
    rates = item_due_rates.build(pool.sparkSession, ANCHORS, found[0])
    rates.write.parquet(str(folder / "rates"))
    return *found, parquet(folder / "classes"), parquet(folder / "rates")


def build(table, folder, sales=SALES, partitions=None, per_seed=3):
    """Candidate rows by (day, entity), and the frame that gave them."""
    events = {"sales": table(sales), "wishes": table(WISHES)}
    seeds = table(SEEDS)
    if partitions:
        events = {name: frame.repartition(partitions) for name, frame in events.items()}
        seeds = seeds.repartition(partitions)
    files = tables(table, folder, events)
    settings = Candidates(per_seed=per_seed)
    known = {"features": FEATURES, "horizon_days": 10, "settings": settings}
    frame = candidates.build(events, ROLES, seeds, table(USERS), *files, **known)
    rows = frame.toArrow().to_pylist()
    return {(r["anchor_time"].day, r["entity"]): r for r in rows}, frame


@pytest.fixture(scope="module")
def built(spark, tmp_path_factory):
    from conftest import drawn

    return build(lambda text: spark.createDataFrame(drawn(text)), tmp_path_factory.mktemp("one"))


def numbers(row):
    return np.frombuffer(row["features"], dtype="<f4")


def features(row):
    """Features by item and name."""
    values = numbers(row).reshape(len(row["items"]), len(NAMES))
    return {
        item: dict(zip(NAMES, pair.tolist(), strict=True))
        for item, pair in zip(row["items"], values, strict=True)
    }


def test_every_seed_has_the_same_number_of_distinct_items_on_sale(built):
    rows, _ = built
    assert sorted(rows) == [(1, 0), (1, 1), (11, 0), (11, 9)]
    for (day, _), row in rows.items():
        assert len(row["items"]) == len(set(row["items"])) == 3
        assert set(row["items"]) <= ({0, 1, 2, 3} if day == 1 else {0, 1, 2, 3, 5})
        assert len(numbers(row)) == 3 * len(NAMES)


def test_what_was_bought_comes_first_then_what_goes_with_it(built):
    rows, _ = built
    # User 0 bought item 0, with which user 1 bought 1 and 2, equally close; 2 is popular now.
    assert rows[1, 0]["items"] == [0, 1, 2]
    pair = features(rows[1, 0])[0]
    assert (pair["bought_rank"], pair["purchases"], pair["days_since_last"]) == (1, 1, 20)


def test_a_purchase_at_the_anchor_is_seen(built):
    rows, _ = built
    assert features(rows[1, 1])[2]["days_since_last"] == 0


def test_labels_are_marked_and_what_is_no_candidate_is_not(built):
    rows, _ = built
    marked = {
        item
        for item, label in zip(rows[1, 0]["items"], rows[1, 0]["is_label"], strict=True)
        if label
    }
    assert marked == {1} & set(rows[1, 0]["items"])
    assert not any(rows[1, 1]["is_label"])


def test_a_user_without_history_gets_popular_and_new_items(built):
    rows, _ = built
    pairs = features(rows[11, 9])
    assert 5 in pairs  # new on sale
    assert pairs[2]["popular_rank"] == 1
    assert all(pair["purchases"] == 0 and pair["user_baskets"] == 0 for pair in pairs.values())
    assert not np.isinf(numbers(rows[11, 9])).any()


def test_a_wish_is_a_feature_of_its_pair(built):
    rows, _ = built
    wished = features(rows[1, 0]).get(1) or features(rows[11, 0])[1]
    assert (wished["wishes_count"], wished["wishes_user_count"]) == (1, 1)


def test_sales_after_the_anchor_and_the_partitioning_change_no_byte(table, tmp_path, built):
    again, _ = build(table, tmp_path, sales=SALES + LATER, partitions=3)
    assert {key: str(row) for key, row in again.items()} == {
        key: str(row) for key, row in built[0].items()
    }


def test_recall_counts_labels_among_candidates_and_per_source(table, built):
    rows, frame = built
    found = candidates.recall(frame, table(SEEDS), NAMES)
    hits = sum(sum(row["is_label"]) for (day, _), row in rows.items() if day == 1)
    assert found["train"]["all"] == hits / 2
    assert found["test"]["bought"] == 1 / 2


@pytest.mark.parametrize("traits", ["[2]   | [7]", "[]   | []"])
def test_an_anchor_has_classes_whose_factors_are_of_its_traits_and_of_the_price(
    table, tmp_path, traits
):
    """Also where items have no trait, and where two of them have as many values."""
    items = f"""
        node:bigint | start_time:timestamp | end_time:timestamp | codes:array<int> | parents:array<bigint>
        0           |                      |                    | {traits}
        1           |                      |                    | {traits}
        """
    events = {"sales": table(SALES), "wishes": table(WISHES)}
    states, _, classes, _ = tables(table, tmp_path, events, items)
    expected = [1, 8, 8] if "7" in traits else [8]
    for anchor in ANCHORS:
        found = customer_class_files.load(classes, states, microseconds(anchor), FEATURES)
        assert found.share_K.sum() == pytest.approx(1)
        assert [factor_KV.shape for factor_KV in found.factors] == [
            (len(found.share_K), size) for size in expected
        ]


def test_due_rates_of_an_anchor_follow_the_purchases_seen_then(table, tmp_path):
    """Item 0 is bought again between the anchors."""
    again = "    17           | 2024-03-05T00:00:00 | [1 0]               | [2]\n"
    events = {"sales": table(SALES.rstrip() + "\n" + again), "wishes": table(WISHES)}
    states, *_, rates = tables(table, tmp_path, events)
    before, after = (item_due_rate_files.load(rates, microseconds(anchor)) for anchor in ANCHORS)
    for anchor, found in zip(ANCHORS, (before, after), strict=True):
        items = item_state_files.load(states, microseconds(anchor)).nodes
        assert found.shape == (len(items), life_tables.NUM_INTERVALS)
    assert (before == 0).all()
    wanted = (schema.ITEM, schema.REPEATS, schema.AT_RISK)
    counted = files.read(states, wanted, ANCHORS[1]).sort_by(schema.ITEM)
    repeats = matrix(counted, schema.REPEATS)
    assert repeats.sum(axis=1).tolist() == [1, 0, 0, 0, 0]
    owners = np.array([2.0, 1, 1, 0, 0])
    expected = due.rates(repeats, matrix(counted, schema.AT_RISK), owners)
    assert after == pytest.approx(expected, rel=1e-6)
    assert after.sum(axis=1).argmax() == 0


def test_before_there_is_an_item_nothing_is_due(table, tmp_path):
    events = {"sales": table(SALES), "wishes": table(WISHES)}
    states, *_ = tables(table, tmp_path, events)
    early = microseconds(datetime(2020, 1, 1, tzinfo=UTC))
    assert list(item_due_rate_files.find(early, states)) == []


def test_what_columns_tell_of_classes_is_read_as_it_was_found(table, tmp_path):
    events = {"sales": table(SALES), "wishes": table(WISHES)}
    states, *_ = tables(table, tmp_path, events)
    nothing, cities = (
        Covariate.nothing(2),
        Covariate(np.array([3, 9]), np.array([[2, 0.5], [1, 1]])),
    )
    found = Classes(
        latent_classes.none(Traits((), np.empty(0))).traits, np.array([0.25, 0.75]), np.ones(1),
        (np.array([[2.0], [1.0]]),), (nothing, cities),
    )  # fmt: skip
    anchor = microseconds(ANCHORS[0])
    row = pa.Table.from_batches([customer_class_files.stored(anchor, found)])
    pq.write_table(row, tmp_path / "stored.parquet")
    read = customer_class_files.load((str(tmp_path / "stored.parquet"),), states, anchor, FEATURES)
    assert [len(covariate.value_V) for covariate in read.covariates] == [0, 2]
    assert read.covariates[0].lift_VK.shape == (0, 2)
    np.testing.assert_array_equal(read.covariates[1].value_V, cities.value_V)
    np.testing.assert_array_equal(read.covariates[1].lift_VK, cities.lift_VK)
