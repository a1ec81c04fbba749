import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from subgraph_factory import ENCODINGS, Shop

from recspark.gnn import batches, candidate_loss, catalogue_loss, loss
from recspark.gnn.graph import GraphScores
from recspark.gnn.items import ItemVectors
from recspark.settings import CandidateLoss

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
    monkeypatch.setattr(candidate_loss, "TRUNCATION", truncation)
    monkeypatch.setattr(candidate_loss, "_MAX_PAIRS_AT_ONCE", pairs_at_once)

    def naive(scores):
        own = [(SEEDS == seed) & VALID for seed in range(3)]
        return torch.stack(
            [naive_lambda_rank(scores[mask], LABELS[mask].tolist(), truncation) for mask in own]
        )

    expected, expected_slope = gradient(naive, SCORES)
    found, slope = gradient(
        lambda scores: candidate_loss.lambda_rank(scores, LABELS & VALID, VALID, SEEDS, 3), SCORES
    )
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(slope, expected_slope)
    assert found[1] == 0
    assert found[0] > 0


def test_lambda_rank_of_a_batch_without_candidates_is_zero():
    nothing = torch.zeros(0)
    found = candidate_loss.lambda_rank(nothing, nothing.bool(), nothing.bool(), nothing.long(), 2)
    assert found.tolist() == [0, 0]


def test_the_softmax_over_candidates_is_the_mean_over_labels_against_those_on_sale():
    #          seed 0: labels 0.3 and 0.3 among 0.3, -1, 2, 0.3; seed 2: label -0.5 among 0, 1, -0.5
    first = math.log(2 * math.exp(0.3) + math.exp(-1) + math.exp(2)) - 0.3
    last = math.log(1 + math.exp(1) + math.exp(-0.5)) + 0.5
    found = candidate_loss.softmax(SCORES, LABELS & VALID, VALID, SEEDS, 3)
    torch.testing.assert_close(found, torch.tensor([first, 0.0, last]))
    nothing = torch.zeros(0)
    none = candidate_loss.softmax(nothing, nothing.bool(), nothing.bool(), nothing.long(), 2)
    assert none.tolist() == [0, 0]


@pytest.fixture
def batch():
    return batches.read([Shop().group([0, 1, 2], 60.0)], ENCODINGS)


@pytest.fixture
def scores():
    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    items = ItemVectors(nodes_J=torch.arange(12), tower_JD=draw(12, 8), prior_J=draw(12))
    return GraphScores(entity_BD=draw(3, 8), items=items)


@pytest.fixture
def pairs_CH(batch):
    shape = (len(batch.candidate_items_C), 2)
    return torch.randn(shape, generator=torch.Generator().manual_seed(2)).requires_grad_()


AVAILABLE = torch.tensor([i not in (4, 9) for i in range(12)])


def test_the_softmax_is_the_mean_over_labels_on_sale_against_all_items_on_sale(batch, scores):
    found = catalogue_loss.full_softmax(scores, batch, AVAILABLE)
    for seed in range(3):
        share = scores.all_logits()[seed].masked_fill(~AVAILABLE, -math.inf).log_softmax(0)
        labels = batch.label_items_L[batch.label_seeds_L == seed]
        expected = -share[labels[AVAILABLE[labels]]].mean()
        torch.testing.assert_close(found[seed], expected)


def test_the_sampled_softmax_over_every_item_once_equals_the_full_one(batch, scores):
    every = AVAILABLE.nonzero().squeeze(1)
    torch.testing.assert_close(
        catalogue_loss.sampled_softmax(scores, batch, AVAILABLE, every),
        catalogue_loss.full_softmax(scores, batch, AVAILABLE),
    )


