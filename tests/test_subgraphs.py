import numpy as np
import pytest

from recspark import delta_log, tables
from recspark.encodings import Encodings, Number, TableEncoding
from recspark.prepare import subgraphs

KEYS = (("user_id", "users"), ("item_id", "items"))
ENCODINGS = Encodings(
    entity_table="users", item_table="items", target_table="bought",
    target_entity_key="user_id", target_item_key="item_id",
    target_price_column=None,
    target_quantity_column=None,
    nodes={"users": TableEncoding(numbers=(Number(column="age", center=0, scale=1),)),
           "items": TableEncoding()},
    events={"bought": TableEncoding(foreign_keys=KEYS)}, text_buckets=8,
)  # fmt: skip


@pytest.fixture
def world(table, spark, tmp_path):
    """Three users, items 0 to 2, one anchor; user 2 has no history."""
    frames = {
        "snapshots": table("""
            split:string | anchor_time:timestamp | entity:bigint | labels:array<bigint>
            train        | 2024-03-01T00:00:00   | 0             | [2]
            train        | 2024-03-01T00:00:00   | 1             | [0 1]
            train        | 2024-03-01T00:00:00   | 2             | [1]
            """),
        "candidates": table("""
            split:string | anchor_time:timestamp | entity:bigint | items:array<bigint> | features:packed | is_label:array<boolean>
            train        | 2024-03-01T00:00:00   | 1             | [1]                 | [0.1]                 | [true]
            train        | 2024-03-01T00:00:00   | 0             | [2 0]               | [0.2 0.3]             | [true false]
            train        | 2024-03-01T00:00:00   | 2             | [0]                 | [0.4]                 | [false]
            """),
        "entities": table("""
            node:bigint | numbers:array<float> | codes:array<int> | times:array<double> | buckets:array<int>
            0           | [10]                 | []               | []                  | []
            1           | [11]                 | []               | []                  | [3 4]
            2           | [12]                 | []               | []                  | [5]
            """),
        "hop_1": table("""
            relation:string | anchor_time:timestamp | node:bigint | ages:array<float> | nodes:array<bigint> | numbers:array<float> | codes:array<int>
            bought.user_id  | 2024-03-01T00:00:00   | 0           | [1 5]             | [0 2 0 1]           | []                   | []
            bought.user_id  | 2024-03-01T00:00:00   | 1           | [2]               | [1 1]               | []                   | []
            """),
        "hop_2": table("""
            relation:string | anchor_time:timestamp | node:bigint | ages:array<float> | nodes:array<bigint> | numbers:array<float> | codes:array<int>
            bought.item_id  | 2024-03-01T00:00:00   | 1           | [2 5]             | [1 1 0 1]           | []                   | []
            bought.item_id  | 2024-03-01T00:00:00   | 2           | [1]               | [0 2]               | []                   | []
            """),
    }  # fmt: skip
    frames["frontier"] = subgraphs.frontier(ENCODINGS, frames["hop_2"], frames["entities"])
    files = {}
    for name in ("hop_2", "frontier"):
        path = str(tmp_path / name)
        frame = frames[name].selectExpr("1 AS run", "*")
        tables.replace_slice(frame, path, slice_values={"run": "1"})
        stored = delta_log.data_files(spark, path, -1, {"run": "1"})
        files[name] = tuple(file.path for file in stored)
    frames["files"] = subgraphs.HopTwoFiles(neighbors=files["hop_2"], frontier=files["frontier"])
    return frames


def frame_of(world, hop_2, group_size, partitions):
    return subgraphs.of_seeds(
        ENCODINGS, snapshots=world["snapshots"], candidates=world["candidates"].repartition(partitions),
        hop_1=world["hop_1"], entities=world["entities"], hop_2=hop_2,
        group_size=group_size, seed=1,
    )  # fmt: skip


def rows_of(world, *, hop_2):
    return frame_of(world, hop_2, 64, 2).toArrow().to_pylist()


def without_empty(part):
    return {name: value for name, value in part.items() if value != []}


def test_a_group_holds_distinct_nodes_once_and_edges_as_positions(world):
    (row,) = rows_of(world, hop_2=world["files"])
    assert row["num_seeds"] == 3
    assert [without_empty(part) for part in row["nodes"]] == [
        {"hop": 0, "table": "users", "node": [0, 1, 2], "numbers": [10, 11, 12],
         "buckets": [3, 4, 5], "bucket_offsets": [0, 0, 2, 3]},
        {"hop": 1, "table": "items", "node": [1, 2]},
        {"hop": 2, "table": "users", "node": [0, 1], "numbers": [10, 11],
         "buckets": [3, 4], "bucket_offsets": [0, 0, 2]},
    ]  # fmt: skip
    inner, outer = row["edges"]
    assert (inner["hop"], inner["relation"]) == (1, "bought.user_id")
    assert inner["destinations"] == [0, 0, 1]
    assert inner["sources"] == [-1, 1, -1, 0, -1, 0]
    assert inner["ages"] == [1, 5, 2]
    assert (outer["hop"], outer["relation"]) == (2, "bought.item_id")
    assert outer["destinations"] == [0, 0, 1]
    assert outer["sources"] == [1, -1, 0, -1, 0, -1]


def test_candidates_and_labels_stay_with_their_seed(world):
    (row,) = rows_of(world, hop_2=None)
    assert row["candidate_offsets"] == [0, 2, 3, 4]
    assert row["items"] == [2, 0, 1, 0]
    assert np.frombuffer(row["features"], "<f4").tolist() == pytest.approx([0.2, 0.3, 0.1, 0.4])
    assert row["is_label"] == [True, False, True, False]
    assert row["label_offsets"] == [0, 1, 3, 4]
    assert row["labels"] == [2, 0, 1, 1]
    assert [part["hop"] for part in row["nodes"]] == [0, 1]


def test_rows_come_in_the_same_order_for_any_number_of_partitions(world, spark):
    orders = []
    for partitions in ("1", "3"):
        before = spark.conf.get("spark.sql.shuffle.partitions")
        spark.conf.set("spark.sql.shuffle.partitions", partitions)
        orders.append(frame_of(world, world["files"], 1, int(partitions)).toArrow().to_pylist())
        spark.conf.set("spark.sql.shuffle.partitions", before)
    assert sum(row["num_seeds"] for row in orders[0]) == 3
    assert len(orders[0]) > 1
    assert orders[0] == orders[1]


def test_every_node_that_hop_1_can_reach_gets_its_own_hop_2(world, table):
    nodes = table("""
        anchor_time:timestamp | table:string | node:bigint
        2024-03-01T00:00:00   | items        | 0
        2024-03-01T00:00:00   | items        | 2
        """)
    (row,) = subgraphs.of_nodes(ENCODINGS, nodes, world["files"], "score").toArrow().to_pylist()
    assert row["num_seeds"] == 0
    assert [part["node"] for part in row["nodes"]] == [[0, 2], [0]]
    assert row["edges"][0]["destinations"] == [1]
    assert row["edges"][0]["sources"] == [0, -1]
