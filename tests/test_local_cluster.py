"""The literal command, on threads of one process and on executors of their own."""

import os
import subprocess
import sys
from pathlib import Path

import checkerboard
import pytest

from recspark import tables

ROOT = Path(__file__).parents[1]


def submit(master, config, run_date):
    """`spark-submit` of the weekly job as from an active environment."""
    bin_folder = Path(sys.executable).parent
    ended = subprocess.run(
        [
            bin_folder / "spark-submit", "--master", master, ROOT / "jobs" / "weekly_recs.py",
            "--config", config, "--run-date", run_date,
        ],
        env=os.environ | {"PATH": f"{bin_folder}:{os.environ['PATH']}"},
        cwd=Path(config).parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


@pytest.mark.deep
def test_executors_of_their_own_give_the_same_recommendations_as_one_process(spark, tmp_path):
    checkerboard.shop().write(spark, tmp_path)
    found = []
    for number, master in enumerate(["local[2]", "local-cluster[2,1,2048]"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        content = checkerboard.settings_of(tmp_path)
        content["output"] = {
            "recommendations": f"{folder}/recommendations", "workspace": f"{folder}/workspace"
        }  # fmt: skip
        content["tracking"] = {"uri": f"sqlite:///{folder}/mlflow.db", "artifacts": f"{folder}/ml"}
        config = checkerboard.write_config(content, folder)
        told = submit(master, config, f"{checkerboard.RUN_DATE:%Y-%m-%d}")
        assert "recspark-checkerboard version 1" in told
        rows = tables.read(spark, f"{folder}/recommendations").orderBy("entity_id", "rank")
        names = ("entity_id", "rank", "item_id", "score", "reason")
        found.append(rows.select(*names).toArrow().to_pylist())
    on_threads, on_executors = found
    assert len(on_threads) == checkerboard.K * len(checkerboard.shop().opted_in())
    assert on_executors == on_threads
