import math

import numpy as np
import pyarrow as pa
import pytest
import torch
from subgraph_factory import ENCODINGS, Shop

from recspark import settings
from recspark.gnn import batches, ranking
from recspark.gnn.encoders import Quantiles, encode_ages
from recspark.gnn.model import Network
from recspark.gnn.ranking import top_k
from recspark.gnn.vectors import NodeVectors

ANCHOR = 60.0
SHAPE = settings.Model(width=16, id_width=8, dropout=0.0)


@pytest.fixture
def network():
    generator = torch.Generator().manual_seed(3)
    network = Network(ENCODINGS, SHAPE).eval()
    with torch.no_grad():  # also what starts at zero, or a wrong pair head could not be seen
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
        network.graph.tower.ids.weight[0] = 0
        network.tower_weight.fill_(0.5)
    return network


def batch_of(shop, *groups, **options):
    rows = [shop.group(users, ANCHOR, **options) for users in groups]
    return batches.read(rows, ENCODINGS)


def totals(network, shop, batch, nodes=None):
    """Scores (B, I), of other items by the graph, or of the candidates alone when nodes are given."""
    outputs = network(batch, shop.catalogue([ANCHOR]), nodes)
    if nodes is not None:
        rows_C = outputs.items.positions(batch.candidate_items_C)
        graph_C = outputs.logits(batch.candidate_seeds_C, rows_C)
        return outputs.pairs_C + outputs.tower_weight * graph_C
    places = (batch.candidate_seeds_C, batch.candidate_items_C)
    graph = outputs.all_logits()
    return graph.index_put(places, outputs.pairs_C) + outputs.tower_weight * graph


def test_trends_of_all_items_are_encoded_once_and_are_those_of_some(network):
    catalogue = Shop().catalogue([ANCHOR])
    network.train()  # dropout is 0; only steps ask again and again
    some = torch.tensor([1, 3])
    alone = network.graph.items(catalogue, ANCHOR, some)
    assert not catalogue.encoded_trends
    for _ in range(2):
        whole = network.graph.items(catalogue, ANCHOR)
        torch.testing.assert_close(whole.tower_JD[some], alone.tower_JD)
        torch.testing.assert_close(whole.prior_J[some], alone.prior_J)
        assert list(catalogue.encoded_trends) == [ANCHOR]


def test_no_rounding_lifts_another_item_above_the_last_candidate():
    draws = torch.Generator().manual_seed(3)
    last_b1, above_b1 = torch.randn(1000, 1, generator=draws), torch.rand(1000, 1, generator=draws)
    best_b1 = last_b1 + above_b1
    assert (best_b1 - (best_b1 - last_b1) > last_b1).any()
    _, scores_bK = ranking._behind(
        nodes_bK=torch.zeros(1000, 2, dtype=torch.int64),
        scores_bK=torch.cat([last_b1, last_b1], dim=1),
        found_bK=torch.tensor([[True, False]]).expand(1000, 2),
        others_bK=torch.ones(1000, 2, dtype=torch.int64),
        graph_bK=torch.cat([best_b1, best_b1 - 1], dim=1),
    )
    assert (scores_bK[:, 1] <= scores_bK[:, 0]).all()
    torch.testing.assert_close(scores_bK[:, 1], scores_bK[:, 0])


def test_groups_of_one_anchor_merge_to_seeds_in_order_with_each_reached_node_once():
    shop = Shop()
    batch = batch_of(shop, [0, 1], [2, 3, 4])
    alone = [batch_of(shop, users) for users in ([0, 1], [2, 3, 4])]
    assert batch.num_seeds == 5
    assert batch.nodes[0, "users"].nodes_N.tolist() == [0, 1, 2, 3, 4]
    reached = torch.cat([one.nodes[1, "items"].nodes_N for one in alone]).unique()
    assert batch.nodes[1, "items"].nodes_N.tolist() == reached.tolist()
    assert batch.anchor_days == ANCHOR
    assert batch.features_CF.shape == (5 * 6, 3)
    assert batch.candidate_seeds_C.tolist() == np.repeat(range(5), 6).tolist()
    wanted = [item for user in range(5) for item in shop.labels(user, ANCHOR)]
    assert batch.label_items_L.tolist() == wanted


def test_an_event_reached_by_two_groups_is_an_edge_once():
    shop = Shop()
    batch = batch_of(shop, [0], [2])
    edges, items = batch.edges[2, "transactions.item_id"], batch.nodes[1, "items"].nodes_N
    found = sorted(zip(items[edges.destinations_E].tolist(), edges.ages_E.tolist(), strict=True))
    expected = sorted(
        (item, float(np.float32(ANCHOR - event[0])))
        for item in items.tolist()
        for event in [e for e in shop.events if e[2] == item and e[0] <= ANCHOR][: shop.fanout]
    )
    assert found == expected
    users = batch.nodes[2, "users"].nodes_N[edges.sources_EK[:, 0]]
    assert (users % 2 == items[edges.destinations_E] % 2).all()
    assert (edges.sources_EK[:, 1] == -1).all()


