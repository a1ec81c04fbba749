import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recspark.evaluate import metrics


def ragged(lists):
    offsets = np.concatenate(([0], np.cumsum([len(items) for items in lists]))).astype(np.int64)
    return np.array([item for items in lists for item in items], dtype=np.int64), offsets


def by_loop(ranked, truths, k):
    """The definitions, one user at a time."""
    truths, seen, hits = set(truths), set(), []
    for item in ranked[:k]:
        hits.append(item in truths and item not in seen)
        seen.add(item)
    if not truths:
        return [math.nan] * 5
    best = min(len(truths), k)
    precision = sum(sum(hits[: r + 1]) / (r + 1) for r, hit in enumerate(hits) if hit) / best
    gain = sum(1 / math.log2(r + 2) for r, hit in enumerate(hits) if hit)
    ideal = sum(1 / math.log2(r + 2) for r in range(best))
    return [precision, gain / ideal, sum(hits) / len(truths), sum(hits) / k, float(any(hits))]


def test_a_user_with_two_of_three_purchases_at_ranks_1_and_3():
    found = metrics.per_user(ragged([[7, 1, 9, 2]]), ragged([[9, 7, 5]]), k=3)
    assert found == {
        "map_at_3": pytest.approx((1 / 1 + 2 / 3) / 3),
        "ndcg_at_3": pytest.approx((1 + 1 / 2) / (1 + 1 / math.log2(3) + 1 / 2)),
        "recall_at_3": pytest.approx(2 / 3),
        "precision_at_3": pytest.approx(2 / 3),
        "hit_rate_at_3": pytest.approx(1),
    }


def test_more_purchases_than_ranks_still_allow_a_perfect_map_and_ndcg():
    found = metrics.per_user(ragged([[1, 2]]), ragged([[4, 3, 2, 1]]), k=2)
    assert [found["map_at_2"][0], found["ndcg_at_2"][0], found["recall_at_2"][0]] == [1, 1, 0.5]


def test_a_short_list_is_judged_as_if_its_other_places_were_misses():
    found = metrics.per_user(ragged([[5], []]), ragged([[5], [5]]), k=4)
    assert found["precision_at_4"].tolist() == [0.25, 0]
    assert found["map_at_4"].tolist() == [1, 0]


def test_an_item_named_twice_is_found_once():
    found = metrics.per_user(ragged([[5, 5]]), ragged([[5, 5, 6]]), k=2)
    assert [found["map_at_2"][0], found["recall_at_2"][0]] == [0.5, 0.5]


def test_a_user_who_bought_nothing_belongs_to_no_mean():
    found = metrics.per_user(ragged([[1], [1]]), ragged([[], [1]]), k=1)
    assert all(np.isnan(values[0]) and values[1] == 1 for values in found.values())


def test_no_users_at_all_give_empty_arrays():
    assert all(v.shape == (0,) for v in metrics.per_user(ragged([]), ragged([]), k=12).values())


item_lists = st.lists(st.integers(0, 6) | st.just(2**62), max_size=8)


@given(st.lists(st.tuples(item_lists, item_lists), max_size=6), st.integers(1, 9))
def test_all_users_at_once_score_what_each_user_scores_in_a_loop(users, k):
    found = metrics.per_user(ragged([r for r, _ in users]), ragged([t for _, t in users]), k)
    assert tuple(found) == metrics.names(k)
    looped = np.array([by_loop(r, t, k) for r, t in users]).reshape(-1, 5)
    np.testing.assert_allclose(np.column_stack(list(found.values())), looped, atol=1e-12)


def test_metrics_need_neither_spark_nor_torch():
    code = "import recspark.evaluate.metrics, sys; print({'pyspark', 'torch'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"
