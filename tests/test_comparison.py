from datetime import UTC, date, datetime

import numpy as np
import pytest

from recspark.evaluate import bootstrap, comparison, slices, summary, totals
from recspark.evaluate.purchases import History
from recspark.evaluate.summary import Judged

SNAPSHOTS = """
    entity:bigint | anchor_time:timestamp | labels:array<bigint>
    1             | 2024-03-08T00:00:00   | [10 12]
    2             | 2024-03-08T00:00:00   | [13]
    3             | 2024-03-08T00:00:00   | []
    1             | 2024-03-01T00:00:00   | [11]
    """
RANKED = """
    entity:bigint | anchor_time:timestamp | items:array<bigint>
    1             | 2024-03-08T00:00:00   | [12 11]
    3             | 2024-03-08T00:00:00   | [10 11]
    1             | 2024-03-01T00:00:00   | [10 11]
    """


def test_lists_are_scored_at_their_own_anchor_and_a_missing_list_counts_as_zero(table):
    scored = comparison.score(table(RANKED), table(SNAPSHOTS), k=2)
    rows = scored.orderBy("anchor_time", "entity").toArrow().to_pylist()
    assert [(r["anchor_time"].day, r["entity"], r["map_at_2"]) for r in rows] == [
        (1, 1, 0.5),
        (8, 1, 0.5),
        (8, 2, 0.0),
    ]
    assert [r["recall_at_2"] for r in rows] == [1.0, 0.5, 0.0]


def test_methods_are_averaged_over_users_with_labels(table):
    found = comparison.means(comparison.score(table(RANKED), table(SNAPSHOTS), k=2))
    assert found["map_at_2"] == pytest.approx(1 / 3, abs=1e-9)
    assert found["hit_rate_at_2"] == pytest.approx(2 / 3, abs=1e-9)


def test_nobody_bought_anything_so_there_is_no_mean(table):
    scored = comparison.score(table(RANKED), table(SNAPSHOTS).where("entity = 3"), k=2)
    assert np.isnan(list(comparison.means(scored).values())).all()


ANCHOR = datetime(2024, 3, 8, tzinfo=UTC)
MICROS = int(ANCHOR.timestamp()) * 1_000_000
KIND = (
    "entity bigint, anchor_time timestamp, drawn_as bigint, labels array<bigint>, "
    "bought array<struct<item:bigint,age_days:int,weight:bigint>>, codes array<int>, "
    "ours array<bigint>, popular array<bigint>"
)


@pytest.fixture(scope="module")
def judged(spark):
    """Items 10 and 11 are old, 12 is new; each user's past is (item, age, on sale)."""
    rows = [
        (1, [10, 12], [(10, 3, 5), (10, 5, 5), (11, 3, None)], [12, 10], [10, 11]),
        (2, [11], [(11, age, None) for age in (1, 2, 9)], [10, 11], [10, 11]),
        (3, [12], None, None, [10, 11]),
    ]
    return spark.createDataFrame(
        [(e, ANCHOR, 100 + e, labels, bought, [], *lists) for e, labels, bought, *lists in rows],
        KIND,
    )


@pytest.fixture(scope="module")
def added(judged):
    old = {MICROS: np.array([10, 11])}
    return totals.add_up(judged, ["ours", "popular"], old, k=2, seed=5, replicates=100)


def test_slices_are_users_by_their_past_or_labels_by_theirs(added):
    found = {
        part.name: (part.num_users, part.maps)
        for part in comparison.slices_of(added, "ours", "popular")
    }
    num_nobody, nobody = found.pop("10+ baskets")
    # A basket is a day, whatever is on sale now. User 1 has bought 10 before, user 2 has 11.
    assert found == {
        "new entities": (1, {"ours": 0.0, "popular": 0.0}),
        "1-2 baskets": (1, {"ours": 1.0, "popular": 0.5}),
        "3-9 baskets": (1, {"ours": 0.5, "popular": 0.5}),
        "repeat purchases": (2, {"ours": 0.5, "popular": 0.75}),
        "first purchases": (2, {"ours": 0.5, "popular": 0.0}),
        "new items": (2, {"ours": 0.5, "popular": 0.0}),
    }
    assert num_nobody == 0
    assert np.isnan(list(nobody.values())).all()
    assert added.interval("ours", "popular", "10+ baskets") is None


def test_everybody_has_every_metric_and_a_missing_list_counts_as_zero(added):
    assert added.num_users() == 3
    means = added.means()
    assert means["ours"]["map_at_2"] == pytest.approx(0.5, abs=1e-9)
    assert means["popular"]["recall_at_2"] == pytest.approx(0.5, abs=1e-9)
    assert list(means["ours"]) == [
        f"{m}_at_2" for m in ("map", "ndcg", "recall", "precision", "hit_rate")
    ]


def test_the_interval_on_spark_is_that_of_arrays_in_any_partitioning(judged, added):
    again = totals.add_up(
        judged.repartition(3), ["ours", "popular"], {MICROS: np.array([10, 11])}, k=2, seed=5,
        replicates=100,
    )  # fmt: skip
    assert (again.map_steps == added.map_steps).all()
    assert (again.weights == added.weights).all()
    columns = np.stack(
        (
            bootstrap.steps(np.array([1.0, 0.5, 0])),
            bootstrap.steps(np.array([0.5, 0.5, 0])),
            np.ones(3),
        )
    )
    mine, other, weights = bootstrap.replicate_sums(np.array([101, 102, 103]), columns, 5, 100)
    assert added.interval("ours", "popular") == bootstrap.interval(mine, other, weights)


