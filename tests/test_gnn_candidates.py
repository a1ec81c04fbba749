import torch
from subgraph_factory import ENCODINGS, Shop

from recspark.gnn import batches, candidates
from recspark.gnn.negatives import thin

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


def test_every_other_seed_is_numbered_anew_and_both_halves_are_the_whole():
    whole = candidates.read(rows([0, 1, 2]), ENCODINGS)
    thinned = thin(whole, 0.5, torch.Generator().manual_seed(1))
    (even, is_even_C), (odd, is_odd_C) = (candidates.every_other(thinned, n) for n in (0, 1))
    assert (even.num_seeds, odd.num_seeds) == (2, 1)
    assert torch.equal(is_even_C, ~is_odd_C)
    places = {
        (2 * seed + first, item, label)
        for first, half in enumerate((even, odd))
        for seed, item, label in zip(
            half.candidate_seeds_C.tolist(), half.candidate_items_C.tolist(),
            half.is_label_C.tolist(), strict=True,
        )
    }  # fmt: skip
    expected = zip(
        thinned.candidate_seeds_C.tolist(), thinned.candidate_items_C.tolist(),
        thinned.is_label_C.tolist(), strict=True,
    )  # fmt: skip
    assert places == set(expected)
    of_odd = thinned.features_CF[thinned.candidate_seeds_C == 1]
    assert torch.equal(odd.features_CF.nan_to_num(-1.0), of_odd.nan_to_num(-1.0))
    left_out = thinned.left_out_items_T[thinned.left_out_seeds_T == 1]
    assert torch.equal(odd.left_out_items_T, left_out)
    assert set(odd.left_out_seeds_T.tolist()) <= {0}
    assert odd.negative_share == 0.5
