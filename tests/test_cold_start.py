"""Who and what training never saw is ranked by its features.

Users and items are even or odd, a category column says which, and users buy items of their own
kind. Nothing else tells them apart: no other column has a value.
"""

from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from subgraph_factory import ENCODINGS, Shop

from recspark import settings
from recspark.gnn import batches, loop
from recspark.gnn.job import TrainJob
from recspark.gnn.ranking import top_k
from recspark.gnn.serving import load
from recspark.ranges import RowRange

TRAIN_ANCHORS, ANCHOR = (50.0, 60.0, 70.0), 80.0
K = 3
OLD_USERS, WITHOUT_PURCHASES = (
    48,
    16,
)  # the last of the old users have yet to buy for the first time
NEW_USERS = (48, 49)  # join after training
OLD_ITEMS, NEW_ITEMS = 20, (20, 21)  # the new ones are first sold after training
EVEN, ODD = 2, 3  # codes of the category
NAN = float("nan")


class TwoKinds(Shop):
    """A shop where only the category column tells of the kind of a user or an item."""

    def user_features(self, users):
        size = len(users)
        return {
            "numbers": [NAN] * size, "codes": [EVEN + u % 2 for u in users],
            "times": [NAN] * size, "buckets": [], "bucket_offsets": [0] * (size + 1),
        }  # fmt: skip

    def node_tables(self):
        tables = super().node_tables()
        bare = {
            "start_time": None, "parents": [-1], "numbers": [NAN], "times": [NAN], "buckets": [],
        }  # fmt: skip
        items = [row | bare for row in tables["items"].to_pylist()]
        return tables | {"items": pa.Table.from_pylist(items, tables["items"].schema)}


def shop_of_two_kinds():
    shop = TwoKinds(num_users=OLD_USERS, num_items=OLD_ITEMS)
    buyers = OLD_USERS - WITHOUT_PURCHASES
    shop.events = [event for event in shop.events if event[1] < buyers]
    shop.searches = []
    return shop


def job_of(shop, folder):
    """A training job of one process, and its files."""
    anchors = {"train": TRAIN_ANCHORS, "validation": (ANCHOR,)}
    ranges = {}
    for split, times in anchors.items():
        rows = [
            shop.group(range(first, first + 16), time, number)
            for number, first in enumerate(range(0, OLD_USERS, 16))
            for time in times
        ]
        path = folder / f"{split}.parquet"
        pq.write_table(pa.Table.from_batches(rows), path)
        ranges[split] = ((RowRange(path=str(path), first_row=0, num_rows=len(rows)),),)
    for name, table in shop.node_tables().items():
        pq.write_table(table, folder / f"{name}.parquet")
    pq.write_table(shop.item_states((*TRAIN_ANCHORS, ANCHOR)), folder / "item_states.parquet")
    return TrainJob(
        encodings=ENCODINGS.model_dump_json(),
        model=settings.Model(width=16, id_width=8),
        training=settings.Training(
            num_processes=1, patience=12, learning_rate=0.01, graph_learning_rate=0.01, refit=False
        ),
        max_epochs=12,
        ranges=ranges,
        node_files={name: (f"{folder}/{name}.parquet",) for name in ("items", "merchants")},
        item_state_files=(f"{folder}/item_states.parquet",),
        k=K,
        seed=11,
        checkpoint_dir=str(folder / "checkpoints"),
        progress_path=f"{folder}/progress.json",
    )


@pytest.fixture(scope="module")
def after_training(tmp_path_factory):
    """The trained network, and the shop once the new users and items are there."""
    folder, shop = tmp_path_factory.mktemp("two_kinds"), shop_of_two_kinds()
    job = job_of(shop, folder)
    with open(loop.train(job).serving_path, "rb") as state:
        network = load(state.read(), ENCODINGS, job.model)
    shop.num_items += len(NEW_ITEMS)
    return SimpleNamespace(network=network, shop=shop)


def outputs_for(after_training, users):
    """Scores (B, I) of these users, of other items by the graph, and their best K items."""
    shop, network = after_training.shop, after_training.network
    catalogue = shop.catalogue([ANCHOR])
    batch = batches.read([shop.group(users, ANCHOR)], ENCODINGS)
    with torch.no_grad():
        outputs = network(batch, catalogue, None)
    places = (batch.candidate_seeds_C, batch.candidate_items_C)
    graph_BI = outputs.all_logits()
    scores_BI = graph_BI.index_put(places, outputs.pairs_C) + outputs.tower_weight * graph_BI
    return scores_BI, top_k(outputs, batch, catalogue.available(ANCHOR), K)[0]


def test_a_user_without_history_gets_the_items_of_others_of_the_kind(after_training):
    assert not {event[1] for event in after_training.shop.events} & {*NEW_USERS}
    scores_BI, best_BK = outputs_for(after_training, NEW_USERS)
    assert scores_BI.isfinite().all()
    assert (best_BK % 2).tolist() == [[0] * K, [1] * K]
    means = torch.stack([scores_BI[:, kind::2].mean(1) for kind in (0, 1)], dim=1)
    assert means[0, 0] > means[0, 1]
    assert means[1, 1] > means[1, 0]


def test_an_item_first_sold_after_training_is_ranked_by_its_kind(after_training):
    assert not {event[2] for event in after_training.shop.events} & {*NEW_ITEMS}
    users = [*range(OLD_USERS), *NEW_USERS]
    scores_BI, _ = outputs_for(after_training, users)
    assert scores_BI.isfinite().all()
    even_item, odd_item = scores_BI[:, list(NEW_ITEMS)].unbind(1)
    is_even = torch.tensor([user % 2 == 0 for user in users])
    assert ((even_item > odd_item) == is_even).all()


def test_an_item_first_sold_after_training_stands_among_those_of_its_kind(after_training):
    scores_BI, _ = outputs_for(after_training, NEW_USERS)
    for user, item in enumerate(NEW_ITEMS):
        others = [i for i in range(OLD_ITEMS) if i % 2 != item % 2]
        assert (scores_BI[user, item] > scores_BI[user, others]).all()
