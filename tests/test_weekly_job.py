"""The whole weekly job on the checkerboard shop: once, and once more in another future."""

import json
import math
import os
import runpy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import checkerboard
import pytest
from checkerboard import RUN_DATE, K, item_id
from mlflow import MlflowClient

from recspark import tables
from recspark.prepare import pair_features
from recspark.prepare.feature_schema import FeatureSchema
from recspark.prepare.retrieval import SOURCES

main = runpy.run_path(str(Path(__file__).parents[1] / "jobs" / "weekly_recs.py"))["main"]


@dataclass
class Weekly:
    """The job in its folder, and what it wrote the first and the second time."""

    folder: Path
    shop: checkerboard.Shop
    first: list
    second: list

    def by_user(self):
        lists = {}
        for row in self.first:
            lists.setdefault(row["entity_id"], []).append(row)
        return lists


def written(spark, folder):
    frame = tables.read(spark, f"{folder}/recommendations").orderBy("entity_id", "rank")
    return frame.toArrow().to_pylist()


@pytest.fixture(scope="module")
def weekly(spark, tmp_path_factory):
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # MLflow sets it, and it goes before the config
    folder, shop = tmp_path_factory.mktemp("weekly"), checkerboard.shop()
    content = checkerboard.settings_of(folder)
    config = checkerboard.write_config(content, folder)
    shop.write(spark, folder)
    main.callback(config=config, run_date=f"{RUN_DATE:%Y-%m-%d}")
    first = written(spark, folder)
    shop.with_another_future().write(spark, folder)
    # Under another name, or the equal model of the second run would leave the first's to serve.
    content["tracking"]["model_name"] = "another_future"
    config = checkerboard.write_config(content, folder)
    main.callback(config=config, run_date=f"{RUN_DATE:%Y-%m-%d}")
    return Weekly(folder=folder, shop=shop, first=first, second=written(spark, folder))


@pytest.fixture(scope="module")
def client(weekly):
    return MlflowClient(tracking_uri=f"sqlite:///{weekly.folder}/mlflow.db")


@pytest.fixture(scope="module")
def first_run(weekly, client):
    return client.get_run(weekly.first[0]["run_id"])


def test_everybody_who_may_be_mailed_gets_k_items_in_strict_order(weekly):
    lists = weekly.by_user()
    assert sorted(lists) == weekly.shop.opted_in()
    assert {5, 27, checkerboard.LATE_USER}.isdisjoint(lists)
    assert checkerboard.COLD_USER in lists
    for rows in lists.values():
        assert [row["rank"] for row in rows] == list(range(1, K + 1))
        assert len({row["item_id"] for row in rows}) == K
        scores = [row["score"] for row in rows]
        assert all(map(math.isfinite, scores))
        assert all(better > worse for better, worse in pairwise(scores))


def test_only_items_on_sale_at_the_run_date_are_recommended(weekly):
    on_sale = {item_id(number) for number in range(checkerboard.NUM_ITEMS)}
    on_sale.remove(item_id(checkerboard.WITHDRAWN))
    recommended = {row["item_id"] for row in weekly.first}
    assert recommended <= on_sale
    assert len(recommended) > K


def test_users_are_recommended_the_items_of_their_parity(weekly):
    rows = [row for row in weekly.first if row["entity_id"] != checkerboard.COLD_USER]
    right = [checkerboard.parity(row["item_id"]) == row["entity_id"] % 2 for row in rows]
    assert sum(right) > 0.9 * len(rows)
    withheld = [
        int(row["item_id"][1:]) not in checkerboard.rotation(row["entity_id"]) for row in rows
    ]
    assert sum(withheld) < 0.1 * len(rows)


def test_rows_say_for_what_and_from_what_they_were_made(weekly):
    row = weekly.first[0]
    assert row["run_date"] == RUN_DATE.date()
    assert row["anchor_time"] == RUN_DATE
    assert (row["query"], row["model_name"]) == ("checkerboard", "recspark-checkerboard")
    assert {(row["model_version"], row["run_id"]) for row in weekly.first} == {(1, row["run_id"])}
    assert all(row["reason"] for row in weekly.first)


def test_the_first_model_is_champion_and_its_run_holds_what_it_was_made_from(first_run, client):
    version = client.get_model_version("recspark-checkerboard", "1")
    assert version.run_id == first_run.info.run_id
    assert len(client.search_model_versions("name = 'recspark-checkerboard'")) == 1
    assert first_run.info.status == "FINISHED"
    assert first_run.data.params["model.width"] == "16"
    assert first_run.data.params["snapshots.train_anchors"] == "3"
    assert first_run.data.params["seed"] == "5"
    for name in checkerboard.DECLARED:
        assert first_run.data.tags[f"table_version.{name}"] == "0"
    named = {one.dataset.name: one.dataset.digest for one in first_run.inputs.dataset_inputs}
    assert named == dict.fromkeys(checkerboard.DECLARED, "v0")


def test_the_model_beats_popularity_on_the_held_out_window(first_run):
    measured, name = first_run.data.metrics, f"map_at_{K}"
    assert measured[f"test/{name}"] > 2 * measured[f"test/{name}/popularity"]
    assert measured[f"test/{name}"] > measured[f"test/{name}/personal_frequency"]
    assert measured["test/map_difference_low"] > 0
    assert measured[f"val/{name}"] > measured[f"val/{name}/popularity"]
    assert {f"test/{metric}_at_{K}" for metric in ("ndcg", "recall", "precision", "hit_rate")} <= (
        measured.keys()
    )


def test_what_groups_of_features_are_worth_is_tracked(first_run):
    asked = {
        name.rpartition("/")[2]: value
        for name, value in first_run.data.metrics.items()
        if name.startswith(f"val/map_at_{K}_without/")
    }
    assert set(asked) == set(pair_features.groups(FeatureSchema(other_tables=("returns",))))
    assert all(0 < value <= 1 for value in asked.values())


def test_what_share_of_the_labels_each_source_finds_is_tracked(first_run):
    for split in ("train", "validation", "test"):
        found = {
            name.rpartition("/")[2]: value
            for name, value in first_run.data.metrics.items()
            if name.startswith(f"candidates/{split}_recall/")
        }
        assert set(found) == {"all", *SOURCES}
        assert 0 < max(found[source] for source in SOURCES) <= found["all"] <= 1


def test_what_was_chosen_is_kept_with_its_reason(first_run, client, tmp_path):
    file = client.download_artifacts(first_run.info.run_id, "choices.json", str(tmp_path))
    chosen = json.loads(Path(file).read_text(encoding="utf-8"))
    assert set(chosen) == {
        "candidates", "half-lives", "softmax", "training anchors", "epochs",
        "classes of customers", "groups of pair features", "boosted trees",
        "weight of the graph's score",
    }  # fmt: skip
    assert chosen["training anchors"].startswith("3, ")
    assert "3 are set" in chosen["training anchors"]


def test_what_happens_after_the_run_date_changes_no_recommendation(weekly):
    changed, shop = weekly.shop.with_another_future(), weekly.shop
    assert changed.transactions.num_rows != shop.transactions.num_rows

    def told(rows):
        names = ("entity_id", "rank", "item_id", "score", "reason")
        return [tuple(row[name] for name in names) for row in rows]

    assert told(weekly.second) == told(weekly.first)


def test_a_second_run_replaces_the_rows_of_the_first(weekly):
    assert len(weekly.second) == len(weekly.first)
    assert {row["run_id"] for row in weekly.second}.isdisjoint({weekly.first[0]["run_id"]})
    assert {row["model_name"] for row in weekly.second} == {"another_future"}
