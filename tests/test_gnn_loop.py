import os
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.linalg
import torch
from subgraph_factory import ALONE, ENCODINGS, Shop

from recspark import progress, settings
from recspark.evaluate import metrics
from recspark.files import read_rows
from recspark.gnn import boosting, choosing, epochs, learners, loop, steps, trees
from recspark.gnn.cache import GroupStore
from recspark.gnn.job import TrainJob
from recspark.gnn.model import Network
from recspark.gnn.progress import ProgressLine
from recspark.gnn.validation import Judge, Quality
from recspark.ranges import RowRange

TRAIN_ANCHORS, VALIDATION_ANCHOR = (50.0, 60.0, 70.0), 80.0
K = 3


def write_shop(shop, folder):
    """The stage tables of a shop as Parquet: two groups of users for each anchor."""
    half = shop.num_users // 2
    halves = (range(half), range(half, shop.num_users))
    for name, anchors in (("train", TRAIN_ANCHORS), ("validation", (VALIDATION_ANCHOR,))):
        for number, users in enumerate(halves):
            rows = [shop.group(users, anchor, number) for anchor in anchors]
            pq.write_table(
                pa.Table.from_batches(rows), folder / f"{name}-{number}.parquet", row_group_size=2
            )
    for name, table in shop.node_tables().items():
        pq.write_table(table, folder / f"nodes_{name}.parquet")
    states = shop.item_states((*TRAIN_ANCHORS, VALIDATION_ANCHOR))
    pq.write_table(states, folder / "item_states.parquet")


