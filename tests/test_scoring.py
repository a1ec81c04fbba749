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


def test_the_source_that_placed_an_item_best_is_its_reason():
    nan = float("nan")
    batch = SimpleNamespace(
        candidate_seeds_C=torch.tensor([0, 0, 1]),
        candidate_items_C=torch.tensor([7, 3, 7]),
        features_CF=torch.tensor([[nan, 2.0, 5.0], [1.0, 1.0, nan], [nan, nan, nan]]),
    )
    names = ("bought_rank", "copurchased_rank", "popular_rank")
    told = reasons.of(batch, np.array([[7, 3], [7, 3]]), names)
    assert told.tolist() == [
        ["bought together with your purchases", "bought before"],
        ["fits your taste", "fits your taste"],
    ]
