"""Boosted trees beside the pair heads: what they learn, how they travel, when they count."""

import pyarrow as pa
import pytest
import torch
from subgraph_factory import ALONE, ENCODINGS, Shop

from recspark import settings
from recspark.gnn import batches, boosting, trees
from recspark.gnn.cache import GroupStore
from recspark.gnn.model import Network
from recspark.gnn.trees import Pairs, PairTrees

ANCHOR = 60.0


class Together:
    """Two ranks, of which the other hands in what is given."""

    rank, world_size, device = 0, 2, torch.device("cpu")

    def __init__(self, other):
        self.other = other

    def gather(self, value):
        return [value, trees._joined(self.other)]


def alternating(num_seeds=60, width=20):
    """Of every seed's candidates those are bought whose two features have the same sign."""
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(num_seeds * width, 3, generator=generator)
    return Pairs(
        features_CF=features,
        is_label_C=features[:, 0] * features[:, 1] > 0,
        seeds_C=torch.arange(num_seeds).repeat_interleave(width),
    )


@pytest.fixture(scope="module")
def boosted():
    return [trees.boost(alternating(), seed=7)]


def test_trees_learn_what_no_single_feature_says(boosted):
    module = PairTrees()
    module.load(boosted)
    signs = torch.tensor([[1.0, 1.0, 0.0], [-1.0, -1.0, 0.0], [1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]])
    scores = module(signs).squeeze(1)
    assert min(scores[:2]) > max(scores[2:]) + 1


def test_the_same_rows_and_seed_give_the_same_trees_and_another_seed_others(boosted):
    assert [trees.boost(alternating(), seed=7)] == boosted
    assert [trees.boost(alternating(), seed=8)] != boosted


def test_boosters_of_all_ranks_are_averaged_and_one_without_labels_has_no_say(boosted):
    nobody = Pairs(
        features_CF=torch.zeros(0, 3), is_label_C=torch.zeros(0, dtype=torch.bool),
        seeds_C=torch.zeros(0, dtype=torch.int64),
    )  # fmt: skip
    other = trees.boost(alternating(), seed=8)
    together = trees.of_all_ranks([*boosted, trees.boost(nobody, seed=7)], Together([other]))
    assert together == [*boosted, other]
    all_of_them, one = PairTrees(), PairTrees()
    all_of_them.load(together)
    features = alternating().features_CF[:5]
    parts = []
    for raw in together:
        one.load([raw])
        parts.append(one(features))
    torch.testing.assert_close(all_of_them(features), (parts[0] + parts[1]) / 2)
    assert trees.of_all_ranks([], Together([])) == []


def test_trees_travel_in_the_state_and_are_silent_while_heads_learn(boosted):
    network = Network(ENCODINGS, settings.Model(width=16, id_width=8)).eval()
    features = alternating().features_CF[:5]
    silent = network.pair_head(features)
    network.pair_head.trees.load(boosted)
    network.pair_head.trees.scale.fill_(0.5)
    told = network.pair_head(features)
    torch.testing.assert_close(told - silent, network.pair_head.trees(features).expand_as(told))
    again = Network(ENCODINGS, settings.Model(width=16, id_width=8)).eval()
    again.load_state_dict(network.state_dict())
    assert torch.equal(again.pair_head(features), told)
    again.load_state_dict(Network(ENCODINGS, settings.Model(width=16, id_width=8)).state_dict())
    assert again.pair_head.trees(features).abs().max() == 0
    network.train()
    network.pair_head.perceptrons.eval()
    assert torch.equal(network.pair_head(features), silent)


def test_heads_and_trees_come_to_deviate_alike_within_a_seed():
    seeds = torch.tensor([0, 0, 1, 1])
    head, deep = torch.tensor([5.0, 7.0, -1.0, 1.0]), torch.tensor([0.0, 0.5, 9.0, 9.5])
    assert trees.scale(head, deep, seeds, ALONE) == pytest.approx(4.0)
    assert trees.scale(head, torch.ones(4), seeds, ALONE) == 0


def stored(folder, *groups):
    with (
        pa.OSFile(f"{folder}/own.arrow", "wb") as sink,
        pa.ipc.new_file(sink, groups[0].schema) as to,
    ):
        for group in groups:
            to.write_batch(group)
    return GroupStore([folder / "own.arrow"])


def test_candidates_off_sale_and_ignored_features_teach_nothing(tmp_path):
    shop = Shop()
    group = shop.group([0, 1, 2], ANCHOR)
    store, catalogue = stored(tmp_path, group), shop.catalogue([ANCHOR])
    shape = settings.Model(width=16, id_width=8, ignored_features=(ENCODINGS.pair_names[1],))
    network = Network(ENCODINGS, shape)
    found = boosting._known(network, trees.gather(store, catalogue, ENCODINGS, seed=1))
    batch = batches.read([group], ENCODINGS)
    on_sale = catalogue.available(ANCHOR)[batch.candidate_items_C]
    assert torch.equal(found.features_CF[:, 0], batch.features_CF[on_sale, 0])
    assert torch.equal(found.is_label_C, batch.is_label_C[on_sale])
    assert torch.equal(found.seeds_C, batch.candidate_seeds_C[on_sale])
    assert found.features_CF[:, 1].isnan().all()


def test_boosters_see_parts_of_the_seeds_and_draws_of_their_own(tmp_path):
    shop = Shop()
    groups = [shop.group([seed], ANCHOR) for seed in range(4)]
    store, catalogue = stored(tmp_path, *groups), shop.catalogue([ANCHOR])

    def drawn(**how):
        return trees.gather(store, catalogue, ENCODINGS, **how)

    whole, half = drawn(seed=1), drawn(part=0.5, seed=1)
    assert (int(whole.seeds_C.max()), int(half.seeds_C.max())) == (3, 1)
    size = len(half.seeds_C)
    assert torch.equal(half.features_CF.nan_to_num(), whole.features_CF[:size].nan_to_num())
    others = [drawn(part=0.5, seed=seed).features_CF.nan_to_num() for seed in range(2, 12)]
    assert any(not torch.equal(half.features_CF.nan_to_num(), other) for other in others)
    thin = drawn(negative_share=0.01, seed=1)
    assert int(thin.is_label_C.sum()) == int(whole.is_label_C.sum())
    assert len(thin.is_label_C) < len(whole.is_label_C)
