"""What validation decides of a trained network, asked of networks whose answers are set by hand."""

import pyarrow as pa
import pytest
import torch
from subgraph_factory import ALONE, ENCODINGS, Shop

from recspark import settings
from recspark.gnn import batches, choosing
from recspark.gnn.cache import GroupStore
from recspark.gnn.encoders import Quantiles
from recspark.gnn.model import Network
from recspark.gnn.validation import Judge, Quality

ANCHOR, K = 60.0, 3
SHAPE = settings.Model(width=16, id_width=8)
# Three features, of which the last two are one group.
GROUPED = ENCODINGS.model_copy(
    update={"pair_groups": {"bought": ("times_bought",), "rest": ("days_since", "noise")}}
)


class Told:
    """A judge that says, by what a network ignores, how good each variant is."""

    def __init__(self, by_ignored):
        self.by_ignored = by_ignored  # ignored features -> key -> MAP

    def qualities(self, network, keys, variants):
        ignored = tuple(network.pair_head.ignored_F.tolist())
        told = self.by_ignored[ignored]
        assert set(told) == set(keys)
        return {key: quality(told[key]) for key in keys}


def quality(mean):
    """Of a model on which chance has no say."""
    return Quality(mean=mean, replicates=(mean,) * 4)


def chosen_groups(network, judge):
    """What is chosen of a network whose graph says nothing."""
    return choosing.choose_groups(network, judge, choosing.choose_weights(network, judge).quality)


def test_groups_that_harm_are_left_out_one_by_one_the_worst_first():
    network = Network(GROUPED, SHAPE)
    judge = Told(
        {
            (False, False, False): {"bought": 0.31, "rest": 0.35},
            (False, True, True): {"bought": 0.34},
        }
    )
    found = choosing.choose_groups(network, judge, quality(0.3))
    assert found.left_out == {"rest": 0.35}
    assert found.map_with_all == 0.3
    assert found.map_without == {"bought": 0.31, "rest": 0.35}
    assert network.pair_head.ignored_F.tolist() == [False, True, True]


def test_a_group_that_the_settings_leave_out_is_not_asked_about():
    shape = SHAPE.model_copy(update={"ignored_features": ("times_bought",)})
    network = Network(GROUPED, shape)
    judge = Told({(True, False, False): {"rest": 0.2}})
    found = choosing.choose_groups(network, judge, quality(0.3))
    assert found.left_out == {}
    assert found.map_without == {"rest": 0.2}


def test_without_a_column_is_as_if_it_were_missing():
    quantiles = Quantiles([(0.0, 1.0, 2.0), (5.0, 6.0, 9.0)])
    values = torch.tensor([[0.5, 7.0], [float("nan"), 5.5]])
    blank = values.clone()
    blank[:, 1] = float("nan")
    encoded = quantiles(values)
    change, places = quantiles.change_where_missing(encoded, torch.tensor([False, True]))
    assert places.tolist() == [1, 3, 5]
    encoded[:, places] += change
    assert torch.equal(encoded, quantiles(blank))


def test_heads_without_each_part_score_as_if_its_features_were_missing():
    head = Network(GROUPED, SHAPE).pair_head.eval()
    for layers in head.perceptrons:
        torch.nn.init.normal_(layers[-1].weight, generator=torch.Generator().manual_seed(3))
    features = torch.tensor([[1.0, 10.0, 0.3], [float("nan"), 50.0, 0.9], [4.0, 2.0, 0.1]])
    parts = [torch.tensor([True, False, False]), torch.tensor([False, True, True])]
    for found, part in zip(head.without_each(features, parts), parts, strict=True):
        torch.testing.assert_close(found, head.of_heads(features.masked_fill(part, float("nan"))))


@pytest.fixture
def judge(tmp_path):
    shop = Shop()
    group = shop.group(list(range(shop.num_users)), ANCHOR)
    path = tmp_path / "validation.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, group.schema) as to:
        to.write_batch(group)
    return Judge(
        groups=GroupStore([path]), catalogue=shop.catalogue([ANCHOR]), ranks=ALONE,
        groups_per_batch=1, k=K,
    )  # fmt: skip


