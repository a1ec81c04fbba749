from datetime import date

import numpy as np
import pytest

from recspark.evaluate import comparison

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


def test_methods_are_averaged_over_the_same_users(table):
    ours = comparison.score(table(RANKED), table(SNAPSHOTS), k=2)
    theirs = comparison.score(table(RANKED).limit(0), table(SNAPSHOTS), k=2)
    num_users, methods = comparison.means_of_methods({"recspark": ours, "nothing": theirs})
    assert num_users == 3
    assert methods["recspark"]["map_at_2"] == pytest.approx(1 / 3, abs=1e-9)
    assert methods["recspark"]["hit_rate_at_2"] == pytest.approx(2 / 3, abs=1e-9)
    assert set(methods["nothing"].values()) == {0.0}


def test_nobody_bought_anything_so_there_is_no_mean(table):
    scored = comparison.score(table(RANKED), table(SNAPSHOTS).where("entity = 3"), k=2)
    assert np.isnan(list(comparison.means(scored).values())).all()


def test_coverage_counts_distinct_items_within_rank_k(table):
    assert comparison.coverage(table(RANKED), k=1, num_on_sale=8) == 2 / 8


def test_differences_pair_each_user_with_itself_at_the_same_anchor(table):
    rows = table("""
        entity:bigint | anchor_time:timestamp | map_at_2:double
        1             | 2024-03-08T00:00:00   | 0.75
        1             | 2024-03-01T00:00:00   | 0.5
        """)
    zero_older = table("""
        entity:bigint | anchor_time:timestamp | map_at_2:double
        1             | 2024-03-01T00:00:00   | 0
        1             | 2024-03-08T00:00:00   | 0.25
        """)
    found = comparison.differences(rows, zero_older, "map_at_2").toArrow().to_pylist()
    assert [(row["entity"], row["difference"]) for row in found] == [(1, 0.5), (1, 0.5)]


def test_the_interval_is_the_same_on_spark_in_any_partitioning_and_on_arrays(spark):
    ours = np.random.default_rng(1).uniform(size=3000)
    rows = [(user, float(value)) for user, value in enumerate(ours)]
    frame = spark.createDataFrame(rows, "entity bigint, difference double")
    expected = comparison.paired_interval(ours, np.zeros(3000), seed=5, resamples=200)
    for partitions in (1, 3):
        shuffled = frame.repartition(partitions, "difference")
        assert comparison.bootstrap_difference(shuffled, seed=5, resamples=200) == expected


def test_the_interval_is_as_wide_as_the_normal_one():
    rng = np.random.default_rng(2)
    theirs = rng.uniform(size=4000)
    ours = theirs + rng.normal(0.02, 0.1, 4000)
    error = (ours - theirs).std() / np.sqrt(4000)
    found = comparison.paired_interval(ours, theirs, seed=3)
    mean = (ours - theirs).mean()
    assert found.mean_difference == pytest.approx(mean, abs=1e-9)
    assert found.low == pytest.approx(mean - 1.96 * error, abs=0.2 * error)
    assert found.high == pytest.approx(mean + 1.96 * error, abs=0.2 * error)


def test_poisson_draws_have_mean_and_variance_one_and_do_not_know_each_other():
    draws = comparison._poisson_weights(np.arange(3000), seed=4, resamples=203).astype(float)
    assert draws.shape == (3000, 203)
    assert [draws.mean(), draws.var()] == pytest.approx([1, 1], abs=0.01)
    assert np.abs(np.corrcoef(draws[:, :8].T) - np.eye(8)).max() < 0.08  # 4 standard errors
    assert np.abs(np.corrcoef(draws[:8]) - np.eye(8)).max() < 0.3
    other = comparison._poisson_weights(np.arange(3000), seed=5, resamples=203)
    assert abs(np.corrcoef(draws[:, 0], other[:, 0])[0, 1]) < 0.08


def test_an_interval_needs_users(spark):
    nobody = spark.createDataFrame([], "entity bigint, difference double")
    with pytest.raises(ValueError, match="no users with labels"):
        comparison.bootstrap_difference(nobody, seed=1, resamples=100)


def test_a_date_of_a_backtest_as_json():
    found = comparison.Comparison(
        as_of=date(2024, 3, 8), num_users=2, seconds=1.5, methods={"recspark": {"map_at_2": 0.5}}
    )
    assert found.to_json() == {
        "as_of": "2024-03-08",
        "num_users": 2,
        "seconds": 1.5,
        "methods": {"recspark": {"map_at_2": 0.5}},
    }
