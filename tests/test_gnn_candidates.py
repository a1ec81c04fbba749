import torch
from subgraph_factory import ENCODINGS, Shop

from recspark.gnn import batches, candidates

ANCHOR = 60.0


def rows(*groups):
    shop = Shop()
    return [shop.group(users, ANCHOR) for users in groups]


def test_candidates_alone_are_those_of_the_whole_batch():
    groups = rows([0, 1], [2])
    alone, whole = candidates.read(groups, ENCODINGS), batches.read(groups, ENCODINGS)
    for name, value in vars(alone).items():
        expected = getattr(whole, name)
        if isinstance(value, torch.Tensor):
            assert torch.equal(value.nan_to_num(-1.0), expected.nan_to_num(-1.0)), name
        else:
            assert value == expected, name
