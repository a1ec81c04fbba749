"""How many epochs a run trains for when its settings say nothing."""

from datetime import datetime
from types import SimpleNamespace

import pytest

from recspark import schema
from recspark.pipeline import choices


@pytest.mark.parametrize(
    ("num_labels", "expected"),
    [(0, 6), (18_000, 6), (20_000, 5), (30_000, 4), (34_000, 3), (200_000, 3)],
)
def test_few_labels_are_seen_more_often(num_labels, expected):
    assert choices.enough_epochs(num_labels) == expected


@pytest.mark.parametrize(("asked", "expected"), [(None, 4), (9, 9)])
def test_labels_of_training_snapshots_are_counted_unless_the_settings_say(
    spark, monkeypatch, asked, expected
):
    monkeypatch.setattr(choices, "LABELS_WANTED", 15)
    anchor = datetime(2026, 1, 1)
    snapshots = spark.createDataFrame(
        [
            ("train", anchor, 1, [7, 8]),
            ("train", anchor, 2, [7]),
            ("train", anchor, 3, [5]),
            ("validation", anchor, 1, [1, 2, 3, 4, 5, 6, 7, 8]),
        ],
        f"{schema.SPLIT} string, {schema.ANCHOR_TIME} timestamp, {schema.ENTITY} bigint, "
        f"{schema.LABELS} array<bigint>",
    )
    training = SimpleNamespace(max_epochs=asked)
    run = SimpleNamespace(settings=SimpleNamespace(training=training))
    assert choices.max_epochs(run, SimpleNamespace(snapshots=snapshots)) == expected