def test_what_lists_hold_of_the_catalogue_and_of_popular_items(judged):
    found = comparison.holdings(judged, ["ours", "popular"], "popular", k=2, num_on_sale=8)
    assert found["ours"] == {"coverage_at_2": 3 / 8, "popularity_share_at_2": 3 / 4}
    assert found["popular"] == {"coverage_at_2": 2 / 8, "popularity_share_at_2": 1.0}


def test_an_item_is_established_once_it_was_first_sold_a_horizon_before_the_anchor(table):
    events = table("""
        time:timestamp      | nodes:array<bigint>
        2024-03-01T00:00:00 | [1 10]
        2024-03-01T00:00:01 | [1 11]
        2024-02-01T00:00:00 | [2 12]
        2024-03-09T00:00:00 | [2 13]
        """)
    history = History(events=events, entity_position=0, item_position=1, items=events)
    anchors = table("anchor_time:timestamp\n2024-03-08T00:00:00")
    found = totals.established(history, anchors, horizon_days=7)
    assert {anchor: items.tolist() for anchor, items in found.items()} == {MICROS: [10, 12]}


def test_the_interval_is_as_wide_as_the_normal_one():
    rng = np.random.default_rng(2)
    theirs = rng.uniform(size=4000)
    ours = theirs + rng.normal(0.02, 0.1, 4000)
    error = (ours - theirs).std() / np.sqrt(4000)
    found = bootstrap.paired_interval(ours, theirs, seed=3)
    mean = (ours - theirs).mean()
    assert found.mean_difference == pytest.approx(mean, abs=1e-9)
    assert found.low == pytest.approx(mean - 1.96 * error, abs=0.2 * error)
    assert found.high == pytest.approx(mean + 1.96 * error, abs=0.2 * error)


def test_poisson_draws_have_mean_and_variance_one_and_do_not_know_each_other():
    draws = bootstrap._poisson_weights(np.arange(3000), seed=4, replicates=203).astype(float)
    assert draws.shape == (3000, 203)
    assert [draws.mean(), draws.var()] == pytest.approx([1, 1], abs=0.01)
    assert np.abs(np.corrcoef(draws[:, :8].T) - np.eye(8)).max() < 0.08  # 4 standard errors
    assert np.abs(np.corrcoef(draws[:8]) - np.eye(8)).max() < 0.3
    other = bootstrap._poisson_weights(np.arange(3000), seed=5, replicates=203)
    assert abs(np.corrcoef(draws[:, 0], other[:, 0])[0, 1]) < 0.08


def test_an_interval_needs_users():
    with pytest.raises(ValueError, match="no users with labels"):
        bootstrap.paired_interval(np.zeros(0), np.zeros(0), seed=1, replicates=100)


def totals_of(users, ours, theirs):
    """Totals of users by number, with MAP alone; all metrics are the same, all slices everybody."""
    columns = np.stack(
        [np.ones(len(users)), *(bootstrap.steps(np.array(m)) for m in (ours, theirs))]
    )
    sums = bootstrap.replicate_sums(np.array(users), columns, 1, 100)
    num_slices = len(slices.NAMES)
    return totals.Totals(
        methods=("recspark", "popularity"),
        k=2,
        metric_steps=np.broadcast_to(sums[1:, :1], (num_slices, 2, 5)),
        map_steps=np.broadcast_to(sums[1:], (num_slices, 2, 101)),
        weights=np.broadcast_to(sums[0], (num_slices, 101)),
    )


def test_a_summary_takes_means_of_dates_and_draws_one_user_together_over_dates():
    first, second = date(2024, 3, 8), date(2024, 4, 8)
    runs = [
        Judged(as_of=first, seed=1, totals=totals_of([7, 8], [0.5, 0.25], [0.25, 0.25])),
        Judged(as_of=second, seed=1, totals=totals_of([7], [1.0], [0.5])),
        Judged(as_of=first, seed=2, totals=totals_of([7, 8], [0.75, 0.5], [0.25, 0.25])),
        Judged(as_of=second, seed=2, totals=totals_of([7], [1.0], [0.5])),
    ]
    found = summary.summarize(runs, "recspark")
    assert (found.num_dates, found.num_seeds, found.num_users) == (2, 2, 3)
    # Dates of seed 1: 0.375 and 1; of seed 2: 0.625 and 1. Seeds: 0.6875 and 0.8125.
    assert found.methods["recspark"]["map_at_2"] == pytest.approx(0.75)
    assert found.methods["recspark"]["std"] == pytest.approx(0.125 / np.sqrt(2))
    assert found.methods["popularity"]["map_at_2"] == pytest.approx(0.375)
    interval = found.intervals["popularity"]
    assert interval.mean_difference == pytest.approx((0.25 + 0 + 0.5 + 0.5 + 0.25 + 0.5) / 6)
    # A replicate weighs the four rows of user 7 alike.
    seven, eight = bootstrap._poisson_weights(np.array([7, 8]), 1, 100).astype(float)
    drawn = seven + eight > 0
    gains = (1.75 * seven + 0.25 * eight)[drawn] / (4 * seven + 2 * eight)[drawn]
    assert [interval.low, interval.high] == pytest.approx(np.quantile(gains, [0.025, 0.975]))
    assert found.best_baseline == "popularity"
    assert found.to_json()["methods"]["popularity"]["std"] == 0.0


def test_one_seed_has_no_deviation():
    runs = [Judged(as_of=date(2024, 3, 8), seed=1, totals=totals_of([7], [0.5], [0.25]))]
    assert summary.summarize(runs, "recspark").to_json()["methods"]["recspark"]["std"] is None
