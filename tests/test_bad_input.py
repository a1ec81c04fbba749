"""What is wrong with the input ends the weekly job in one sentence, and nothing is written."""

import os
import runpy
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from conftest import drawn

from recspark import tables

JOB = Path(__file__).parents[1] / "jobs" / "weekly_recs.py"
main = runpy.run_path(str(JOB))["main"]

QUERY = "PREDICT LIST_DISTINCT(bought.item, 0, 7, days) RANK TOP 2 FOR EACH users.user"
DRAWN = {
    "users": """
        user:bigint | email:string | household:bigint | card:bigint | opted_in:boolean
        1           | a@x.org      | 7                | 70          | false
        2           | b@x.org      | 7                |             | false
        3           | c@x.org      | 8                | 72          |
        """,
    "nobody": "user:bigint | email:string",
    "items": """
        item:string | price:double
        tea         | 3
        mug         | 9
        """,
    # Two rows that point nowhere, and no purchase after 2024-03-04.
    "bought": """
        user:bigint | item:string | at:timestamp        | price:double
        1           | tea         | 2024-03-01T09:00:00 | 3
        2           | mug         | 2024-03-04T09:00:00 | 9
        2           |             | 2024-03-04T09:00:00 | 9
        3           | lamp        | 2024-03-04T10:00:00 | 9
        """,
    "recommendations": "entity_id:bigint\n9",
}  # fmt: skip


@dataclass
class Shop:
    """Source tables and a config beside them, one place of which a test spoils."""

    folder: Path

    def config(self, changes, out):
        """The path of a config file; `changes` maps places such as `tables.users.path` to values."""
        content = {
            "name": "spoilt",
            "seed": 1,
            "query": QUERY,
            "tables": {
                "users": {"path": f"{self.folder}/users", "primary_key": "user"},
                "items": {"path": f"{self.folder}/items", "primary_key": "item"},
                "bought": {
                    "path": f"{self.folder}/bought",
                    "time_column": "at",
                    "foreign_keys": {"user": "users", "item": "items"},
                },
            },
            "output": {"recommendations": f"{out}/recommendations", "workspace": f"{out}/stages"},
            "tracking": {
                "uri": f"sqlite:///{self.folder}/mlflow.db",
                "artifacts": f"{self.folder}/mlartifacts",
            },
        }
        for place, value in changes.items():
            *sections, key = place.split(".")
            section = content
            for name in sections:
                section = section.setdefault(name, {})
            section[key] = value.format(folder=self.folder) if isinstance(value, str) else value
        file = out / "config.yaml"
        file.write_text(yaml.safe_dump(content), encoding="utf-8")
        return str(file)


def fault_of(config, date, job=main, option="--run-date"):
    """The one line with which the job ends."""
    ended = CliRunner().invoke(job, ["--config", config, option, date])
    assert ended.exit_code == 1, ended.output
    assert ended.stdout == ""
    lines = ended.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.fixture(scope="module")
