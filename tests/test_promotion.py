"""Which model serves: the decision on a real registry, and the weekly job that follows it."""

import os
import runpy
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import checkerboard
import pytest
import torch
import yaml
from checkerboard import RUN_DATE, K
from mlflow import MlflowClient
from subgraph_factory import ENCODINGS

from recspark import settings, tables, tracking
from recspark.gnn.model import Network
from recspark.pipeline import promote, registered
from recspark.pipeline.learn import Learnt
from recspark.pipeline.promote import Standing
from recspark.pipeline.start import Run
from recspark.prepare.feature_schema import FeatureSchema
from recspark.prepare.item_trends import trend_names
from recspark.prepare.pair_features import pair_names
from recspark.query.parse import parse
from recspark.registry import CHALLENGER, CHAMPION, ModelVersion, Registry

main = runpy.run_path(str(Path(__file__).parents[1] / "jobs" / "weekly_recs.py"))["main"]


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlflow")
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    return tracking.open_tracker(
        settings.Tracking(uri=f"sqlite:///{folder}/mlflow.db", artifacts=str(folder / "artifacts"))
    )


@pytest.fixture
def models(request, tracker):
    return Registry(name=request.node.name)


def decide(tracker, models, *, ours, baseline, champion=None, fault=None, is_first=False):
    """Register one version, or two, let the newest be judged, and return what came of it."""
    with tracker.run("a week") as tracked:
        uri = f"runs:/{tracked.run_id}/model"
        first = models.register(uri, tracked.run_id)
        newest = first if is_first else models.register(uri, tracked.run_id)
        learnt = Learnt(selected=b"", serving=b"", validation_map=ours, report=None)
        tuned = [
            SimpleNamespace(name="popularity", validation_map=baseline / 2),
            SimpleNamespace(name="item_item", validation_map=baseline),
        ]
        standing = Standing(version=first, validation_map=champion, fault=fault)
        try:
            chosen = promote.choose(models, newest, learnt, tuned, standing, tracked)
        finally:
            file = MlflowClient().download_artifacts(tracked.run_id, promote.DECISION_FILE)
            said = Path(file).read_text(encoding="utf-8").strip()
    return chosen.version, said


@pytest.mark.parametrize(
    ("ours", "champion", "baseline", "version", "because"),
    [
        (0.30, 0.25, 0.20, 2, "is the champion now: validation MAP 0.3000, item_item 0.2000, "
         "champion version 1 0.2500."),
        (0.25, 0.25, 0.20, 1, "is not promoted: validation MAP 0.2500, champion version 1 0.2500. "
         "Going on with champion version 1."),
        (0.24, 0.25, 0.20, 1, "is not promoted: validation MAP 0.2400, champion version 1 0.2500. "
         "Going on with champion version 1."),
        (0.30, 0.25, 0.35, 1, "is not promoted: validation MAP 0.3000, item_item 0.3500. "
         "Going on with champion version 1."),
    ],
    ids=["better", "equal", "worse", "below a baseline"],
)  # fmt: skip
def test_a_challenger_serves_only_if_it_beats_the_champion_and_the_best_baseline(
    tracker, models, ours, champion, baseline, version, because
):
    chosen, said = decide(tracker, models, ours=ours, champion=champion, baseline=baseline)
    assert chosen == models.resolve(CHAMPION).version == version
    assert said == f"registry: version 2 of {models.name} {because}"
    if version == 1:
        assert models.resolve(CHALLENGER).version == 2


def test_the_first_model_serves_although_a_baseline_beats_it_and_the_job_says_so(tracker, models):
    chosen, said = decide(tracker, models, ours=0.1, baseline=0.2, is_first=True)
    assert (chosen, models.resolve(CHAMPION).version) == (1, 1)
    assert said.endswith(
        "is the champion, as there was none: validation MAP 0.1000, item_item 0.2000."
    )


