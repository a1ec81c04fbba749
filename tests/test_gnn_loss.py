import math
from dataclasses import replace

import pytest
import torch
from subgraph_factory import ENCODINGS, Shop

from recspark.gnn import batches, loss
from recspark.gnn.items import ItemVectors
from recspark.gnn.model import Outputs
from recspark.gnn.negatives import thin

SEEDS = torch.tensor([0, 0, 0, 0, 0, 2, 2, 2])
SCORES = torch.tensor([0.3, -1.0, 2.0, 0.3, 0.9, 0.0, 1.0, -0.5])
LABELS = torch.tensor([1, 0, 0, 1, 0, 0, 0, 1]).bool()
VALID = torch.tensor([1, 1, 1, 1, 0, 1, 1, 1]).bool()


def average_precision(labels):
    """Of a list by rank."""
    places = [place for place, label in enumerate(labels, start=1) if label]
    return sum(sum(labels[:place]) / place for place in places) / len(places)


def naive_lambda_rank(scores, labels, truncation=30):
    """One seed's loss, pair by pair."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i].item(), i))
    by_rank = [labels[item] for item in order]
    cost, slopes = scores.new_zeros(()), 0.0
    for i, p in enumerate(order):
        for j, n in enumerate(order):
            if labels[p] and not labels[n] and min(i, j) < truncation:
                swapped = list(by_rank)
                swapped[i], swapped[j] = swapped[j], swapped[i]
                weight = abs(average_precision(swapped) - average_precision(by_rank))
                gap = scores[p] - scores[n]
                cost = cost + weight * torch.nn.functional.softplus(-gap)
                slopes += 2 * weight * torch.sigmoid(-gap).item()
    return cost * (math.log2(1 + slopes) / slopes) if slopes else cost


def gradient(function, scores):
    scores = scores.clone().requires_grad_()
    value = function(scores)
    value.sum().backward()
    return value.detach(), scores.grad


@pytest.mark.parametrize("pairs_at_once", [1, 2_000_000])
@pytest.mark.parametrize("truncation", [1, 2, 30])
def test_lambda_rank_and_its_gradient_equal_a_loop_over_pairs(
    monkeypatch, truncation, pairs_at_once
):
    monkeypatch.setattr(loss, "TRUNCATION", truncation)
    monkeypatch.setattr(loss, "_MAX_PAIRS_AT_ONCE", pairs_at_once)

    def naive(scores):
        own = [(SEEDS == seed) & VALID for seed in range(3)]
        return torch.stack(
            [naive_lambda_rank(scores[mask], LABELS[mask].tolist(), truncation) for mask in own]
        )

    expected, expected_slope = gradient(naive, SCORES)
    found, slope = gradient(
        lambda scores: loss.lambda_rank(scores, LABELS & VALID, VALID, SEEDS, 3), SCORES
    )
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(slope, expected_slope)
    assert found[1] == 0
    assert found[0] > 0


def test_lambda_rank_of_a_batch_without_candidates_is_zero():
    nothing = torch.zeros(0)
    found = loss.lambda_rank(nothing, nothing.bool(), nothing.bool(), nothing.long(), 2)
    assert found.tolist() == [0, 0]


@pytest.fixture
def batch():
    return batches.read([Shop().group([0, 1, 2], 60.0)], ENCODINGS)


@pytest.fixture
def outputs(batch):
    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    items = ItemVectors(nodes_J=torch.arange(12), tower_JD=draw(12, 8), prior_J=draw(12))
    pairs_CH = draw(len(batch.candidate_items_C), 2)
    return Outputs(entity_BD=draw(3, 8), items=items, pairs_CH=pairs_CH, tower_weight=0.5)


AVAILABLE = torch.tensor([i not in (4, 9) for i in range(12)])


def test_the_softmax_is_the_mean_over_labels_on_sale_against_all_items_on_sale(batch, outputs):
    found = loss.full_softmax(outputs, batch, AVAILABLE)
    for seed in range(3):
        scores = outputs.all_logits()[seed]
        for place, item in enumerate(batch.candidate_items_C.tolist()):
            if batch.candidate_seeds_C[place] == seed:
                scores[item] = outputs.pairs_C[place]
        share = scores.masked_fill(~AVAILABLE, -math.inf).log_softmax(0)
        labels = batch.label_items_L[batch.label_seeds_L == seed]
        expected = -share[labels[AVAILABLE[labels]]].mean()
        torch.testing.assert_close(found[seed], expected)


def test_the_sampled_softmax_over_every_item_once_equals_the_full_one(batch, outputs):
    every = AVAILABLE.nonzero().squeeze(1)
    torch.testing.assert_close(
        loss.sampled_softmax(outputs, batch, AVAILABLE, every),
        loss.full_softmax(outputs, batch, AVAILABLE),
    )


def test_the_sampled_sum_over_items_is_right_on_average(batch, outputs):
    generator = torch.Generator().manual_seed(2)
    on_sale = AVAILABLE.nonzero().squeeze(1)
    drawn = [on_sale[torch.randint(len(on_sale), (4,), generator=generator)] for _ in range(2_000)]
    found = torch.stack([loss.sampled_softmax(outputs, batch, AVAILABLE, d) for d in drawn])
    assert found.std(0).max() > 0.01
    # exp(loss) is the estimated sum times a constant, so its mean has no bias.
    expected = loss.full_softmax(outputs, batch, AVAILABLE).exp()
    torch.testing.assert_close(found.exp().mean(0), expected, rtol=0.03, atol=0)


def test_an_item_that_is_not_on_sale_gets_no_gradient(batch, outputs):
    prior_J = torch.zeros(12, requires_grad=True)
    free = replace(outputs, items=replace(outputs.items, prior_J=prior_J))
    for negatives in (None, torch.tensor([0, 4, 5])):
        prior_J.grad = None
        loss.loss(free, batch, AVAILABLE, negatives).total.backward()
        assert prior_J.grad[~AVAILABLE].tolist() == [0, 0]
        assert prior_J.grad[AVAILABLE].abs().max() > 0


def test_a_batch_where_nobody_bought_counts_no_seed_and_has_a_gradient_of_zero(batch, outputs):
    pairs_CH = outputs.pairs_CH.requires_grad_()
    none = torch.zeros(0, dtype=torch.int64)
    unlabelled = replace(
        batch, label_seeds_L=none, label_items_L=none, is_label_C=torch.zeros_like(batch.is_label_C)
    )
    for negatives in (None, torch.tensor([0, 5])):
        pairs_CH.grad = None
        found = loss.loss(outputs, unlabelled, AVAILABLE, negatives)
        found.total.backward()
        assert found.num_seeds == 0
        assert found.total == 0
        assert pairs_CH.grad.abs().max() == 0


def test_negatives_that_were_kept_stand_for_those_left_out_on_average(batch, outputs):
    generator = torch.Generator().manual_seed(3)
    found = []
    for _ in range(2_000):
        thinned = thin(batch, 0.5, generator)
        keys = batch.candidate_seeds_C * 12 + batch.candidate_items_C
        kept = torch.isin(keys, thinned.candidate_seeds_C * 12 + thinned.candidate_items_C)
        assert kept[batch.is_label_C].all()
        left = replace(outputs, pairs_CH=outputs.pairs_CH[kept])
        found.append(loss.full_softmax(left, thinned, AVAILABLE))
    spread = torch.stack(found)
    assert spread.std(0).max() > 0.01
    expected = loss.full_softmax(outputs, batch, AVAILABLE).exp()
    torch.testing.assert_close(spread.exp().mean(0), expected, rtol=0.03, atol=0)


def test_the_sampled_softmax_leaves_out_what_thinning_did(batch, outputs):
    thinned = thin(batch, 0.5, torch.Generator().manual_seed(4))
    assert 0 < len(thinned.left_out_items_T) < len(batch.candidate_items_C)
    keys = batch.candidate_seeds_C * 12 + batch.candidate_items_C
    kept = torch.isin(keys, thinned.candidate_seeds_C * 12 + thinned.candidate_items_C)
    left = replace(outputs, pairs_CH=outputs.pairs_CH[kept])
    every = AVAILABLE.nonzero().squeeze(1)
    torch.testing.assert_close(
        loss.sampled_softmax(left, thinned, AVAILABLE, every),
        loss.full_softmax(left, thinned, AVAILABLE),
    )
