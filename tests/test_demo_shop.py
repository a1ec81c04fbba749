import runpy
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest

from recspark.demo import catalog, draws, purchases, shop, shoppers
from recspark.demo.catalog import NEVER, Assortment
from recspark.demo.purchases import Stock
from recspark.demo.spec import Shop

TINY = Shop(num_users=40, num_items=90, num_events=1200, seed=7, until=date(2026, 11, 23))

PINNED_DRAWS = [0.8791513836149737, 0.3452209984468375, 0.9081699335235545]
PINNED_COUNTS = {"merchants": 4, "items": 90, "users": 40, "transactions": 1661, "returns": 63}
PINNED_ITEM = {
    "item_id": 41,
    "name": "Artisan Biography No. 41",
    "category": "Books",
    "price": 35.97,
    "merchant_id": 4,
    "on_sale_from": datetime(2026, 10, 5, tzinfo=UTC),
    "on_sale_until": None,
}
PINNED_USER = {
    "user_id": 3,
    "joined_at": datetime(2024, 10, 26, 20, 35, 42, tzinfo=UTC),
    "age_band": "25-34",
    "city": "Berlin",
    "email_opt_in": True,
}
PINNED_TRANSACTIONS = [
    (100000, 1, 64, datetime(2025, 7, 5, 6, 27, 23, tzinfo=UTC), 1, 12.03),
    (100001, 1, 34, datetime(2025, 7, 17, 11, 39, 49, tzinfo=UTC), 1, 4.15),
]
PINNED_SUM_OF_ITEM_IDS = 62175


def rows_of(frame):
    """The rows in order of their first column, which is the key."""
    return frame.toArrow().sort_by(frame.columns[0])


@pytest.fixture(scope="module")
def tiny(spark):
    """The tables of the tiny shop, made in three partitions."""
    bought = shop.transactions(spark, TINY, num_partitions=3)
    frames = {
        "merchants": shop.merchants(spark, TINY),
        "items": shop.items(spark, TINY, num_partitions=3),
        "users": shop.users(spark, TINY, num_partitions=3),
        "transactions": bought,
        "returns": shop.returns(bought, TINY),
    }
    return {name: rows_of(frame) for name, frame in frames.items()}


@pytest.fixture(scope="module")
def joined(tiny):
    """Every transaction beside its user and its item."""
    return (
        tiny["transactions"].to_pandas()
        .merge(tiny["users"].to_pandas(), on="user_id", validate="many_to_one")
        .merge(tiny["items"].to_pandas(), on="item_id", validate="many_to_one", suffixes=("", "_"))
    )  # fmt: skip


def test_draws_are_pinned_since_a_changed_hash_would_be_deterministic_too():
    found = draws.uniform(7, "items.rank", np.array([1, 2, 3]))
    assert found.tolist() == PINNED_DRAWS


def test_a_draw_depends_on_seed_column_and_every_key():
    variants = [
        draws.uniform(7, "a", np.array([1]), np.array([2])),
        draws.uniform(8, "a", np.array([1]), np.array([2])),
        draws.uniform(7, "b", np.array([1]), np.array([2])),
        draws.uniform(7, "a", np.array([2]), np.array([1])),
        draws.uniform(7, "a", np.array([1]), np.array([3])),
    ]
    assert len({float(v[0]) for v in variants}) == len(variants)


def test_draws_are_even_and_normal_draws_are_normal():
    keys = np.arange(100_000)
    even, normal = draws.uniform(1, "even", keys), draws.normal(1, "normal", keys)
    assert np.bincount((even * 10).astype(int)) == pytest.approx(10_000, rel=0.04)
    assert [normal.mean(), normal.std()] == pytest.approx([0, 1], abs=0.01)
    assert np.mean(np.abs(normal) > 1.96) == pytest.approx(0.05, abs=0.003)


def test_a_weighted_draw_never_chooses_a_weight_of_zero():
    weights = np.array([[0.0, 1.0, 0.0, 3.0, 0.0]] * 3)
    assert draws.weighted(np.array([0.0, 0.25, 1 - 2.0**-53]), weights).tolist() == [1, 3, 3]


def test_the_tiny_shop_has_exactly_these_rows(tiny):
    assert {name: rows.num_rows for name, rows in tiny.items()} == PINNED_COUNTS
    assert tiny["items"].slice(40, 1).to_pylist() == [PINNED_ITEM]
    assert tiny["users"].slice(2, 1).to_pylist() == [PINNED_USER]
    bought = tiny["transactions"].slice(0, 2).to_pylist()
    assert [tuple(row.values()) for row in bought] == PINNED_TRANSACTIONS
    assert sum(tiny["transactions"]["item_id"].to_pylist()) == PINNED_SUM_OF_ITEM_IDS


def test_the_shop_is_the_same_in_one_partition_and_in_three(spark, tiny):
    assert rows_of(shop.items(spark, TINY, num_partitions=1)) == tiny["items"]
    assert rows_of(shop.users(spark, TINY, num_partitions=1)) == tiny["users"]
    bought = shop.transactions(spark, TINY, num_partitions=1)
    assert rows_of(bought) == tiny["transactions"]
    assert rows_of(shop.returns(bought, TINY)) == tiny["returns"]