def test_a_champion_that_cannot_read_the_tables_leaves_the_baselines_to_judge(tracker, models):
    fault = "it cannot."
    chosen, said = decide(tracker, models, ours=0.3, baseline=0.2, fault=fault)
    assert chosen == models.resolve(CHAMPION).version == 2
    assert said.endswith("item_item 0.2000. The champion was left out: it cannot.")
    with pytest.raises(ValueError, match=r"not promoted: .* it cannot\. Nothing is left to serve"):
        decide(tracker, Registry(name=f"{models.name}-b"), ours=0.1, baseline=0.2, fault=fault)


DECLARED = {
    "users": {"path": "u", "primary_key": "user_id"},
    "merchants": {"path": "m", "primary_key": "merchant_id"},
    "items": {
        "path": "i", "primary_key": "item_id", "foreign_keys": {"merchant_id": "merchants"},
    },
    "transactions": {
        "path": "t", "time_column": "at",
        "foreign_keys": {"user_id": "users", "item_id": "items"},
    },
    "searches": {"path": "s", "time_column": "at", "foreign_keys": {"user_id": "users"}},
}  # fmt: skip
FEATURES = FeatureSchema.of(ENCODINGS, ())
ENCODINGS_NOW = ENCODINGS.model_copy(
    update={"pair_names": pair_names(FEATURES), "trend_names": trend_names(FEATURES)}
)
COLUMNS = {"amount": "double", "kind": "string", "joined": "timestamp", "about": "string",
           "launched": "timestamp", "title": "string"}  # fmt: skip


def run_of(declared, **kinds):
    """A run over tables that all have the same columns, with these kinds changed."""
    present = {name: kind for name, kind in (COLUMNS | kinds).items() if kind}
    content = {
        "name": "shop", "seed": 1, "tables": declared,
        "query": "PREDICT LIST_DISTINCT(transactions.item_id, 0, 7, days) RANK TOP 3 FOR EACH users.user_id",
        "output": {"recommendations": "/out", "workspace": "/work"},
    }  # fmt: skip
    chosen = settings.parse(content)
    return Run(
        settings=chosen, query=parse(chosen.query, chosen.tables),
        run_date=datetime(2024, 6, 3), num_rows={}, anchors=(), workspace=None, is_backtest=False,
        sources=dict.fromkeys(declared, SimpleNamespace(types=lambda: present)),
    )  # fmt: skip


def model_of(encodings):
    return registered.RegisteredModel(
        version=ModelVersion(name="shop", version=3, run_id="r"),
        serving=b"", selected=b"", encodings=encodings, settings=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("without", "kinds", "fault"),
    [
        ("", {"about": None}, "'users' has no column 'about'"),
        ("", {"amount": "string"}, r"'users\.amount' is string, it was a number"),
        ("searches", {}, "no event table 'searches' is declared"),
        ("merchants", {}, r"it knows the foreign keys \{'merchant_id': 'merchants'\} of 'items'"),
    ],
)
def test_a_model_whose_tables_changed_is_refused_before_anything_is_written(without, kinds, fault):
    declared = {name: table for name, table in DECLARED.items() if name != without}
    if without == "merchants":
        declared["items"] = {"path": "i", "primary_key": "item_id"}
    message = f"version 3 of model shop cannot read today's tables: .*{fault}"
    with pytest.raises(ValueError, match=message):
        registered.check_readable(run_of(declared, **kinds), model_of(ENCODINGS))


def test_a_model_whose_tables_are_as_they_were_is_read_and_new_columns_do_no_harm():
    registered.check_readable(run_of(DECLARED, phone="string"), model_of(ENCODINGS_NOW))


def test_a_model_that_reads_features_of_another_release_is_told_in_one_sentence():
    older = ENCODINGS_NOW.model_copy(update={"pair_names": (*ENCODINGS_NOW.pair_names, "of_old")})
    message = r"3 of model shop was made by another release, whose pair features differ \(of_old\)"
    with pytest.raises(ValueError, match=message):
        registered.check_readable(run_of(DECLARED), model_of(older))
    turned = ENCODINGS_NOW.model_copy(update={"trend_names": trend_names(FEATURES)[::-1]})
    with pytest.raises(ValueError, match=r"item features differ \(their order\)"):
        registered.check_readable(run_of(DECLARED), model_of(turned))