def test_packed_features_follow_their_user():
    shop = Shop()
    listed = batch_of(shop, [3, 5], [4, 7]).nodes[2, "users"]
    expected = shop.user_features(listed.nodes_N.tolist())
    assert listed.features.codes_NC.flatten().tolist() == expected["codes"]
    assert listed.features.buckets.tolist() == expected["buckets"]
    assert listed.features.bucket_offsets.tolist() == expected["bucket_offsets"]
    assert np.array_equal(listed.features.times_NT.flatten(), expected["times"], equal_nan=True)


def test_the_order_of_edges_does_not_change_a_score(network):
    shop = Shop()
    shuffled = batch_of(shop, [0, 1, 2], shuffle_edges=np.random.default_rng(1))
    torch.testing.assert_close(
        totals(network, shop, shuffled), totals(network, shop, batch_of(shop, [0, 1, 2])),
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip


def test_a_batch_scored_whole_equals_its_seeds_scored_singly(network):
    shop = Shop()
    whole = totals(network, shop, batch_of(shop, [0, 1], [2, 3]))
    singly = torch.cat([totals(network, shop, batch_of(shop, [user])) for user in range(4)])
    torch.testing.assert_close(whole, singly, rtol=1e-4, atol=1e-5)


def test_scores_with_only_the_needed_items_encoded_equal_those_with_all(network):
    shop = Shop()
    batch = batch_of(shop, [0, 5])
    everything = totals(network, shop, batch)
    needed = totals(network, shop, batch, nodes=torch.tensor([3]))
    expected = everything[batch.candidate_seeds_C, batch.candidate_items_C]
    torch.testing.assert_close(needed, expected, rtol=1e-4, atol=1e-5)


def test_entities_from_contexts_computed_ahead_equal_those_of_the_batch(network):
    shop = Shop()
    catalogue, batch = shop.catalogue([ANCHOR]), batch_of(shop, [0, 1], [2, 3])
    items = network.graph.items(catalogue, ANCHOR)
    every = batch_of(shop, range(shop.num_users))
    contexts = network.graph.contexts(every, catalogue, items)["items"].detach()
    nodes = every.nodes[1, "items"].nodes_N
    assert len(nodes) == shop.num_items
    rows = pa.table(
        {
            "table": ["items"] * len(nodes),
            "node": nodes.numpy(),
            "context": contexts.tolist(),
            "tower": items.tower_JD.tolist(),
            "prior": items.prior_J.tolist(),
        }
    ).take(np.random.default_rng(0).permutation(len(nodes)))
    ahead = NodeVectors.from_arrow(rows, "items")
    by_table = network.graph.entities(batch, ahead.contexts_of(batch))
    by_batch = network.graph.entities(batch, network.graph.contexts(batch, catalogue, items))
    torch.testing.assert_close(by_table, by_batch, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ahead.items.tower_JD, items.tower_JD)


def test_the_pair_head_says_nothing_before_training():
    shop = Shop()
    outputs = Network(ENCODINGS, SHAPE)(batch_of(shop, [0, 1]), shop.catalogue([ANCHOR]), None)
    assert outputs.pairs_C.abs().max() == 0
    assert outputs.all_logits().std() > 0


def test_an_item_without_an_id_and_an_entity_without_events_score_finite(network):
    shop = Shop(purchases_per_user=0)
    batch = batch_of(shop, [0, 1])
    assert len(batch.nodes[1, "items"].nodes_N) == 0
    catalogue = shop.catalogue([ANCHOR])
    assert (catalogue.tables["items"].id_codes_N[10:] == 0).all()
    assert totals(network, shop, batch).isfinite().all()


def test_a_time_after_the_anchor_counts_as_missing(network):
    shop = Shop()
    batch = batch_of(shop, [62])
    before = network.graph.entities(batch, network.graph.contexts(batch, *inputs(network, shop)))
    batch.nodes[0, "users"].features.times_NT.fill_(float("nan"))
    after = network.graph.entities(batch, network.graph.contexts(batch, *inputs(network, shop)))
    torch.testing.assert_close(before, after)
    batch.nodes[0, "users"].features.times_NT.fill_(ANCHOR)
    visible = network.graph.entities(batch, network.graph.contexts(batch, *inputs(network, shop)))
    assert (visible - after).abs().max() > 1e-3


def inputs(network, shop):
    catalogue = shop.catalogue([ANCHOR])
    return catalogue, network.graph.items(catalogue, ANCHOR)


def test_candidates_on_sale_come_first_then_others_by_the_graph_and_ties_by_lower_node(network):
    shop = Shop(ended_items=(2, 7))
    catalogue, batch = shop.catalogue([ANCHOR]), batch_of(shop, [0, 1, 2])
    outputs = network(batch, catalogue, None)
    outputs.pairs_CH.detach().sub_(1.0)  # so that the graph says more of most other items
    items, scores = top_k(outputs, batch, catalogue.available(ANCHOR), k=20)
    assert items.shape == (3, 10)
    graph = outputs.all_logits()
    pairs = graph.new_zeros(graph.shape)
    pairs[batch.candidate_seeds_C, batch.candidate_items_C] = outputs.pairs_C
    scored = pairs + outputs.tower_weight * graph
    for seed in range(3):
        own = set(batch.candidate_items_C[batch.candidate_seeds_C == seed].tolist()) - {2, 7}
        first = sorted(own, key=lambda i: (-scored[seed, i].item(), i))
        behind = sorted({*range(12)} - {2, 7} - own, key=lambda i: (-graph[seed, i].item(), i))
        assert items[seed].tolist() == first + behind
        torch.testing.assert_close(scores[seed, : len(first)], scored[seed, first])
        moved = graph[seed, behind] - scores[seed, len(first) :]
        torch.testing.assert_close(moved, moved[:1].expand_as(moved))
        assert scores[seed].tolist() == sorted(scores[seed].tolist(), reverse=True)
    few, _ = top_k(outputs, batch, catalogue.available(ANCHOR), k=2)
    assert torch.equal(few, items[:, :2])
    for tensor in (outputs.entity_BD, outputs.pairs_CH, outputs.items.prior_J):
        tensor.detach().zero_()
    tied, zeros = top_k(outputs, batch, catalogue.available(ANCHOR), k=10)
    own = batch.candidate_items_C[batch.candidate_seeds_C == 0].tolist()
    assert tied[0].tolist() == sorted({*range(12)} - {2, 7}, key=lambda i: (i not in own, i))
    assert zeros.abs().max() == 0


def test_a_seed_without_candidates_gets_what_the_graph_likes_best(network):
    shop = Shop(share_of_candidates=0)
    catalogue, batch = shop.catalogue([ANCHOR]), batch_of(shop, [0, 1])
    outputs = network(batch, catalogue, None)
    items, scores = top_k(outputs, batch, catalogue.available(ANCHOR), k=3)
    best, expected = outputs.all_logits().topk(3, dim=1)
    assert torch.equal(items, expected)
    torch.testing.assert_close(scores, best)


def test_blocks_of_items_and_seeds_do_not_change_the_ranking(network, monkeypatch):
    shop = Shop()
    catalogue, batch = shop.catalogue([ANCHOR]), batch_of(shop, [0, 1, 2], [3, 4])
    outputs = network(batch, catalogue, None)
    whole = top_k(outputs, batch, catalogue.available(ANCHOR), k=7)
    monkeypatch.setattr("recspark.gnn.ranking._ITEMS_AT_ONCE", 5)
    monkeypatch.setattr("recspark.gnn.ranking._SCORES_AT_ONCE", 10)
    blocked = top_k(outputs, batch, catalogue.available(ANCHOR), k=7)
    assert torch.equal(whole[0], blocked[0])
    torch.testing.assert_close(whole[1], blocked[1])


def test_quantiles_interpolate_take_the_middle_of_ties_and_flag_missing_values():
    knots = ((0.0, 0.0, 0.0, 10.0, 20.0), (5.0, 5.0, 5.0, 5.0, 5.0), (1.0, 3.0))
    values = torch.tensor([[0, 5, 2], [5, 9, 0], [99, 5, 3], [-1, math.nan, math.nan]])
    expected = [
        [-0.5, 0, 0],
        [0.25, 0, -1],
        [1, 0, 1],
        [-0.5, 0, 0],
    ]
    missing = [[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1, 1]]
    found = Quantiles(knots)(values.float())
    assert found.shape == (4, 9)
    torch.testing.assert_close(found[:, :3], torch.tensor(expected).float())
    torch.testing.assert_close(found[:, 6:], torch.tensor(missing).float())


def test_logarithms_are_centred_over_the_knots_and_tell_the_tail_apart():
    found = Quantiles(((0.0, math.e - 1),))(torch.tensor([[0.0], [math.e - 1], [1e6], [math.nan]]))
    # log(1 + x) is 0 and 1 at the knots: mean 1/2, deviation 1/2.
    assert found[:, 1].tolist() == pytest.approx([-1, 1, 5, 0])
    assert found[2, 0] == found[1, 0] == 1


def test_ages_from_now_to_thirty_years_are_encoded_in_small_numbers():
    encoded = encode_ages(torch.tensor([0.0, 0.01, 10_000.0]))
    assert encoded.abs().max() < 1.2
    assert (encoded[0] - encoded[1]).abs().max() > 1e-3
