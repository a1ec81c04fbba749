"""Features of one seed's pairs against numbers worked out by hand. No Spark."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

from recspark.prepare import (
    habits,
    latent_classes,
    life_tables,
    nearest_users,
    pair_features,
    pair_history,
    pair_parts,
    retrieval,
)
from recspark.prepare.feature_schema import FeatureSchema
from recspark.prepare.item_state_files import ItemStates
from recspark.prepare.item_trends import trend_names
from recspark.prepare.latent_classes import Traits
from recspark.prepare.nearest_users import Pool
from recspark.prepare.pair_history import History
from recspark.prepare.ranking import top_per_row

HORIZON = 10.0
NUM_ITEMS = 4
SCHEMA = FeatureSchema(other_tables=("returns",), item_traits=("category",), amounts=("discount",))
DUE_RATES = np.full((NUM_ITEMS, life_tables.NUM_INTERVALS), 0.25)  # of a line, at any age
# The items' category, which the last does not have, and their price, which none has.
KINDS = Traits.of([np.array([0, 1, 0, -1]), np.full(4, -1)], np.zeros(4))


def history(rows, num_seeds=1):
    """(seed, item, age, price, quantity) rows, oldest first within a seed.

    The discount of item 0 is its age in percent, those of other items are unknown.
    """
    columns = np.array(rows, dtype=float).reshape(-1, 5).T
    seed, item = columns[0].astype(np.int64), columns[1].astype(np.int64)
    discounts = {"amount_discount": np.where(item == 0, columns[2] / 100, np.nan)}
    return History(num_seeds, NUM_ITEMS, seed, item, item, *columns[2:], discounts)


def pool_of(rates, ages=None, first=100):
    """Entities first, first + 1, ... with these vectors."""
    owned = sparse.csr_matrix(rates, dtype=np.float32)
    days = owned.copy()
    days.data = np.full(owned.nnz, 1.0) if ages is None else np.array(ages, dtype=float)
    entities = first + np.arange(owned.shape[0])
    columns = np.empty((len(entities), 0), dtype=np.int64)
    return Pool(entities, nearest_users.directions(owned), owned, days, columns)


def test_the_share_of_owners_is_that_of_the_pool():
    pool = pool_of([[0.5, 0, 1, 0], [0.25, 0, 0, 0], [0, 0, 3, 0], [1, 0, 0, 0]])
    assert pool.owner_share_N.tolist() == [0.75, 0, 0.5, 0]
    assert pool_of(np.zeros((0, NUM_ITEMS))).owner_share_N.tolist() == [0] * NUM_ITEMS


def block_of(past, others=None, similar=None, pool=None):
    features = replace(SCHEMA, other_tables=tuple(others or ()))
    names = trend_names(features)
    trend = {name: np.full(NUM_ITEMS, np.nan) for name in names}
    trend["log_decayed_sales_horizon"] = np.array([0.0, 3.0, 2.0, 1.0])
    trend["repeat_gap_days"] = np.array([5.0, np.nan, np.nan, np.nan])
    trend["log_price_now"] = np.log([4.0, 1.0, 1.0, 1.0])
    trend["log_owners"] = np.array([2.0, 1.0, 0.0, 0.0])
    trend["days_since_first_sale"] = np.array([50.0, 50.0, 9.0, np.nan])
    trend["log_quantity"] = np.log([3.0, 1.0, 2.0, 1.0])
    trend["log_price"] = np.log([3.0, 1.0, 5.0, 1.0])
    trend["amount_discount"] = np.array([0.25, 0.5, np.nan, np.nan])
    matrix = sparse.csr_matrix(np.zeros((4, 4)) if similar is None else similar)
    nothing = np.empty((NUM_ITEMS, 0))
    states = ItemStates(np.arange(NUM_ITEMS), *2 * (nothing,), matrix)
    pairs = pair_history.pairs(past, HORIZON)
    found = retrieval.retrieve(
        past, pairs, states, trend, np.arange(past.num_seeds), pool or pool_of(np.zeros((0, 4))),
        horizon_days=HORIZON, per_seed=4, history_per_entity=9,
    )  # fmt: skip
    users = pair_history.seed_columns(past, HORIZON) | habits.habits(past, trend)
    return pair_features.Block(
        past,
        pairs,
        users,
        trend,
        DUE_RATES,
        latent_classes.none(KINDS),
        np.zeros(NUM_ITEMS),
        np.empty((past.num_seeds, 0), dtype=np.int64),
        found,
        others or {},
        features,
        HORIZON,
    )


def feature_rows(block):
    """Features by (seed, item) and name."""
    names = pair_features.pair_names(block.features)
    values = pair_features.features(block)
    return {
        (int(seed), int(item)): dict(zip(names, row.tolist(), strict=True))
        for seed, item, row in zip(block.seed, block.item, values, strict=True)
    }


RECENCY = ((3, 40), (2, 20), (1, 10))  # of item 0 below: baskets since, days since
# Baskets 40, 20, 10 and 2 days ago; item 0 in the first three, twice as often in the second.
BUYER = [
    (0, 0, 40, 2, 6), (0, 0, 20, 2, 3), (0, 1, 20, 1, 1), (0, 0, 10, 3, 4), (0, 1, 2, 1, 1),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("purchases", 3), ("rows", 3), ("days_since_last", 10), ("days_since_first", 40),
        ("mean_gap", 15), ("last_gap", 10), ("gap_spread", 5),
        ("due_own", 10 / 15), ("due_item", 10 / 5), ("due_last_gap", 1),
        ("due_user", 10 / (38 / 3)), ("tempo_due", 2 / (38 / 3)),
        ("due_chance", np.log(0.25 + 1e-5)),
        ("baskets_ago", 1), ("in_last_1_baskets", 0), ("in_last_3_baskets", 2),
        ("in_last_5_baskets", 3), ("basket_decayed_50", 0.5**3 + 0.5**2 + 0.5),
        ("basket_share_50", 0.875 / (0.5**3 + 2 * 0.5**2 + 0.5 + 1)),
        ("basket_rate", sum(0.85**n * 2 ** (-age / 120) for n, age in RECENCY) / 4),
        ("distinct_items_since", 1), ("share_of_baskets", 3 / 4), ("share_of_rows", 3 / 5),
        ("decayed_one", 2**-4 + 2**-2 + 2**-1),
        ("decayed_quantity_one", 6 / 16 + 3 / 4 + 4 / 2),
        ("decayed_spend_one", 12 / 16 + 6 / 4 + 12 / 2),
        ("mean_amount_discount", 0.7 / 3), ("user_amount_discount", 0.7 / 3),
        ("decayed_amount_discount", 0.4 * 2 ** (-4 / 3) + 0.2 * 2 ** (-2 / 3) + 0.1 * 2 ** (-1 / 3)),
        ("item_amount_discount", 0.25), ("mean_quantity", 13 / 3), ("last_quantity", 4),
        ("stock_days", 4 * 30 / 9 - 10), ("share_of_spend", 30 / 32),
        ("price_against_last", np.log(4 / 3)), ("user_baskets", 4), ("user_tempo", 38 / 3),
        ("user_distinct_items", 2), ("user_repeat_share", 1 - 2 / 5), ("bought_rank", 1),
    ],
)  # fmt: skip
def test_a_pair_bought_three_times_has_the_features_worked_out_by_hand(name, expected):
    assert feature_rows(block_of(history(BUYER)))[0, 0][name] == pytest.approx(expected, rel=1e-5)


def test_a_line_is_an_item_because_it_is_due_or_as_taste_and_demand_want_it():
    rows = feature_rows(block_of(history(BUYER)))
    bought, other = rows[0, 0], rows[0, 2]
    of_four = 1 / 4  # the demand of each item, which `block_of` makes alike
    assert np.exp(bought["chance"]) == pytest.approx(0.25 + of_four * np.exp(bought["taste"]), 1e-4)
    assert np.exp(other["chance"]) == pytest.approx(of_four * np.exp(other["taste"]), 1e-4)
    assert np.isnan(other["due_chance"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Of items 1 | 0, 1, 0, 1 | 0, 0, 1, 0, 1 in the newest baskets all but the first are known.
        ("user_repeat_share_last_1", 1), ("user_repeat_share_last_3", 3 / 4),
        ("user_repeat_share_last_10", 3 / 5),
        ("user_popularity", (3 * 2 + 2 * 1) / 5), ("user_popularity_of_first", (2 + 1) / 2),
        ("user_novelty", np.mean(np.log1p([10, 30, 30, 40, 48]))),
        ("user_quantity_against_usual", np.mean(np.log([6 / 3, 3 / 3, 1, 4 / 3, 1]))),
        ("popularity_against_user", 0 - 8 / 5),
        ("novelty_against_user", np.log(10) - np.mean(np.log1p([10, 30, 30, 40, 48]))),
        ("spend_against_user", np.log(2 * 5) - np.mean(np.log([12, 6, 1, 12, 1]))),
    ],
)  # fmt: skip
def test_an_item_is_set_against_what_its_user_tends_to_buy(name, expected):
    assert feature_rows(block_of(history(BUYER)))[0, 2][name] == pytest.approx(expected, rel=1e-5)


def test_items_bought_at_once_were_not_bought_since_one_another():
    past = history([(0, 2, 9, 1, 1), (0, 0, 5, 1, 1), (0, 1, 5, 1, 1), (0, 3, 1, 1, 1)])
    rows = feature_rows(block_of(past))
    assert [rows[0, item]["distinct_items_since"] for item in range(4)] == [1, 1, 3, 0]


def test_an_item_never_bought_counts_zero_and_has_no_recency():
    pair = feature_rows(block_of(history(BUYER)))[0, 3]
    assert (pair["purchases"], pair["decayed_one"], pair["in_last_5_baskets"]) == (0, 0, 0)
    assert np.isnan([pair["days_since_last"], pair["due_own"], pair["bought_rank"]]).all()


def test_a_seed_without_history_gets_popular_items_first_and_no_tempo():
    block = block_of(history([]))
    assert block.retrieved.items.tolist() == [[1, 2, 3, 0]]
    pair = feature_rows(block)[0, 1]
    assert (pair["popular_rank"], pair["user_baskets"]) == (1, 0)
    assert np.isnan([pair["user_tempo"], pair["user_recency"], pair["share_of_baskets"]]).all()


def test_features_of_a_seed_do_not_depend_on_the_seeds_beside_it():
    alone = feature_rows(block_of(history(BUYER)))
    other = [(1, 2, 7, 5, 1), (1, 0, 1, 5, 9)]
    beside = feature_rows(block_of(history(BUYER + other, num_seeds=2)))
    for item in range(NUM_ITEMS):
        assert str(beside[0, item]) == str(alone[0, item])


def test_purchases_one_year_before_the_label_window_are_in_season():
    past = history([(0, 0, 366, 1, 1), (0, 0, 364, 1, 1), (0, 0, 355, 1, 1), (0, 0, 354, 1, 1)])
    assert feature_rows(block_of(past))[0, 0]["season_purchases"] == 2


def test_returns_are_counted_per_pair_and_per_user():
    returns = history([(0, 0, 30, 1, 1), (0, 1, 3, 1, 1)])
    rows = feature_rows(block_of(history(BUYER), others={"returns": returns}))
    assert (rows[0, 0]["returns_count"], rows[0, 0]["returns_days_since_last"]) == (1, 30)
    assert rows[0, 0]["returns_decayed"] == pytest.approx(0.5)
    assert (rows[0, 2]["returns_count"], rows[0, 2]["returns_user_count"]) == (0, 2)


def test_items_bought_with_the_history_are_scored_by_weight_times_similarity():
    similar = np.zeros((4, 4))
    similar[0, 2], similar[1, 2], similar[0, 3] = 0.5, 0.25, 0.1
    rows = feature_rows(block_of(history([(0, 0, 0, 1, 1), (0, 1, 0, 1, 1)]), similar=similar))
    assert rows[0, 2]["copurchase_score"] == pytest.approx(np.log(2) * 0.75)
    assert rows[0, 2]["basket_similarity"] == pytest.approx(0.75)
    assert (rows[0, 2]["copurchased_rank"], rows[0, 3]["copurchased_rank"]) == (1, 2)


def test_every_feature_belongs_to_exactly_one_group():
    # Also where a shop's columns are called as features are.
    alike = replace(SCHEMA, amounts=("tempo", "quantity", "log_price"))
    names = pair_features.pair_names(alike)
    assert len(set(names)) == len(names)
    assert set(names) == {n for g in pair_features.groups(alike).values() for n in g}


def test_the_best_of_a_row_come_first_and_ties_go_to_the_smaller_item():
    items, scores = top_per_row(
        np.array([0, 0, 0, 2]), np.array([7, 3, 5, 1]), np.array([0.5, 0.5, 0.9, 0.1]), 3, 2
    )
    assert items.tolist() == [[5, 3], [-1, -1], [1, -1]]
    assert scores[0].tolist() == pytest.approx([0.9, 0.5])


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_the_best_of_long_rows_are_those_of_a_sort(limit):
    rng = np.random.default_rng(limit)
    rows, items = np.divmod(np.arange(6 * 40), 40)
    scores = rng.choice([-0.5, 0.0, 0.25, 0.5, 1.0], size=240)
    kept = rng.random(240) < np.array([1, 0.9, 0.5, 0.1, 0, 1])[rows]  # rows of all lengths
    rows, items, scores = rows[kept], items[kept], scores[kept]
    found, of_them = top_per_row(rows, items, scores, 6, limit)
    for row in range(6):
        pairs = zip(scores[rows == row], items[rows == row], strict=True)
        expected = sorted((-score, item) for score, item in pairs if score > 0)[:limit]
        num_blank = limit - len(expected)
        assert found[row].tolist() == [item for _, item in expected] + [-1] * num_blank
        assert of_them[row].tolist() == [-score for score, _ in expected] + [0.0] * num_blank


def test_the_nearest_users_vote_alike_and_nobody_for_itself():
    # Seed 0 bought item 0 today. Entity 100 has items 0 and 1, 101 only item 2, 102 item 0.
    past = history([(0, 0, 0.0, 1.0, 1.0)])
    pool = pool_of([[0.5, 0.5, 0, 0], [0, 0, 2, 0], [1, 0, 0, 0]], [1, 99, 1, 99])
    rows = feature_rows(block_of(past, pool=pool))
    assert rows[0, 0]["neighbours_rate"] == pytest.approx((0.5 + 1) / 2)
    assert rows[0, 1]["neighbours_rate"] == rows[0, 1]["neighbours_rate_of_nearest"] == 0.25
    assert rows[0, 1]["neighbours_recent"] == 0  # 99 days ago
    assert rows[0, 0]["neighbours_recent"] == 0.5
    assert rows[0, 2]["neighbours_rate"] == 0  # nothing in common
    assert rows[0, 0]["neighbours_rank"] == 1
    itself = pool_of([[1, 1, 0, 0]], first=0)
    alone = feature_rows(block_of(past, pool=itself))
    assert all(pair["neighbours_rate"] == 0 for pair in alone.values())


def test_the_pool_tells_decayed_purchases_per_basket():
    # Entity 5 bought items 1 and 2 20 days before the anchor, 1 again 10 days before; 2 later on.
    day = 86_400_000_000
    rows = {
        "entity": [5, 5, 5, 5, 6], "item": [1, 2, 1, 2, 3], "time": [0, 0, 10, 40, 40],
        "draw": [0, 0, 0, 0, 9], "event": [1, 2, 3, 4, 5],
    }  # fmt: skip
    rows["time"] = pa.array([days * day for days in rows["time"]], pa.timestamp("us"))
    batches = pa.table(rows).to_batches()
    (pool,) = nearest_users.pool(iter(batches), {20 * day: 5}, limit=9, horizon_days=HORIZON)
    assert pool["items"].to_pylist() == [[1, 2]]
    old, new = 0.85 * 2 ** (-20 / 120) / 2, 2 ** (-10 / 120) / 2
    assert pool["rates"][0].as_py() == pytest.approx([old + new, old])
    assert pool["ages"][0].as_py() == [10, 20]


def test_the_closest_own_item_is_kept_with_its_cosine():
    # Seed 0 bought 0 long ago and 1 today; 2 is like 0 by 0.9 and like 1 by 0.4.
    similar = np.zeros((4, 4))
    similar[0, 2], similar[1, 2] = 0.9, 0.4
    past = history([(0, 0, 99.0, 1.0, 1.0), (0, 1, 0.0, 1.0, 1.0)])
    block = block_of(past, similar=similar)
    pair = feature_rows(block)[0, 2]
    assert pair["closest_similarity"] == pytest.approx(0.9)
    assert pair["closest_recent_similarity"] == pytest.approx(0.4)
    assert pair["recent_copurchase"] == pytest.approx(0.4)
    because = dict(
        zip(block.retrieved.items[0].tolist(), block.retrieved.because[0].tolist(), strict=True)
    )
    assert because == {0: -1, 1: -1, 2: 0, 3: -1}


def test_every_part_that_can_be_a_reason_is_made_of_features():
    names = pair_features.pair_names(SCHEMA)
    parts = pair_parts.parts(dict.fromkeys(names, 1.0), SCHEMA)
    assert {name for part in parts.values() for name in part} <= set(names)
    own = parts["own"]
    assert parts["taste"] == {
        "taste_of_category": 0.0,
        "taste_by_price": 0.0,
        "taste_overall": 0.0,
        "taste": 1.0,
    }
    assert own["purchases"] == own["decayed_one"] == own["share_of_spend"] == 0
    assert own["days_since_last"] is own["due_own"] is own["bought_rank"] is None
    # As for an item that was never bought, which is what the features themselves say of one.
    never = feature_rows(block_of(history(BUYER)))[0, 3]
    without = {name: np.nan if own[name] is None else own[name] for name in own}
    for name in set(own) - {"bought_rank"}:
        np.testing.assert_equal(never[name], without[name], err_msg=name)