def test_the_sampled_sum_over_items_is_right_on_average(batch, scores):
    generator = torch.Generator().manual_seed(2)
    on_sale = AVAILABLE.nonzero().squeeze(1)
    drawn = [on_sale[torch.randint(len(on_sale), (4,), generator=generator)] for _ in range(2_000)]
    found = torch.stack(
        [catalogue_loss.sampled_softmax(scores, batch, AVAILABLE, d) for d in drawn]
    )
    assert found.std(0).max() > 0.01
    # exp(loss) is the estimated sum times a constant, so its mean has no bias.
    expected = catalogue_loss.full_softmax(scores, batch, AVAILABLE).exp()
    torch.testing.assert_close(found.exp().mean(0), expected, rtol=0.03, atol=0)


@pytest.mark.parametrize("kind", get_args(CandidateLoss))
def test_heads_learn_the_mean_over_heads_of_each_seed_with_a_label_on_sale(batch, pairs_CH, kind):
    found = loss.of_heads(pairs_CH, batch, AVAILABLE, kind)
    assert found.num_seeds == len(set(batch.label_seeds_L[AVAILABLE[batch.label_items_L]].tolist()))
    alone = [loss.of_heads(pairs_CH[:, [h]], batch, AVAILABLE, kind).total for h in (0, 1)]
    torch.testing.assert_close(found.total, sum(alone) / 2)


@pytest.mark.parametrize("kind", get_args(CandidateLoss))
def test_heads_learn_from_candidates_and_the_graph_from_the_catalogue(
    batch, scores, pairs_CH, kind
):
    entity_BD = scores.entity_BD.requires_grad_()

    def slopes(asked, negatives):
        entity_BD.grad = pairs_CH.grad = None
        loss.of_graph(scores, asked, AVAILABLE, negatives).total.backward()
        loss.of_heads(pairs_CH, asked, AVAILABLE, kind).total.backward()
        return entity_BD.grad, pairs_CH.grad

    none = torch.zeros(0, dtype=torch.int64)
    without_labels = replace(batch, label_seeds_L=none, label_items_L=none)
    nobody = replace(batch, is_label_C=torch.zeros_like(batch.is_label_C))
    for negatives in (None, torch.tensor([0, 5, 7])):
        of_graph, of_heads = slopes(batch, negatives)
        assert of_graph.abs().max() > 0
        assert of_heads.abs().max() > 0
        assert not of_heads[~AVAILABLE[batch.candidate_items_C]].any()
        torch.testing.assert_close(slopes(nobody, negatives)[0], of_graph)
        torch.testing.assert_close(slopes(without_labels, negatives)[1], of_heads)
        assert not slopes(without_labels, negatives)[0].any()
        assert not slopes(nobody, negatives)[1].any()


def test_an_item_that_is_not_on_sale_gets_no_gradient(batch, scores):
    prior_J = torch.zeros(12, requires_grad=True)
    free = replace(scores, items=replace(scores.items, prior_J=prior_J))
    for negatives in (None, torch.tensor([0, 4, 5])):
        prior_J.grad = None
        loss.of_graph(free, batch, AVAILABLE, negatives).total.backward()
        assert prior_J.grad[~AVAILABLE].tolist() == [0, 0]
        assert prior_J.grad[AVAILABLE].abs().max() > 0


def test_a_batch_where_nobody_bought_counts_no_seed_and_has_a_gradient_of_zero(
    batch, scores, pairs_CH
):
    entity_BD = scores.entity_BD.requires_grad_()
    none = torch.zeros(0, dtype=torch.int64)
    unlabelled = replace(
        batch, label_seeds_L=none, label_items_L=none, is_label_C=torch.zeros_like(batch.is_label_C)
    )
    for found, values in (
        (loss.of_heads(pairs_CH, unlabelled, AVAILABLE, "lambda_rank"), pairs_CH),
        (loss.of_heads(pairs_CH, unlabelled, AVAILABLE, "softmax"), pairs_CH),
        (loss.of_graph(scores, unlabelled, AVAILABLE, None), entity_BD),
        (loss.of_graph(scores, unlabelled, AVAILABLE, torch.tensor([0, 5])), entity_BD),
    ):
        values.grad = None
        found.total.backward()
        assert (found.num_seeds, float(found.total)) == (0, 0)
        assert values.grad.abs().max() == 0
