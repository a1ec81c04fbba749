"""Boosted trees beside the pair heads: what they learn, how they travel, when they count."""

from dataclasses import replace

import pyarrow as pa
import pytest
import torch
from subgraph_factory import ALONE, ENCODINGS, Shop

from recspark import settings
from recspark.gnn import batches, boosting, trees
from recspark.gnn.cache import GroupStore
from recspark.gnn.model import Network
from recspark.gnn.ranks import Ranks
from recspark.gnn.trees import KINDS, Pairs, PairTrees

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


def one_booster(pairs, *, seed, kind=KINDS[0]):
    return trees.boost(pairs, kind, seed)


@pytest.fixture(scope="module")
def boosted():
    return [one_booster(alternating(), seed=7)]


@pytest.mark.parametrize("kind", KINDS, ids=["in pairs", "each by itself"])
def test_trees_learn_what_no_single_feature_says(kind):
    module = PairTrees()
    module.load([one_booster(alternating(), seed=7, kind=kind)])
    signs = torch.tensor([[1.0, 1.0, 0.0], [-1.0, -1.0, 0.0], [1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]])
    scores = module(signs).squeeze(1)
    assert min(scores[:2]) > max(scores[2:]) + 1


def test_the_same_rows_and_seed_give_the_same_trees_and_another_seed_others(boosted):
    assert [one_booster(alternating(), seed=7)] == boosted
    assert [one_booster(alternating(), seed=8)] != boosted


def test_trees_that_tell_log_odds_tell_how_often_such_candidates_are_bought():
    generator = torch.Generator().manual_seed(5)
    often = torch.rand(4_000, generator=generator) < 0.5
    chance = torch.where(often, 0.8, 0.1)
    pairs = Pairs(
        features_CF=often.float().unsqueeze(1),
        is_label_C=torch.rand(4_000, generator=generator) < chance,
        seeds_C=torch.arange(200).repeat_interleave(20),
    )
    module = PairTrees()
    module.load([one_booster(pairs, seed=7, kind=KINDS[1])])
    told = module(torch.tensor([[1.0], [0.0]])).squeeze(1)
    found = torch.stack(
        [pairs.is_label_C[often].float().mean(), pairs.is_label_C[~often].float().mean()]
    )
    torch.testing.assert_close(told.sigmoid(), found, rtol=0, atol=0.02)


@pytest.mark.parametrize("kind", KINDS, ids=["in pairs", "each by itself"])
@pytest.mark.parametrize("bought", [False, True], ids=["nothing", "everything"])
def test_where_nothing_or_everything_was_bought_there_is_nothing_to_learn(bought, kind):
    alike = replace(alternating(), is_label_C=torch.full((1200,), bought))
    assert one_booster(alike, seed=7, kind=kind) == b""


@pytest.mark.parametrize("world_size", [1, 2, 3, 8, 16])
def test_of_all_ranks_boosters_half_learn_in_pairs_and_half_each_by_itself(monkeypatch, world_size):
    learnt = []
    monkeypatch.setattr(boosting.trees, "gather", lambda *_, **drawn: drawn["negative_share"])
    monkeypatch.setattr(boosting, "_known", lambda network, drawn: drawn)

    def boost(share, kind, seed):
        assert share == kind.negative_share
        learnt.append(KINDS.index(kind))
        return b"told"

    monkeypatch.setattr(boosting.trees, "boost", boost)
    monkeypatch.setattr(boosting.trees, "of_all_ranks", lambda own, ranks: own)
    monkeypatch.setattr(PairTrees, "load", lambda self, raw: None)
    network = Network(ENCODINGS, settings.Model(width=16, id_width=8))
    for rank in range(world_size):
        ranks = Ranks(rank=rank, world_size=world_size, device=torch.device("cpu"))
        boosting.add(network, None, None, ranks, num_boosters=trees.NUM_BOOSTERS, seed=7)
    assert len(learnt) >= trees.NUM_BOOSTERS
    assert abs(2 * sum(learnt) - len(learnt)) <= 1


def test_boosters_of_all_ranks_are_averaged_and_one_without_labels_has_no_say(boosted):
    nobody = Pairs(
        features_CF=torch.zeros(0, 3), is_label_C=torch.zeros(0, dtype=torch.bool),
        seeds_C=torch.zeros(0, dtype=torch.int64),
    )  # fmt: skip
    other = one_booster(alternating(), seed=8)
    together = trees.of_all_ranks([*boosted, one_booster(nobody, seed=7)], Together([other]))
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


def test_trees_of_more_boosters_count_as_much_as_those_that_were_chosen(boosted, monkeypatch):
    monkeypatch.setattr(boosting, "_known", lambda network, drawn: drawn)
    monkeypatch.setattr(boosting.trees, "gather", lambda *_, **__: alternating())
    chosen, network = (Network(ENCODINGS, settings.Model(width=16, id_width=8)) for _ in range(2))
    chosen.pair_head.trees.load(boosted)
    chosen.pair_head.trees.scale.fill_(0.5)
    network.pair_head.trees.load([*boosted, one_booster(alternating(), seed=8, kind=KINDS[1])])
    scale = boosting.scale_like(chosen, network, None, None, ALONE, seed=7)
    assert scale != 0.5
    network.pair_head.trees.scale.fill_(scale)
    pairs = alternating()
    told = [one.pair_head.trees(pairs.features_CF).squeeze(1) for one in (chosen, network)]
    assert trees.scale(*told, pairs.seeds_C, ALONE) == pytest.approx(1.0)