def job_of(folder, checkpoints, *, ranks=1, groups_per_batch=2, max_epochs=2, **training):
    def share(name, num_rows):
        files = [
            RowRange(path=f"{folder}/{name}-{i}.parquet", first_row=0, num_rows=num_rows)
            for i in range(2)
        ]
        return (tuple(files),) if ranks == 1 else tuple((file,) for file in files)

    defaults = {"num_processes": ranks, "patience": 2, "refit": False, "trees": False}
    return TrainJob(
        encodings=ENCODINGS.model_dump_json(),
        model=settings.Model(width=16, id_width=8, dropout=0.0),
        training=settings.Training(
            groups_per_batch=groups_per_batch,
            **(
                defaults
                | {"learning_rate": 0.01, "graph_learning_rate": 0.01, "negative_share": 1.0}
                | training
            ),
        ),
        max_epochs=max_epochs,
        ranges={"train": share("train", len(TRAIN_ANCHORS)), "validation": share("validation", 1)},
        node_files={name: (f"{folder}/nodes_{name}.parquet",) for name in ("items", "merchants")},
        item_state_files=(f"{folder}/item_states.parquet",),
        k=K,
        seed=11,
        checkpoint_dir=str(checkpoints),
        progress_path=f"{folder}/progress.json",
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    write_shop(Shop(), folder)
    return folder


def train_as_rank(rank, world_size, ports, jobs, reports):
    for port, job in zip(ports, jobs, strict=True):
        os.environ |= {
            "RANK": str(rank), "WORLD_SIZE": str(world_size), "LOCAL_RANK": str(rank),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
        reports.put((job.checkpoint_dir, loop.train(job)))


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def idle_job(folder, checkpoints):
    """All rows are the first rank's."""
    job = job_of(folder, checkpoints, ranks=2, max_epochs=1)
    everything = {split: (shares[0] + shares[1], ()) for split, shares in job.ranges.items()}
    return replace(job, ranges=everything)


@pytest.fixture(scope="module")
def on_two_ranks(folder):
    """Reports of both ranks by job; one start of two processes for all jobs, as it costs most."""
    jobs = [
        job_of(folder, folder / "shared", ranks=2, groups_per_batch=1, refit=True),
        idle_job(folder, folder / "idle"),
    ]
    reports = torch.multiprocessing.get_context("spawn").SimpleQueue()
    ports = [free_port() for _ in jobs]
    torch.multiprocessing.spawn(train_as_rank, (2, ports, jobs, reports), nprocs=2)
    by_job = {Path(job.checkpoint_dir).name: [] for job in jobs}
    for _ in range(2 * len(jobs)):
        checkpoint_dir, report = reports.get()
        by_job[Path(checkpoint_dir).name].append(report)
    return {name: sorted(pair, key=lambda report: report.rank) for name, pair in by_job.items()}


def test_two_processes_reach_the_losses_and_weights_of_one(folder, on_two_ranks, tmp_path):
    alone = loop.train(job_of(folder, tmp_path, refit=True))
    pair = on_two_ranks["shared"]
    assert [report.status for report in pair] == ["completed"] * 2
    assert [dict(report.num_rows) for report in pair] == [{"train": 3, "validation": 1}] * 2
    assert alone.num_rows == {"train": 6, "validation": 2}
    for report in pair:
        assert report.num_steps == alone.num_steps
        for ours, theirs in zip(report.history, alone.history, strict=True):
            assert ours.phase == theirs.phase
            assert ours.heads_loss == pytest.approx(theirs.heads_loss, abs=1e-4)
            assert ours.graph_loss == pytest.approx(theirs.graph_loss, abs=1e-4)
            assert ours.validation_map == pytest.approx(theirs.validation_map, abs=1e-4)
    for name in ("selected_path", "serving_path"):
        torch.testing.assert_close(
            torch.load(getattr(pair[0], name)), torch.load(getattr(alone, name)),
            rtol=1e-3, atol=1e-3,
        )  # fmt: skip
    assert int((folder / "shared" / "rank-1.pid").read_text()) != os.getpid()


def test_a_rank_without_rows_takes_part_and_changes_nothing(folder, on_two_ranks, tmp_path):
    idle = on_two_ranks["idle"]
    alone = loop.train(job_of(folder, tmp_path, max_epochs=1))
    assert idle[1].num_rows == {}
    assert idle[1].num_steps == alone.num_steps
    for name in ("heads_loss", "graph_loss"):
        expected = getattr(alone.history[0], name)
        assert getattr(idle[1].history[0], name) == pytest.approx(expected, abs=1e-4)
    assert idle[1].best_validation_map == pytest.approx(alone.best_validation_map, abs=1e-4)


class Killed(Exception):
    pass


def test_a_run_killed_in_its_second_epoch_resumes_to_the_weights_of_one_never_killed(
    folder, tmp_path, monkeypatch
):
    options = {"max_epochs": 3, "patience": 3, "refit": True, "trees": True}
    job = job_of(folder, tmp_path / "killed", **options)
    job = replace(job, model=job.model.model_copy(update={"dropout": 0.2}))
    whole = loop.train(replace(job, checkpoint_dir=str(tmp_path / "whole")))

    graph_steps = iter(range(4))  # three steps an epoch: the fifth step dies

    def dying(*arguments):
        if next(graph_steps, None) is None:
            raise Killed
        return alive(*arguments)

    alive = learners.draw_negatives
    monkeypatch.setattr(learners, "draw_negatives", dying)
    with pytest.raises(Killed):
        loop.train(job)
    monkeypatch.setattr(learners, "draw_negatives", alive)
    resumed = loop.train(job)
    assert resumed.resumed_from_epoch == 1
    assert resumed.num_steps == whole.num_steps - 6
    for ours, theirs in zip(resumed.history, whole.history, strict=True):
        assert (ours.heads_loss, ours.graph_loss) == (theirs.heads_loss, theirs.graph_loss)
    for name in ("selected_path", "serving_path"):
        ours, theirs = (torch.load(getattr(report, name)) for report in (resumed, whole))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_checkpoint_of_another_seed_is_not_resumed(folder, tmp_path):
    job = job_of(folder, tmp_path, max_epochs=1)
    first = loop.train(job)
    again, other = loop.train(job), loop.train(replace(job, seed=12))
    assert (again.num_steps, again.resumed_from_epoch) == (0, 1)
    assert (other.num_steps, other.resumed_from_epoch) == (6, 0)
    assert other.history[0].graph_loss != first.history[0].graph_loss


@pytest.mark.parametrize(
    "older",
    [
        lambda state: {name: value for name, value in state.items() if name != "layout"},
        lambda state: state | {"layout": state["layout"].replace("graph.", "network.")},
    ],
    ids=["a release before layouts were kept", "a network with other parts"],
)
def test_a_checkpoint_of_another_release_is_not_resumed(folder, tmp_path, older, caplog):
    job = job_of(folder, tmp_path, max_epochs=1)
    first, path = loop.train(job), tmp_path / "selected.pt"
    torch.save(older(torch.load(path)), path)
    again = loop.train(job)
    assert (again.num_steps, again.resumed_from_epoch) == (6, 0)
    assert f"{path} is of another job or release; training starts anew" in caplog.text
    assert again.history[0].graph_loss == first.history[0].graph_loss


def qualities(means, deviation=0.005):
    """Qualities of which any two differ by their means with this standard error."""
    signs = scipy.linalg.hadamard(8)[1:]  # any two rows are uncorrelated
    return [
        Quality(mean=mean, replicates=tuple((mean + deviation / 2**0.5 * signs[i]).tolist()))
        for i, mean in enumerate(means)
    ]


@pytest.mark.parametrize(
    ("maps", "annealed", "expected", "falls_within"),
    [
        ([0.500, 0.510, 0.506], [], 3, 3),  # within one standard error of the best: chance
        ([0.500, 0.510, 0.504], [0.4, 0.501], 2, 3),
        ([0.500, 0.510, 0.504], [0.4, 0.506], 2, 2),  # no worse, and its rate came down
        ([0.510, 0.506, 0.502], [0.4, 0.6], 2, 2),  # against the best: no slipping down by steps
        ([0.0, 0.0, 0.0], [], 3, 3),
    ],
)
def test_of_epochs_as_good_but_for_chance_the_last_is_chosen(
    folder, tmp_path, monkeypatch, maps, annealed, expected, falls_within
):
    found = iter(qualities([*maps, *annealed]))  # nothing is asked twice
    monkeypatch.setattr(
        Judge, "qualities", lambda *told: dict.fromkeys(told[2], next(found)) if told[2] else {}
    )
    report = loop.train(job_of(folder, tmp_path, max_epochs=3, patience=3))
    assert (report.best_epoch, report.rate_falls_within) == (expected, falls_within)
    best = annealed[-1] if falls_within < 3 else maps[expected - 1]
    assert report.by_group.map_with_all == best
    phases = [epoch.phase for epoch in report.history]
    assert phases == ["selected"] * 3 + ["annealed"] * len(annealed)
    if annealed:
        for part in ("heads", "graph"):
            schedules = [
                torch.load(tmp_path / f"{phase}.pt")["schedules"][part]
                for phase in ("selected", "annealed")
            ]
            assert [schedule["total_steps"] for schedule in schedules] == [9, 6]


@pytest.mark.parametrize(
    ("alone", "with_trees", "share", "expected"),
    [
        (0.5, [0.6, 0.7, 0.55], 1.0, 0.7),
        (0.5, [0.6, 0.6, 0.61], 1.0, 0.6),  # better than the usual share, but not clearly
        (0.5, [0.6, 0.6, 0.62], 2.0, 0.62),
        (0.5, [0.3, 0.499, 0.3], 1.0, 0.499),  # worse than without by no more than chance
        (0.5, [0.3, 0.4, 0.2], 0.0, 0.5),
    ],
)
def test_validation_chooses_how_much_trees_count(
    folder, tmp_path, monkeypatch, alone, with_trees, share, expected
):
    by_share = dict(zip((0.0, *choosing.TREE_SHARES), qualities([alone, *with_trees]), strict=True))

    def told(judge, network, keys, variants):
        return {key: by_share[key[0]] for key in keys}

    monkeypatch.setattr(Judge, "qualities", told)
    monkeypatch.setattr(boosting, "common_scale", lambda *_, **__: 3.0)
    as_before = lambda chosen, *_, **__: float(chosen.pair_head.trees.scale)  # noqa: E731
    monkeypatch.setattr(boosting, "scale_like", as_before)
    report = loop.train(job_of(folder, tmp_path, max_epochs=1, trees=True, refit=True))
    assert (report.trees_share, report.best_validation_map) == (share, expected)
    assert report.map_without_trees == alone
    assert report.map_with_trees == (expected if share else 0.4)
    for state in (report.selected_path, report.serving_path):
        scale = float(torch.load(state)["pair_head.trees.scale"])
        assert scale == (3.0 * share if share else 1.0)


@pytest.mark.parametrize(("refit", "selected", "serving"), [(True, 2, 6), (False, 6, 6)])
def test_validation_judges_two_boosters_and_all_of_them_serve(
    folder, tmp_path, refit, selected, serving
):
    report = loop.train(job_of(folder, tmp_path, max_epochs=1, trees=True, refit=refit))
    for path, expected in ((report.selected_path, selected), (report.serving_path, serving)):
        module = trees.PairTrees()
        module.load_state_dict(
            {
                name.removeprefix("pair_head.trees."): value
                for name, value in torch.load(path).items()
                if name.startswith("pair_head.trees.")
            }
        )
        assert len(module._boosters) == expected


def test_the_served_network_never_reads_a_group_that_validation_left_out(
    folder, tmp_path, monkeypatch
):
    def told(judge, network, keys, variants):
        better = {"rest": qualities([0.6])[0]} if "rest" in keys else {}
        return dict.fromkeys(keys, qualities([0.5])[0]) | better

    monkeypatch.setattr(Judge, "qualities", told)
    grouped = ENCODINGS.model_copy(
        update={"pair_groups": {"bought": ("times_bought",), "rest": ("days_since", "noise")}}
    )
    job = job_of(folder, tmp_path, max_epochs=1, trees=True, refit=True)
    report = loop.train(replace(job, encodings=grouped.model_dump_json()))
    assert report.by_group.left_out == {"rest": 0.6}
    for path in (report.selected_path, report.serving_path):
        state = torch.load(path)
        network = Network(grouped, job.model).eval()
        network.load_state_dict(state)
        features = torch.tensor([[1.0, 10.0, 0.3], [1.0, 50.0, 0.9]])
        same, other = network.pair_head(features)
        torch.testing.assert_close(same, other)
        used = {name for raw in network.pair_head.trees._boosters for name in raw.get_fscore()}
        assert used <= {"f0"}
    # The refitted one was trained without it: nothing but decay moved the weights of its places.
    first_layer = "pair_head.perceptrons.0.0.weight"
    steps.seed_torch(job.seed)
    before = Network(grouped, job.model).state_dict()[first_layer]
    moved = torch.load(report.serving_path)[first_layer] / before
    assert float(moved[:, 1:3].std()) < 1e-6 < float(moved[:, 0].std())


def test_the_network_learns_the_checkerboard_far_beyond_popularity(tmp_path):
    shop = Shop(num_users=40, share_of_candidates=1)
    write_shop(shop, tmp_path)
    job = job_of(tmp_path, tmp_path / "run", max_epochs=25, patience=25, groups_per_batch=1)
    report = loop.train(job)
    users = range(shop.num_users)
    sold = np.bincount([e[2] for e in shop.events if e[0] <= VALIDATION_ANCHOR], minlength=12)
    popular = np.argsort(-sold, kind="stable")[:K]
    truths = [shop.labels(user, VALIDATION_ANCHOR) for user in users]
    values = metrics.per_user(
        (np.tile(popular, len(users)), np.arange(len(users) + 1) * K),
        (np.concatenate(truths).astype(np.int64), np.cumsum([0, *map(len, truths)])),
        K,
    )[metrics.name(metrics.MAP, K)]
    assert np.nanmean(values) < 0.4
    assert report.best_validation_map > 0.8
    losses = [epoch.graph_loss for epoch in report.history]
    assert losses[-1] < 0.7 * losses[0]
    *_, best = (epoch for epoch in report.history if epoch.epoch == report.best_epoch)
    assert best.tower_weight > 0  # tastes stand in the nodes' columns, which only the graph reads
    assert best.map_without_graph < best.validation_map - 0.1
    told = progress.read(Path(job.progress_path))
    last = report.history[-1]
    expected = (f"{last.phase}, graph", last.epoch, last.epoch)
    assert (told.phase, told.epoch, told.epochs) == expected
    assert told.step == told.steps == report.num_steps / len(report.history)
    assert told.seconds_left == 0
    assert told.seeds_per_second > 0


def test_training_with_sampled_items_encodes_only_those_and_learns_too(tmp_path, monkeypatch):
    monkeypatch.setattr("recspark.gnn.catalogue_loss.MAX_ITEMS_OF_FULL_SOFTMAX", 5)
    monkeypatch.setattr("recspark.gnn.catalogue_loss.NUM_SHARED_NEGATIVES", 4)
    write_shop(Shop(share_of_candidates=1), tmp_path)
    job = job_of(tmp_path, tmp_path / "run", max_epochs=12, patience=12)
    report = loop.train(job)
    losses = [epoch.graph_loss for epoch in report.history]
    assert losses[-1] < 0.8 * losses[0]
    assert report.best_validation_map > 0.5


def test_the_saved_state_fits_a_network_built_from_encodings_and_settings(folder, tmp_path):
    job = job_of(folder, tmp_path, max_epochs=1)
    network = Network(ENCODINGS, job.model)
    network.load_state_dict(torch.load(loop.train(job).serving_path))


def both_learners(network, job, folder, falls_within):
    """Of one rank that has all training groups."""
    setting = steps.Setting(
        job=job, ranks=ALONE, catalogue=Shop().catalogue(TRAIN_ANCHORS), encodings=ENCODINGS
    )
    groups = GroupStore.of_ranges(job.ranges["train"][0], folder / "train.arrow")
    share = steps.Share(groups=groups, is_own=True)
    return [
        kind(network, setting, share, falls_within)
        for kind in (learners.HeadLearner, learners.GraphLearner)
    ]


def test_heads_and_graph_learn_at_rates_of_their_own_that_come_down(folder, tmp_path):
    job = job_of(folder, tmp_path, learning_rate=0.01, graph_learning_rate=0.001)
    network = Network(ENCODINGS, job.model)
    pair = both_learners(network, job, tmp_path, falls_within=4)
    for learner, peak in zip(pair, (0.01, 0.001), strict=True):
        rates = []
        for _ in range(4 * learner.steps_per_epoch):
            rates.append(learner.optimizer.param_groups[0]["lr"])
            learner.optimizer.step()
            learner.schedule.step()
        assert max(rates) == pytest.approx(peak, rel=0.05)
        assert rates[-1] < peak / 1000
    heads, graph = (set(map(id, one.optimizer.param_groups[0]["params"])) for one in pair)
    assert heads == set(map(id, network.pair_head.parameters()))
    assert heads.isdisjoint(graph)
    assert heads | graph == set(map(id, network.parameters()))


@pytest.mark.parametrize(("part", "prefix"), [(0, "pair_head."), (1, "graph.")])
def test_an_epoch_of_one_part_leaves_the_other_as_it_was(folder, tmp_path, part, prefix):
    job = job_of(folder, tmp_path)
    network = Network(ENCODINGS, job.model)
    learner = both_learners(network, job, tmp_path, falls_within=1)[part]
    before = {name: value.clone() for name, value in network.named_parameters()}
    learner.run(1, ProgressLine(tmp_path / "line.json", "fit", 1, learner.steps_per_epoch, 0))
    moved = {name for name, value in network.named_parameters() if (value != before[name]).any()}
    assert moved
    assert all(name.startswith(prefix) for name in moved)


def test_the_graph_learns_from_twice_as_many_seeds_a_step(folder, tmp_path):
    job = job_of(folder, tmp_path, groups_per_batch=1)  # two groups of each of three anchors
    heads, graph = both_learners(Network(ENCODINGS, job.model), job, tmp_path, falls_within=1)
    assert (heads.steps_per_epoch, graph.steps_per_epoch) == (6, 3)


def test_every_group_is_in_one_batch_an_epoch_and_batches_have_one_anchor():
    anchors = np.array([7.0, 8.0, 7.0, 7.0, 8.0, 7.0, 7.0])
    first, second = (epochs.plan(anchors, 2, seed=3, epoch=epoch) for epoch in (1, 2))
    assert sorted(group for batch in first for group in batch) == list(range(7))
    assert all(len({anchors[group] for group in batch}) == 1 for batch in first)
    assert max(map(len, first)) == 2
    assert len(first) == 4
    assert first != second
    assert first == epochs.plan(anchors, 2, seed=3, epoch=1)


def test_a_range_is_read_exactly_whatever_the_row_groups(tmp_path):
    pq.write_table(pa.table({"a": list(range(40))}), tmp_path / "f.parquet", row_group_size=18)

    def read(first, count):
        rows = RowRange(path=str(tmp_path / "f.parquet"), first_row=first, num_rows=count)
        return [a for batch in read_rows(rows, ["a"]) for a in batch["a"].to_pylist()]

    for first, count in ((0, 40), (0, 18), (17, 2), (18, 18), (35, 5), (5, 1)):
        assert read(first, count) == list(range(first, first + count))
    with pytest.raises(ValueError, match="40 rows, rows up to 41"):
        read(39, 2)


def test_groups_come_from_the_cache_in_any_order_as_they_were_written(folder, tmp_path):
    path = f"{folder}/train-1.parquet"
    ranges = [RowRange(path=path, first_row=1, num_rows=2)]
    store = GroupStore.of_ranges(ranges, tmp_path / "cache.arrow")
    assert store.anchors_G.tolist() == [60.0, 70.0]
    written = pq.read_table(path).select(store.groups([0])[0].schema.names).to_pylist()
    found = [store.groups([number])[0].to_pylist()[0] for number in (1, 0)]
    np.testing.assert_equal(found, [written[2], written[1]])