def shop(spark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    for name in ("users", "nobody", "items", "bought"):
        tables.write_source(spark.createDataFrame(drawn(DRAWN[name])), f"{folder}/{name}")
    return Shop(folder)


@pytest.mark.parametrize(
    ("changes", "run_date", "sentence"),
    [
        (
            {"sampling.fanout": [8, 8]}, "2024-04-01",
            "weekly_recs: {config}: unknown key 'sampling.fanout'; did you mean 'fanouts'? Known: "
            "fanouts, group_size.",
        ),
        (
            {"query": QUERY.replace("TOP 2", "TOP 0")}, "2024-04-01",
            "weekly_recs: query, line 1, column 57: RANK TOP 0 recommends nothing; ask for at "
            "least 1.",
        ),
        (
            {"query": QUERY.replace("bought.", "bougth.")}, "2024-04-01",
            "weekly_recs: query, line 1, column 23: unknown table 'bougth'; did you mean "
            "'bought'? Known: bought, items, users.",
        ),
        (
            {}, "2024-02-30",
            "weekly_recs: run date '2024-02-30' is not a date like 2026-11-23.",
        ),
    ],
    ids=["unknown key", "K of 0", "unknown table", "no date"],
)  # fmt: skip
def test_a_faulty_option_is_told_before_spark_starts(
    changes, run_date, sentence, tmp_path, monkeypatch
):
    monkeypatch.setattr("recspark.pipeline.start.open_session", lambda _: pytest.fail("Spark"))
    config = Shop(tmp_path).config(changes, tmp_path)
    assert fault_of(config, run_date) == sentence.format(config=config)
    assert os.listdir(tmp_path) == ["config.yaml"]


@pytest.mark.parametrize(
    ("changes", "run_date", "sentence"),
    [
        (
            {"tables.bought.path": "{folder}/sold"}, "2024-04-01",
            "tables.bought: no Delta table at '{folder}/sold'; write it first or correct the "
            "config.",
        ),
        (
            {"tables.bought.price_column": "prize"}, "2024-04-01",
            "tables.bought: no column 'prize' in '{folder}/bought'; did you mean 'price'? Known: "
            "at, item, price, user.",
        ),
        (
            {"tables.bought.time_column": "price"}, "2024-04-01",
            "tables.bought: time column 'price' is double; make it a timestamp or a date.",
        ),
        (
            {"tables.users.primary_key": "email", "query": f"{QUERY[:-4]}email"}, "2024-04-01",
            "tables.bought.foreign_keys.user is integer, but the primary key of 'users' is "
            "string; make them the same type.",
        ),
        (
            {"tables.users.primary_key": "household", "query": f"{QUERY[:-4]}household"},
            "2024-04-01",
            "tables.users ('{folder}/users'): primary key household = 7 stands in 2 rows; keep "
            "one row per household.",
        ),
        (
            {"tables.users.primary_key": "card", "query": f"{QUERY[:-4]}card"}, "2024-04-01",
            "tables.users ('{folder}/users'): 1 of 3 rows have no card; give each row its key.",
        ),
        (
            {"tables.users.path": "{folder}/nobody"}, "2024-04-01",
            "tables.users ('{folder}/nobody') has no rows that exist at the run date; write the "
            "table or choose a later run date.",
        ),
        (
            {}, "2024-03-01",
            "tables.bought ('{folder}/bought'): the first event is at 2024-03-01 09:00:00, after "
            "the run date 2024-03-01; choose a later run date.",
        ),
        (
            {}, "2024-03-20",
            "run date 2024-03-20 leaves no room for a training anchor: the first event of "
            "'bought' is of 2024-03-01 and the earliest run date that works is 2024-03-30.",
        ),
        (
            {"query": f"{QUERY} WHERE users.mail = 'a'"}, "2024-04-01",
            "query, line 1, column 85: no column 'mail' in 'users'; did you mean 'email'? Known: "
            "card, email, household, opted_in, user.",
        ),
    ],
    ids=[
        "no table", "no column", "time is no time", "keys of two types", "key twice", "null key",
        "no users", "before the first event", "too early", "unknown column in WHERE",
    ],
)  # fmt: skip
def test_a_faulty_table_is_told_and_nothing_is_written(shop, changes, run_date, sentence, tmp_path):
    told = fault_of(shop.config(changes, tmp_path), run_date)
    assert told == "weekly_recs: " + sentence.format(folder=shop.folder)
    assert os.listdir(tmp_path) == ["config.yaml"]


def test_an_output_table_with_other_columns_is_told_first_and_stays_whole(shop, spark, tmp_path):
    output = f"{tmp_path}/recommendations"
    tables.write_source(spark.createDataFrame(drawn(DRAWN["recommendations"])), output)
    told = fault_of(shop.config({}, tmp_path), "2024-04-01")
    assert told == (
        f"weekly_recs: output.recommendations: in the table at '{output}' column 'anchor_time' is "
        f"missing, this run writes timestamp; name another path or move the table away."
    )
    assert tables.read(spark, output).toArrow().to_pylist() == [{"entity_id": 9}]
    assert sorted(os.listdir(tmp_path)) == ["config.yaml", "recommendations"]


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        (
            " WHERE users.opted_in = TRUE",
            "snapshots: no row of the entity table exists at the run date and passes the query's "
            "WHERE; there is nobody to recommend to.",
        ),
        (
            "",
            "snapshots: no purchase in any training window (anchors 2024-03-11..2024-03-11); "
            "choose another run date or a longer window.",
        ),
    ],
    ids=["nobody passes WHERE", "no purchase to learn from"],
)
def test_nothing_to_learn_or_nobody_to_mail_ends_before_training(
    shop, where, sentence, tmp_path, caplog
):
    changes = {"query": QUERY + where, "snapshots.train_anchors": 1}
    assert fault_of(shop.config(changes, tmp_path), "2024-04-01") == f"weekly_recs: {sentence}"
    assert (
        "tables.bought: of 4 rows, skipped where item is null: 1, item points to no row: 1"
        in caplog.text
    )
    assert not (tmp_path / "recommendations").exists()


def test_a_backtest_that_nobody_bought_after_ends_in_one_sentence(shop, tmp_path):
    config = shop.config({"snapshots.train_anchors": 1}, tmp_path)
    backtest = runpy.run_path(str(JOB.with_name("backtest.py")))["main"]
    assert fault_of(config, "2024-04-01", backtest, "--as-of") == (
        "backtest: nobody who existed on 2024-04-01 bought anything in the 7 days after it; choose "
        "a date that the purchases reach beyond."
    )


def test_a_spark_without_delta_is_told_how_to_get_it(tmp_path):
    config = Shop(tmp_path).config({}, tmp_path)
    bare = tmp_path / "conf"
    bare.mkdir()
    ended = subprocess.run(
        [sys.executable, str(JOB), "--config", config, "--run-date", "2024-04-01"],
        env=os.environ | {"SPARK_CONF_DIR": str(bare)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.strip().splitlines()[-1] == (
        "weekly_recs: this Spark session has no Delta; run `python -m recspark.install` once in "
        "the active environment, or pass spark-submit --packages and the two spark.sql settings "
        "of conf/spark-defaults.conf."
    )
