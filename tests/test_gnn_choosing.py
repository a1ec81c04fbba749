"""What validation decides of a trained network, asked of networks whose answers are set by hand."""

import pyarrow as pa
import pytest
import torch
from subgraph_factory import ENCODINGS, Shop

from recspark import settings
from recspark.gnn import batches, choosing
from recspark.gnn.cache import GroupStore
from recspark.gnn.encoders import Quantiles
from recspark.gnn.model import Network
from recspark.gnn.ranks import Ranks
from recspark.gnn.validation import Judge, Quality

ANCHOR, K = 60.0, 3
SHAPE = settings.Model(width=16, id_width=8)
# Three features, of which the last two are one group.
GROUPED = ENCODINGS.model_copy(
    update={"pair_groups": {"bought": ("times_bought",), "rest": ("days_since", "noise")}}
)
ALONE = Ranks(rank=0, world_size=1, device=torch.device("cpu"))


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
    whole = choosing.choose_tower_weight(network, judge)[0.0]
    assert float(network.tower_weight) == 0
    return choosing.choose_groups(network, judge, whole)


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
    found = quantiles.missing(quantiles(values), torch.tensor([False, True]))
    assert torch.equal(found, quantiles(blank))


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


class Preferring(torch.nn.Module):
    """Stands for a head or for trees: 10, so that candidates come first, plus or minus a column."""

    def __init__(self, column, sign):
        super().__init__()
        self.column, self.sign = column, sign

    def forward(self, values):
        return 10 + self.sign * values[:, self.column : self.column + 1].nan_to_num()


def network_preferring(sign):
    """Heads that rank by `times_bought` beside a graph that says 0; labels were never bought."""
    network = Network(GROUPED, SHAPE)
    for parameter in network.graph.tower.parameters():
        torch.nn.init.zeros_(parameter)
    network.pair_head.perceptrons = torch.nn.ModuleList([Preferring(0, sign)])
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


def test_all_shares_of_trees_in_one_pass_rank_as_each_of_them_alone(judge, monkeypatch):
    network = network_preferring(1.0)
    trees = Preferring(0, -1.0)
    monkeypatch.setattr(network.pair_head.trees, "unscaled", trees.forward)
    chosen = choosing.choose_trees(network, judge, scale=0.75)
    assert chosen.trees_share == 2.0  # only this turns the heads around
    assert float(network.pair_head.trees.scale) == 1.5
    by_weight = choosing.choose_tower_weight(network, judge)
    assert chosen.quality == by_weight[chosen.tower_weight]
    assert chosen.map_without_graph == by_weight[0.0].mean
    assert chosen.tower_weight == float(network.tower_weight)


def test_a_rank_without_groups_adds_nothing(judge):
    network = network_preferring(-1.0)
    nobody = Judge(groups=None, catalogue=judge.catalogue, ranks=ALONE, groups_per_batch=1, k=K)
    assert chosen_groups(network, nobody).map_with_all == 0
    batch = batches.read(judge.groups.groups([0]), GROUPED)
    assert batch.num_seeds == Shop().num_users
