"""The backtest on the checkerboard shop: two dates, two seeds."""

import json
import os
import runpy
import statistics
from datetime import timedelta
from pathlib import Path

import checkerboard
import pytest
from checkerboard import RUN_DATE, K
from mlflow import MlflowClient

from recspark.evaluate import baselines, slices

main = runpy.run_path(str(Path(__file__).parents[1] / "jobs" / "backtest.py"))["main"]
DATES = [f"{RUN_DATE - timedelta(weeks=weeks):%Y-%m-%d}" for weeks in (1, 0)]
SEEDS = (5, 6)


@pytest.fixture(scope="module")
def folder(spark, tmp_path_factory):
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # MLflow sets it, and it goes before the config
    folder = tmp_path_factory.mktemp("backtest")
    checkerboard.shop().write(spark, folder)
    content = checkerboard.settings_of(folder)
    del content["evaluation"]  # all baselines
    # Weak on purpose: with trees or a usual rate every seed solves the board, and no two differ.
    content["training"] |= {
        "num_processes": 1, "max_epochs": 1, "trees": False,
        "learning_rate": 0.0001, "graph_learning_rate": 0.0001,
    }  # fmt: skip
    config = checkerboard.write_config(content, folder)
    main.callback(config=config, dates=DATES, seeds=SEEDS, json_file=str(folder / "out.json"))
    return folder


@pytest.mark.deep
def test_every_date_and_seed_is_told_beside_what_they_show_together(folder):
    told = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    assert [(run["as_of"], run["seed"]) for run in told["runs"]] == [
        (date, seed) for date in DATES for seed in SEEDS
    ]
    for run in told["runs"]:
        assert list(run["methods"]) == ["recspark", *told["summary"]["intervals"]]
        assert set(run["methods"]) == {"recspark", *baselines.NAMES}
        assert list(run["slices"]) == list(slices.NAMES[1:])
        assert run["methods"]["popularity"][f"popularity_share_at_{K}"] == 1
    first, second = told["runs"][:2]
    assert first["methods"]["tifu_knn"] == second["methods"]["tifu_knn"]
    assert first["methods"]["recspark"] != second["methods"]["recspark"]
    summary = told["summary"]
    assert (summary["num_dates"], summary["num_seeds"]) == (2, 2)
    map_name = f"map_at_{K}"
    found = [run["methods"]["recspark"][map_name] for run in told["runs"]]
    assert summary["methods"]["recspark"][map_name] == pytest.approx(sum(found) / 4)
    of_seeds = [(found[0] + found[2]) / 2, (found[1] + found[3]) / 2]
    assert summary["methods"]["recspark"]["std"] == pytest.approx(statistics.stdev(of_seeds))
    assert summary["methods"]["recspark"]["std"] > 0
    assert summary["methods"]["als"]["std"] == pytest.approx(0, abs=1e-12)
    assert summary["slices"]["repeat purchases"]["num_users"] > 0
    assert list(told["seconds"]) == ["prepare", "baselines", "train", "score", "judge"]
    assert all(gib > 0 for gib in told["peak_gib"].values())


@pytest.mark.deep
def test_each_date_and_seed_is_a_run_with_its_intervals(folder):
    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'checkerboard'")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.params["seed"] for run in runs) == ["5", "5", "6", "6"]
    for run in runs:
        for name in baselines.NAMES:
            assert f"backtest/map_difference_low/{name}" in run.data.metrics
        assert "backtest/map_difference_mean/repeat_purchases" in run.data.metrics