def network_preferring(sign):
    """Heads that rank by `times_bought` beside a graph that says 0; labels were never bought."""
    network = Network(GROUPED, SHAPE)
    for parameter in network.graph.tower.parameters():
        torch.nn.init.zeros_(parameter)
    head = torch.nn.Linear(network.pair_head.quantiles.width, 1)
    with torch.no_grad():
        head.weight.zero_()[0, 0] = sign
        head.bias.fill_(10.0)  # so that candidates come first
    network.pair_head.perceptrons = torch.nn.ModuleList([torch.nn.Sequential(head)])
    return network


def test_a_group_that_ranks_upside_down_is_left_out_and_one_that_ranks_well_stays(judge):
    upside_down = network_preferring(1.0)
    found = chosen_groups(upside_down, judge)
    assert list(found.left_out) == ["bought"]
    assert found.left_out["bought"] > found.map_with_all + 0.05
    well = network_preferring(-1.0)
    found = chosen_groups(well, judge)
    assert found.left_out == {}
    assert found.map_without["bought"] < found.map_with_all
    assert found.map_without["rest"] == found.map_with_all


def test_trees_that_turn_the_ranking_around_get_the_weight_that_does(judge, monkeypatch):
    network = network_preferring(1.0)
    monkeypatch.setattr(
        network.pair_head.trees, "unscaled", lambda features: -features[:, :1].nan_to_num()
    )
    alone = choosing.choose_weights(network, judge)
    chosen = choosing.choose_weights(network, judge, scale=0.75)
    assert chosen.trees_share == 2.0  # only this makes 1.5 of them and 1 of the heads
    assert float(chosen.state["pair_head.trees.scale"]) == 1.5
    assert chosen.map_with_trees == chosen.quality.mean
    network_preferring_less = choosing.choose_weights(network_preferring(-1.0), judge)
    assert alone.quality.mean < chosen.quality.mean == network_preferring_less.quality.mean


USUAL = (1.0, choosing.USUAL_TOWER_WEIGHT)


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ((0.04, 0.0, 0.04, 0.0), USUAL),  # 0.02, of which the standard error is 0.02
        ((0.03, 0.02, 0.03, 0.02), (2.0, 0.5)),  # 0.025, and 0.005
        ((0.01, 0.0, 0.01, 0.0), USUAL),  # 0.005, and 0.005
        ((-0.01, -0.01, -0.01, -0.01), USUAL),
    ],
)
def test_usual_weights_stay_unless_others_are_clearly_better(monkeypatch, gains, expected):
    """`gains` are those of trees at 2 with the graph at 0.5, by replicate; all others are alike."""

    def qualities(judge, network, keys, variants):
        assert len(keys) == len(choosing.TREE_SHARES) * len(choosing.TOWER_WEIGHTS)
        others = Quality(mean=0.3, replicates=(0.3,) * 4)
        replicates = tuple(0.3 + gain for gain in gains)
        gained = Quality(mean=sum(replicates) / 4, replicates=replicates)
        return dict.fromkeys(keys, others) | {(2.0, 0.5): gained}

    monkeypatch.setattr(Judge, "qualities", qualities)
    network = Network(GROUPED, SHAPE)
    judge = Judge(groups=None, catalogue=None, ranks=ALONE, groups_per_batch=1, k=K)
    chosen = choosing.choose_weights(network, judge, scale=3.0)
    assert (chosen.trees_share, chosen.tower_weight) == expected
    assert float(network.tower_weight) == expected[1]
    assert float(network.pair_head.trees.scale) == 3.0 * expected[0]
    assert chosen.map_without_graph == 0.3


def test_a_network_without_trees_keeps_the_usual_weight_where_nobody_bought():
    nobody = Judge(groups=None, catalogue=None, ranks=ALONE, groups_per_batch=1, k=K)
    chosen = choosing.choose_weights(Network(GROUPED, SHAPE), nobody)
    assert (chosen.tower_weight, chosen.trees_share) == (choosing.USUAL_TOWER_WEIGHT, 0.0)
    assert chosen.map_with_trees is None
    assert chosen.quality.mean == 0


def test_a_rank_without_groups_adds_nothing(judge):
    network = network_preferring(-1.0)
    nobody = Judge(groups=None, catalogue=judge.catalogue, ranks=ALONE, groups_per_batch=1, k=K)
    assert chosen_groups(network, nobody).map_with_all == 0
    batch = batches.read(judge.groups.groups([0]), GROUPED)
    assert batch.num_seeds == Shop().num_users