def saved(folder, encodings, state):
    """The artifacts of a registered version."""
    artifacts = folder / "artifacts"
    artifacts.mkdir()
    (artifacts / "encodings.json").write_text(encodings)
    (artifacts / "settings.yaml").write_text(yaml.safe_dump(checkerboard.settings_of(folder)))
    for name in ("state.pt", "selected.pt"):
        torch.save(state, artifacts / name)
    return artifacts


def downloaded(folder):
    """What a registered version with the files of a folder is read as."""
    version = ModelVersion(name="shop", version=3, run_id="r")
    return registered.download(SimpleNamespace(download=lambda *_: folder), version)


@pytest.mark.parametrize("another", [None, "encodings", "parameters"])
def test_a_model_of_another_release_is_told_in_one_sentence(tmp_path, another):
    chosen = settings.Settings.model_validate(checkerboard.settings_of(tmp_path))
    state = Network(ENCODINGS, chosen.model).state_dict()
    encodings = ENCODINGS.model_dump_json()
    if another is None:
        saved(tmp_path, encodings, state)
        assert downloaded(tmp_path).encodings == ENCODINGS
        return
    if another == "encodings":
        encodings = '{"entity": "users"}'
    else:
        state["pair_head.old"] = state.pop("pair_head.ignored_F")
    saved(tmp_path, encodings, state)
    message = "version 3 of model shop was made by another release, .*; train a new version"
    with pytest.raises(ValueError, match=message) as told:
        downloaded(tmp_path)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("num_bytes", [0, 100, 5_000])
@pytest.mark.parametrize("file", ["state.pt", "selected.pt"])
def test_a_damaged_file_of_a_model_is_told_in_one_sentence(tmp_path, file, num_bytes):
    chosen = settings.Settings.model_validate(checkerboard.settings_of(tmp_path))
    state = Network(ENCODINGS, chosen.model).state_dict()
    artifacts = saved(tmp_path, ENCODINGS.model_dump_json(), state)
    whole = (artifacts / file).read_bytes()
    (artifacts / file).write_bytes(whole[:num_bytes])
    message = f"version 3 of model shop has a damaged file '{file}'; restore it"
    with pytest.raises(ValueError, match=message) as told:
        downloaded(tmp_path)
    assert "\n" not in str(told.value)


@pytest.mark.deep
def test_the_weekly_job_goes_on_with_a_champion_that_is_not_beaten(spark, tmp_path):
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    content = checkerboard.settings_of(tmp_path)
    content["training"]["num_processes"] = 1
    checkerboard.shop().write(spark, tmp_path)
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")

    def train():
        config = checkerboard.write_config(content, tmp_path)
        main.callback(config=config, run_date=f"{RUN_DATE:%Y-%m-%d}")
        newest = max(client.search_model_versions(), key=lambda v: int(v.version))
        file = client.download_artifacts(newest.run_id, promote.DECISION_FILE, str(tmp_path))
        return client.get_run(newest.run_id), Path(file).read_text(encoding="utf-8")

    first, said = train()
    assert "is the champion, as there was none" in said

    # A challenger of another size that hardly learns.
    content["model"] |= {"width": 8, "id_width": 4}
    content["training"] |= {"max_epochs": 1, "learning_rate": 1e-6, "graph_learning_rate": 1e-6}
    second, said = train()
    ours, theirs = f"val/map_at_{K}", f"val/map_at_{K}/champion"
    # The state that validation chose reaches what it reached then.
    assert second.data.metrics[theirs] == pytest.approx(first.data.metrics[ours], abs=1e-6)
    assert second.data.metrics[ours] < second.data.metrics[theirs]
    assert "version 2 of recspark-checkerboard is not promoted" in said
    assert "Going on with champion version 1." in said

    rows = tables.read(spark, f"{tmp_path}/recommendations").toArrow().to_pylist()
    assert {(row["model_version"], row["run_id"]) for row in rows} == {(1, first.info.run_id)}
    right = [checkerboard.parity(row["item_id"]) == row["entity_id"] % 2 for row in rows]
    assert sum(right) > 0.85 * len(right)
    stage = tables.read(spark, f"{tmp_path}/workspace/subgraphs").select("split").distinct()
    assert {row["split"] for row in stage.collect()} == {"train", "validation", "test", "score"}
