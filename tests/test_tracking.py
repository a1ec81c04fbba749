import os
from types import SimpleNamespace

import mlflow
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from matplotlib.figure import Figure
from mlflow import MlflowClient
from subgraph_factory import ENCODINGS, Shop

from recspark import registry, settings, tracking
from recspark.gnn import batches, ranking
from recspark.gnn.model import Network
from recspark.recommend import model_files, pyfunc_model

SETTINGS = {
    "name": "shop", "seed": 7, "model": {"width": 16, "id_width": 8},
    "query": "PREDICT LIST_DISTINCT(transactions.item_id, 0, 7, days) RANK TOP 3 FOR EACH users.user_id",
    "tables": {
        "users": {"path": "/data/users", "primary_key": "user_id"},
        "items": {"path": "/data/items", "primary_key": "item_id"},
        "transactions": {
            "path": "/data/transactions", "time_column": "time",
            "foreign_keys": {"user_id": "users", "item_id": "items"},
        },
    },
    "output": {"recommendations": "/out", "workspace": "/work"},
}  # fmt: skip
ANCHOR = 60.0  # days since 1970
SHOP = Shop(ended_items=(3,))


def settings_at(folder):
    return settings.Tracking(
        uri=f"sqlite:///{folder}/not/there/yet/mlflow.db", artifacts=str(folder / "artifacts")
    )


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    """One database for the file: making its tables takes seconds."""
    return tracking.open_tracker(settings_at(tmp_path_factory.mktemp("mlflow")))


@pytest.fixture(autouse=True)
def _no_server_in_the_environment(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def network():
    generator = torch.Generator().manual_seed(3)
    network = Network(ENCODINGS, settings.parse(SETTINGS).model).eval()
    with torch.no_grad():  # also what starts at zero, or a lost pair feature could not be seen
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return network


@pytest.fixture
def files_of_model(network, tmp_path):
    """What a run logs: the state, and the shop's items and merchants in two files each."""
    torch.save(network.state_dict(), tmp_path / "state.pt")
    torch.save({}, tmp_path / "selected.pt")
    (tmp_path / "encodings.json").write_text(ENCODINGS.model_dump_json())
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(SETTINGS))
    stage = {**SHOP.node_tables(), "states": SHOP.item_states([ANCHOR])}
    paths = {name: [str(tmp_path / f"{name}-{i}.parquet") for i in range(2)] for name in stage}
    for name, rows in stage.items():
        half = rows.num_rows // 2
        pq.write_table(rows.slice(half), paths[name][0])
        pq.write_table(rows.slice(0, half), paths[name][1])
    states = paths.pop("states")
    model_files.write_catalogue(tmp_path / "catalogue", paths, states)
    return {
        "state": tmp_path / "state.pt", "selected": tmp_path / "selected.pt", "encodings": tmp_path / "encodings.json",
        "settings_file": tmp_path / "settings.yaml", "catalogue": tmp_path / "catalogue",
    }  # fmt: skip