def test_another_seed_is_another_shop_of_the_same_size():
    def bought(seed):
        plan = Shop(num_users=200, num_items=90, num_events=6000, seed=seed, until=TINY.until)
        users = shoppers.describe(plan, np.arange(1, 201))
        return purchases.simulate(Assortment.of(plan), users).item_B

    one, other = bought(1), bought(2)
    assert [len(one), len(other)] == pytest.approx([6000, 6000], rel=0.2)
    assert one[:50].tolist() != other[:50].tolist()


def test_keys_are_unique_and_foreign_keys_resolve(tiny):
    keys = {name: rows.column(0).to_pylist() for name, rows in tiny.items()}
    for name, values in keys.items():
        assert len(set(values)) == len(values), name
    for name, column, target in [
        ("items", "merchant_id", "merchants"),
        ("transactions", "user_id", "users"),
        ("transactions", "item_id", "items"),
        ("returns", "user_id", "users"),
        ("returns", "item_id", "items"),
        ("returns", "return_id", "transactions"),
    ]:
        assert set(tiny[name][column].to_pylist()) <= set(keys[target]), (name, column)


def test_nobody_buys_before_joining_or_outside_the_history(joined):
    assert (joined["bought_at"] >= joined["joined_at"]).all()
    assert joined["bought_at"].min().date() >= date(2025, 5, 24)
    assert joined["bought_at"].max().date() < TINY.until
    assert (joined["joined_at"].dt.date >= date(2025, 5, 24)).any(), "some join within the history"


def test_nothing_is_bought_while_it_is_not_on_sale(joined):
    assert (joined["bought_at"] >= joined["on_sale_from"]).all()
    ends = joined["on_sale_until"].dropna()
    assert (joined.loc[ends.index, "bought_at"] < ends).all()
    assert len(ends), "withdrawn items were bought before"


def test_returns_follow_their_purchase_within_three_weeks_and_before_the_end(tiny):
    returns = (
        tiny["returns"]
        .to_pandas()
        .merge(tiny["transactions"].to_pandas(), left_on="return_id", right_on="transaction_id")
    )
    delay = (returns["returned_at"] - returns["bought_at"]).dt.total_seconds() / 86_400
    assert len(returns)
    assert delay.between(2, 20).all()
    assert (returns["item_id_x"] == returns["item_id_y"]).all()
    assert (returns["returned_at"].dt.date < TINY.until).all()


def one_user(num_copies):
    """One user's taste and stock, repeated: two coffees 20 and 2 days old, at day `moment`."""
    assortment = Assortment.of(TINY)
    user = shoppers.describe(TINY, np.array([3]))
    stock = Stock.empty(1)
    moment = TINY.end_day - 100.0
    for item, days_ago in [(0, 20.0), (1, 2.0)]:
        bought = np.array([moment - days_ago])
        purchases.restock(
            assortment, stock, np.array([0]), user.user_id_B, np.array([item]), bought
        )
    copies = np.zeros(num_copies, dtype=np.int64)
    taste = shoppers.taste(TINY, user)[copies]
    return assortment, taste, stock.of(copies), np.full(num_copies, moment)


def test_sampling_draws_with_the_chances_that_purchase_weights_tells():
    num_draws = 200_000
    assortment, taste, stock, moment = one_user(num_draws)
    weights = purchases.purchase_weights(assortment, taste[:1], stock.of(np.array([0])), moment[:1])
    chances = weights[0] / weights[0].sum()
    lines = np.arange(num_draws)
    chosen = purchases.choose(assortment, taste, stock, moment, np.full(num_draws, 3), lines)
    share = np.bincount(chosen, minlength=TINY.num_items) / num_draws
    deviation = (share - chances) / np.sqrt(np.maximum(chances, 1e-6) / num_draws)
    assert np.abs(deviation).max() < 4.5
    assert share[0] > 3 * share[1], "what is due comes before what was just bought"


def test_only_what_is_on_sale_has_weight_and_browsing_weighs_one_in_all():
    assortment, taste, stock, moment = one_user(1)
    weights = purchases.purchase_weights(assortment, taste, stock, moment)[0]
    is_sold = catalog.is_on_sale(assortment.items, int(moment[0]))
    assert 0 < is_sold.sum() < TINY.num_items
    assert ((weights > 0) == is_sold).all()
    due = purchases.due_weights(assortment, stock, moment)
    assert weights.sum() == pytest.approx(1 + due.sum())
    before = purchases.purchase_weights(assortment, taste, Stock.empty(1), moment)
    assert before.sum() == pytest.approx(1)


def test_stock_keeps_the_latest_consumables_and_forgets_the_oldest():
    stock = Stock.empty(1)
    row, rhythm = np.array([0]), np.array([10.0])
    for day, item in enumerate([5, *range(100, 100 + purchases.STOCK_PLACES - 1), 5, 7]):
        stock.put(row, np.array([item]), np.array([float(day)]), rhythm)
    kept = set(stock.item_BP[0].tolist())
    assert kept == {5, 7, *range(101, 100 + purchases.STOCK_PLACES - 1)}


