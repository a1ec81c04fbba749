"""What becomes of scores and candidates between the network and the written row."""

from types import SimpleNamespace

import numpy as np
import torch

from recspark.recommend import reasons, scoring


def test_equal_scores_move_apart_by_one_float_and_keep_their_order():
    apart = scoring.strictly_decreasing(np.array([[2.0, 1.0, 1.0, 1.0], [3.0, 2.0, 1.0, 0.0]]))
    assert (np.diff(apart, axis=1) < 0).all()
    assert apart[0, 1] == 1.0
    assert apart[0, 2] == np.nextafter(1.0, -np.inf)
    assert apart[1].tolist() == [3.0, 2.0, 1.0, 0.0]


class Adds:
    """A head whose score is a weighted sum of features, missing ones counting 0."""

    def __init__(self, *weights):
        self.weights = torch.tensor(weights)

    def __call__(self, features):
        return (features.nan_to_num() * self.weights).sum(1, keepdim=True)


NAMES = ("purchases", "due_item", "closest_similarity", "popular_rank", "item_log_sales_30")
PARTS = {
    "own": {"purchases": 0.0, "due_item": None},
    "together": {"closest_similarity": 0.0},
    "popular": {"popular_rank": None, "item_log_sales_30": 1.0},
}


def told(rows, weights, names=NAMES, parts=PARTS):
    batch = SimpleNamespace(
        candidate_seeds_C=torch.zeros(len(rows), dtype=torch.int64),
        candidate_items_C=torch.arange(len(rows)),
        features_CF=torch.tensor(rows),
    )
    encodings = SimpleNamespace(pair_names=names, pair_parts=parts)
    items = np.arange(len(rows) + 1)[None]
    return reasons.of(batch, items, encodings, Adds(*weights))[0].tolist()


def test_the_part_without_which_the_score_loses_most_is_the_reason():
    nan = float("nan")
    rows = [
        [2.0, nan, 0.5, 3.0, 2.0],
        [2.0, 1.5, 0.5, 3.0, 2.0],
        [1.0, 0.2, 0.9, nan, 9.0],
        [0.0, nan, 0.0, 3.0, 9.0],
        [0.0, nan, 0.0, nan, 9.0],
    ]
    # Weights: a purchase 1, a similarity 2, a unit of sales 1 against 1 of the usual candidate.
    assert told(rows, [1.0, 0.0, 2.0, 0.0, 1.0]) == [
        "bought before",
        "bought before and due again",
        "bought together with {item}",  # it loses 1.8, the purchase 1; it is not in the popular list
        "popular now",
        "fits your taste",  # nothing that may be said of it is true
        "fits your taste",  # no candidate
    ]


def test_a_taste_is_a_reason_where_the_user_buys_more_of_a_trait_than_others():
    names = ("popular_rank", "taste_of_category", "taste")
    parts = {
        "popular": {"popular_rank": None},
        "taste": {"taste_of_category": 0.0, "taste": 1.0},
    }
    rows = [[3.0, 0.5, 2.0], [3.0, -0.5, 9.0]]
    # The second is liked less than others like it: `taste` is high since everybody buys it.
    found = told(rows, [0.0, 1.0, 1.0], names, parts)
    assert found[:2] == ["fits your taste", "popular now"]


def test_the_same_pair_has_another_reason_when_the_head_weighs_otherwise():
    row = [2.0, float("nan"), 0.5, 3.0, 2.0]
    assert told([row], [1.0, 0.0, 9.0, 0.0, 1.0])[0] == "bought together with {item}"
    assert told([row], [1.0, 0.0, 2.0, 0.0, 9.0])[0] == "popular now"