def stream(rows):
    """A table as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sink.getvalue().to_pybytes()


def source(path, version):
    return SimpleNamespace(declared=settings.Table(path=path), version=version)


def test_a_run_keeps_parameters_table_versions_curves_and_files(tracker, capfd):
    figure = Figure()
    figure.add_subplot().plot([1, 2])
    with tracker.run("2026-11-23") as run:
        run.log_settings(settings.parse(SETTINGS))
        run.log_inputs({"users": source("/data/users", 3), "items": source("/data/items", 0)})
        run.log_history(
            [
                {
                    "epoch": 1,
                    "heads_loss": 0.5,
                    "validation_map": 0.1,
                    "seconds": 9.0,
                    "ms_per_step": 40,
                },
                {"epoch": 2, "heads_loss": 0.4, "validation_map": None, "seconds": 8.0},
            ],
            k=12,
        )
        run.log_metrics({"test/map_at_12": 0.21, "val/map_at_12": 0.3})
        run.log_text("hello", "report.md")
        run.log_json({"map": [1]}, "report.json")
        run.log_figure(figure, "curves.png")
    client = MlflowClient()
    kept = client.get_run(run.run_id)
    assert kept.info.status == "FINISHED"
    assert kept.data.params["model.width"] == "16"
    assert kept.data.params["tables.users.path"] == "/data/users"
    assert kept.data.params["sampling.fanouts"] == "[32, 8]"
    assert kept.data.tags["table_version.users"] == "3"
    assert kept.data.tags["table_version.items"] == "0"
    inputs = {d.dataset.name: d.dataset for d in kept.inputs.dataset_inputs}
    assert {name: dataset.digest for name, dataset in inputs.items()} == {
        "users": "v3",
        "items": "v0",
    }
    assert "/data/users" in inputs["users"].source
    losses = client.get_metric_history(run.run_id, "train/heads_loss")
    assert [(point.step, point.value) for point in losses] == [(1, 0.5), (2, 0.4)]
    assert kept.data.metrics["val/map_at_12"] == 0.3
    assert {name for name in kept.data.metrics if "/" in name} == {
        "train/heads_loss", "train/val_map_at_12_per_epoch", "train/seconds_per_epoch",
        "train/ms_per_step", "test/map_at_12", "val/map_at_12",
    }  # fmt: skip
    assert {f.path for f in client.list_artifacts(run.run_id)} == {
        "report.md", "report.json", "curves.png",
    }  # fmt: skip
    assert kept.info.artifact_uri.startswith("file:///")
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""


def test_a_run_that_raises_is_kept_as_failed(tracker):
    def fail():
        with tracker.run("broken") as run:
            runs.append(run)
            raise RuntimeError("no purchases")

    runs = []
    with pytest.raises(RuntimeError, match="no purchases"):
        fail()
    assert MlflowClient().get_run(runs[0].run_id).info.status == "FAILED"


def test_the_first_model_is_champion_and_a_later_one_has_to_win(
    tracker, network, files_of_model, tmp_path
):
    models = registry.Registry(name="recspark-shop")
    with pytest.raises(ValueError, match=r"no version with alias 'champion'.*train one first"):
        models.resolve(registry.CHAMPION)
    with tracker.run("first") as run:
        uri = run.log_model(**files_of_model)
    first = models.register(uri, run.run_id)
    second = models.register(uri, run.run_id)
    assert (first.version, second.version) == (1, 2)
    assert models.resolve(registry.CHAMPION) == first
    assert models.resolve(registry.CHALLENGER) == second
    assert first.uri == "models:/recspark-shop/1"

    models.promote(second)
    assert models.resolve(registry.CHAMPION) == second
    with pytest.raises(ValueError, match="no version with alias 'challenger'"):
        models.resolve(registry.CHALLENGER)

    folder = models.download(second, tmp_path / "downloaded")
    artifacts = folder / "artifacts"
    assert {str(f.relative_to(artifacts)) for f in artifacts.rglob("*") if f.is_file()} == {
        "state.pt", "selected.pt", "encodings.json", "settings.yaml", "catalogue/item_states.parquet",
        "catalogue/nodes_items.parquet", "catalogue/nodes_merchants.parquet",
    }  # fmt: skip
    needed = (folder / "requirements.txt").read_text()
    assert f"torch=={torch.__version__.partition('+')[0]}" in needed
    assert "xgboost" in needed  # the trees travel in the network's state
    loaded = mlflow.pyfunc.load_model(str(folder))
    assert loaded.metadata.signature == tracking.SIGNATURE

    groups = [SHOP.group(users, ANCHOR, number) for number, users in enumerate([(4, 7, 1), (2, 9)])]
    found = loaded.predict(pd.DataFrame({"subgraphs": [stream(pa.Table.from_batches(groups))]}))
    assert list(found.columns) == ["entity", "items", "scores"]
    assert found["entity"].tolist() == [4, 7, 1, 2, 9]
    items, scores = best_items(network, groups)
    assert found["items"].tolist() == items
    assert {len(row) for row in items} == {3}
    assert 3 not in {item for row in items for item in row}
    assert found["scores"].tolist() == [pytest.approx(row, abs=1e-6) for row in scores]


def best_items(network, groups):
    """What the network says of each group, straight from the shop."""
    catalogue = SHOP.catalogue([ANCHOR])
    items, scores = [], []
    for group in groups:
        batch = batches.read([group], ENCODINGS)
        with torch.no_grad():
            outputs = network(batch, catalogue, None)
        best = ranking.top_k(outputs, batch, catalogue.available(ANCHOR), 3)
        items += best[0].tolist()
        scores += best[1].tolist()
    return items, scores


def test_the_model_reads_subgraphs_from_arrow_streams():
    streams = [stream(pa.table({"seed_group": groups})) for groups in ([0, 1], [2])]
    decoded = pyfunc_model.decode(pd.DataFrame({"subgraphs": streams}))
    assert decoded["seed_group"].to_pylist() == [0, 1, 2]
    with pytest.raises(ValueError, match="should be Arrow IPC streams"):
        pyfunc_model.decode(pd.DataFrame({"subgraphs": [b"no"]}))
    with pytest.raises(ValueError, match=r"needs at least one row .* got 1 rows with \['user'\]"):
        pyfunc_model.decode(pd.DataFrame({"user": [1]}))


def test_the_environment_goes_before_the_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///tmp/mlruns")
    with pytest.raises(
        ValueError, match="MLFLOW_TRACKING_URI 'file:///tmp/mlruns' is a file store"
    ):
        tracking.open_tracker(settings_at(tmp_path))


def test_the_tracking_uri_is_not_left_in_the_environment(tracker):
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert tracker.uri == mlflow.get_tracking_uri()


def test_a_server_that_does_not_answer_is_told_at_once(tracker):
    with pytest.raises(ValueError, match=r"tracking\.uri 'http://127\.0\.0\.1:9' does not answer"):
        tracking.open_tracker(settings.Tracking(uri="http://127.0.0.1:9"))
    mlflow.set_tracking_uri(tracker.uri)  # what the other tests of this file use


def test_nested_settings_become_dotted_parameters():
    nested = {"model": {"width": 8, "dropout": None}, "tables": {"users": {"ignore": ["a"]}}}
    assert tracking.flatten(nested) == {"model.width": 8, "tables.users.ignore": ["a"]}