def test_a_user_buys_the_same_whoever_else_is_simulated_beside():
    assortment = Assortment.of(TINY)

    def items_of_user_9(ids):
        lines = purchases.simulate(assortment, shoppers.describe(TINY, ids))
        return lines.item_B[ids[lines.user_B] == 9].tolist()

    alone = items_of_user_9(np.array([9]))
    assert alone
    assert items_of_user_9(np.arange(1, 41)) == alone


def test_a_withdrawal_comes_after_the_launch_and_first_items_of_shelves_stay():
    items = Assortment.of(TINY).items
    assert (items.until_day_I > items.from_day_I).all()
    firsts = items.at(np.arange(catalog.NUM_SHELVES))
    assert firsts.shelf_I.tolist() == list(range(catalog.NUM_SHELVES))
    assert (firsts.until_day_I == NEVER).all()
    assert (firsts.from_day_I <= TINY.first_day).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_items": 0}, "items should be at least 1, got 0"),
        ({"num_days": 30}, "days should be at least 90"),
        ({"num_events": 50_000}, "50000 events are more than 1000 for each of 40 users"),
    ],
)
def test_a_shop_that_cannot_be_is_refused(changes, message):
    size = {"num_users": 40, "num_items": 90, "num_events": 1200} | changes
    with pytest.raises(ValueError, match=message):
        Shop(seed=7, until=TINY.until, **size)


def test_the_oracle_knows_more_than_the_observer_and_both_more_than_what_sells_best():
    oracle = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "demo_oracle.py"))
    small = Shop(num_users=300, num_items=60, num_events=9_000, seed=7, until=date(2026, 11, 23))
    as_of = date(2026, 11, 9)
    assortment = Assortment.of(small)
    users = shoppers.describe(small, np.arange(1, 301))
    lines = purchases.simulate(assortment, users)
    day = lines.second_B // 86_400 - (as_of - date(1970, 1, 1)).days
    best = np.bincount(lines.item_B[(day < 0) & (day >= -30)]).argsort()[::-1][:5]
    bought = {}
    for user, item in zip(lines.user_B[(day >= 0) & (day < 7)], lines.item_B[(day >= 0) & (day < 7)],
                          strict=True):  # fmt: skip
        if users.email_opt_in_B[user]:
            bought.setdefault(int(user), set()).add(int(item))
    hits = [np.array([item in items for item in best]) for items in bought.values()]
    popular = np.mean(
        [
            (hit * hit.cumsum() / np.arange(1, 6)).sum() / min(len(items), 5)
            for hit, items in zip(hits, bought.values(), strict=True)
        ]
    )
    ids = assortment.items.item_id_I[best].tolist()
    written = {int(user): ids for user in users.user_id_B}
    limits, num_users = oracle["limits"](small, as_of, horizon_days=7, k=5, written=written)
    assert num_users == len(bought)
    assert limits["recspark"].found == pytest.approx(popular)
    for kind in ("found", "expected"):
        best_sold, observing, knowing = (
            getattr(limits[name], kind) for name in ("recspark", "observer", "oracle")
        )
        assert 1.5 * best_sold < observing < knowing < 1


def test_a_ranking_is_worth_what_the_chances_expect_of_it():
    oracle = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "demo_oracle.py"))
    chances = np.tile([0.5, 0.3, 0.2], (3_000, 1))
    # One bought, at the first, second or third place; two bought, and only item 0 is listed.
    one = oracle["expected_maps"](chances, np.tile([1, 0, 2], (3_000, 1)), np.full(3_000, 1), 12)
    assert one.mean() == pytest.approx(0.3 + 0.5 / 2 + 0.2 / 3, abs=0.002)
    both = 0.5 + 0.3 * 0.5 / 0.7 + 0.2 * 0.5 / 0.8
    two = oracle["expected_maps"](chances, np.zeros((3_000, 1), int), np.full(3_000, 2), 12)
    assert two.mean() == pytest.approx(both / 2, abs=0.002)


def test_the_oracle_sees_the_stock_that_the_shop_had_on_the_day():
    oracle = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "demo_oracle.py"))
    assortment = Assortment.of(TINY)
    users = shoppers.describe(TINY, np.arange(1, 41))
    lines = purchases.simulate(assortment, users)
    second = int(np.median(lines.second_B))
    stock = oracle["stock_on"](assortment, users, lines, second)
    for user in range(40):
        mine = (lines.user_B == user) & (lines.second_B <= second)
        items = lines.item_B[mine][assortment.items.rhythm_days_I[lines.item_B[mine]] > 0]
        newest_first = list(dict.fromkeys(items[::-1].tolist()))[: purchases.STOCK_PLACES]
        kept = stock.item_BP[user]
        assert sorted(kept[kept >= 0].tolist()) == sorted(newest_first)
