from datetime import datetime

import numpy as np
import oracle
import pyarrow as pa
import pytest
import worlds

from recspark import schema
from recspark.encodings import Encodings, TableEncoding
from recspark.prepare import neighbor_kernel, neighbors
from recspark.tables import conform

NEIGHBORS = schema.NEIGHBORS.removeprefix(f"{schema.RUN_DATE} date, ")


def test_an_event_at_the_anchor_is_visible_and_one_a_second_later_is_not(table):
    events = table("""
        event:bigint | time:timestamp      | nodes:array<bigint> | numbers:array<float> | codes:array<int>
        101          | 2024-02-29T00:00:00 | [1 11]              | [0.5]                | [2 3]
        102          | 2024-03-01T00:00:00 | [1 12]              | [1.5]                | [4 5]
        103          | 2024-03-01T00:00:01 | [1 13]              | [2.5]                | [6 7]
        104          | 2024-02-28T00:00:00 | [-1 11]             | [3.5]                | [8 9]
        105          |                     | [1 11]              | [4.5]                | [8 9]
        """)
    queries = table("""
        node:bigint | anchor_time:timestamp
        1           | 2024-03-01T00:00:00
        1           | 2024-02-28T23:59:59
        2           | 2024-03-01T00:00:00
        -1          | 2024-03-01T00:00:00
        """)
    [row] = neighbors.newest(events, queries, position=0, fanout=9, seed=7).toArrow().to_pylist()
    assert (row["node"], worlds.hour(row["anchor_time"])) == (1, 0)
    assert row["ages"] == [0.0, 1.0]
    assert row["nodes"] == [1, 12, 1, 11]
    assert row["numbers"] == [1.5, 0.5]
    assert row["codes"] == [4, 5, 2, 3]


def test_without_queries_there_are_no_neighbours(table):
    events = table("""
        event:bigint | time:timestamp | nodes:array<bigint> | numbers:array<float> | codes:array<int>
        101          | 2024-02-29T00  | [1]                 | []                   | []
        """)
    queries = table("""
        node:bigint | anchor_time:timestamp
        1           | 2024-03-01T00
        """).limit(0)
    assert neighbors.newest(events, queries, position=0, fanout=9, seed=7).toArrow().num_rows == 0


def test_hop_2_surrounds_what_hop_1_reached_and_at_complete_anchors_all_that_exists(table):
    purchases = table("""
        event:bigint | time:timestamp | nodes:array<bigint> | numbers:array<float> | codes:array<int>
        1            | 2024-03-01T00  | [0 10]              | [1]                  | []
        2            | 2024-03-02T00  | [1 10]              | [2]                  | []
        3            | 2024-03-03T00  | [1 11]              | [3]                  | []
        4            | 2024-03-04T00  | [2 12]              | [4]                  | []
        5            | 2024-03-05T00  | [0 -1]              | [5]                  | []
        6            | 2024-03-06T00  | [1 13]              | [6]                  | []
        """)
    views = table("""
        event:bigint | time:timestamp | nodes:array<bigint> | numbers:array<float> | codes:array<int>
        7            | 2024-03-02T12  | [11 0]              | []                   | [3]
        8            | 2024-03-07T12  | [12 0]              | []                   | [4]
        """)
    snapshots = table("""
        split:string | anchor_time:timestamp | entity:bigint
        train        | 2024-03-02T00         | 0
        train        | 2024-03-02T00         | 3
        test         | 2024-03-07T00         | 0
        score        | 2024-03-07T00         | 0
        """)
    items = table("""
        node:bigint | start_time:timestamp | end_time:timestamp
        10          |                      | 2024-03-07T00
        11          | 2024-03-07T00        | 2024-03-08T00
        12          |                      |
        13          | 2024-03-08T00        |
        """)
    key = ("user_id", "users"), ("item_id", "items")
    encodings = Encodings(
        entity_table="users",
        item_table="items",
        target_table="purchases",
        target_entity_key="user_id",
        target_item_key="item_id",
        target_price_column=None,
        target_quantity_column=None,
        nodes={"users": TableEncoding(), "items": TableEncoding()},
        events={
            "purchases": TableEncoding(foreign_keys=key),
            "views": TableEncoding(foreign_keys=key[::-1]),
        },
        text_buckets=8,
    )
    events = {"purchases": purchases, "views": views}
    first = neighbors.hop_1(encodings, events, snapshots, fanout=2, seed=7).localCheckpoint()
    second = neighbors.hop_2(
        encodings, events, first, nodes={"items": items},
        complete_anchors=[datetime(2024, 3, 7)], fanout=2, seed=7,
    )  # fmt: skip
    rows = conform(first.union(second), NEIGHBORS, "neighbors").toArrow().to_pylist()
    drawn = [(r["hop"], r["relation"], r["node"], r["anchor_time"].day, r["nodes"]) for r in rows]
    assert sorted(drawn) == [
        (1, "purchases.user_id", 0, 2, [0, 10]),
        (1, "purchases.user_id", 0, 7, [0, -1, 0, 10]),
        (1, "views.user_id", 0, 7, [11, 0]),
        (2, "purchases.item_id", 10, 2, [1, 10, 0, 10]),  # bought by entity 0 before
        (2, "purchases.item_id", 10, 7, [1, 10, 0, 10]),  # withdrawn by now, but reached
        (2, "purchases.item_id", 11, 7, [1, 11]),  # on sale from this anchor
        (2, "purchases.item_id", 12, 7, [2, 12]),  # on sale always, reached by nobody
        (2, "views.item_id", 11, 7, [11, 0]),
    ]


def sample(events, queries, *, batch_rows=5, num_partitions=1, position=0, fanout=3, seed=7):
    """Both passes of the kernel without Spark, over batches and parts of `batch_rows` rows."""
    rows = worlds.event_table([e for e in events if (e.nodes[position] or 0) >= 0])
    rows = pa.table(
        [
            pa.array([n[position] for n in rows["nodes"].to_pylist()], pa.int64()),
            rows["time"].cast(pa.int64()),
            pa.array([oracle.draw(seed, e) for e in rows["event"].to_pylist()], pa.int64()),
            *rows.select(["event", "nodes", "numbers", "codes"]).columns,
        ],
        names=["node", "time", "draw", "event", "nodes", "numbers", "codes"],
    )
    asked = worlds.query_table(queries)
    asked = asked.set_column(1, "anchor_time", asked["anchor_time"].cast(pa.int64()))
    anchors = tuple(sorted(set(asked["anchor_time"].to_pylist())))
    draw = neighbor_kernel.Draw(anchors=anchors, fanout=fanout, num_partitions=num_partitions)
    # Each batch is packed alone, as if it came from a part of its own.
    packed = [p for b in rows.to_batches(batch_rows) for p in draw.pack_events(iter([b]))]
    packed += [p for b in asked.to_batches(batch_rows) for p in draw.pack_queries(iter([b]))]
    shuffled = pa.Table.from_batches(packed)
    answers = {}
    for number in range(num_partitions):
        mine = shuffled.filter(pa.compute.equal(shuffled["partition"], number))
        for batch in draw.newest(iter(mine.to_batches())):
            answers |= worlds.by_query(batch)
    return answers


def hub(num_events):
    """Events of user 0, four at each hour before hour 100, and one of user 1."""
    many = [
        oracle.Event(id=number * 37 % 10_007, time=100 - number // 4, nodes=(0, number))
        for number in range(num_events)
    ]
    return [*many, oracle.Event(id=99_999, time=0, nodes=(1, 5))]


@pytest.mark.parametrize("batch_rows", [1, 7, 10_000])
def test_a_hub_whose_events_arrive_in_many_batches_is_drawn_like_any_node(batch_rows):
    queries = [(node, anchor) for node in (0, 1, 2) for anchor in worlds.ANCHORS]
    expected = oracle.newest(hub(900), queries, position=0, fanout=3, seed=7)
    assert len(expected) == 7
    answers = sample(hub(900), queries, batch_rows=batch_rows, num_partitions=3)
    assert answers == worlds.as_answers(expected)


def event_rows(node, times):
    """Rows as they reach the first pass: of one node, at these microseconds, without payload."""
    times = np.array(times, np.int64)
    payload = [
        pa.array([values] * len(times), pa.list_(kind))
        for values, kind in (([node], pa.int64()), ([], pa.float32()), ([], pa.int32()))
    ]
    columns = [pa.array(np.full_like(times, node)), *[pa.array(times)] * 3, *payload]
    return pa.RecordBatch.from_arrays(columns, schema=neighbor_kernel._EVENT_ROWS)


def test_a_hub_leaves_a_batch_with_fanout_events_per_anchor_and_none_from_the_future():
    draw = neighbor_kernel.Draw(anchors=(0, 500), fanout=3, num_partitions=1)
    [packed] = draw.pack_events(iter([event_rows(node=4, times=range(-1000, 1000))]))
    [blob] = packed["events"]
    kept = pa.ipc.read_record_batch(blob.as_buffer(), neighbor_kernel._EVENT_ROWS)
    assert sorted(kept["time"].to_pylist()) == [-2, -1, 0, 498, 499, 500]


def test_events_of_one_second_are_drawn_by_their_seeded_hash_and_seeds_differ():
    events = [oracle.Event(id=number, time=0, nodes=(0, number)) for number in range(50)]
    drawn = {seed: sample(events, [(0, 0)], seed=seed)[0, 0][1][1::2] for seed in (7, 8)}
    for seed, items in drawn.items():
        assert items == sorted(range(50), key=lambda n: oracle.draw(seed, n))[:3]
    assert drawn[7] != drawn[8]


def test_what_happens_after_an_anchor_changes_nothing_for_it():
    past = hub(40)
    future = [e._replace(id=e.id + 50_000, time=101 + e.id % 5) for e in past]
    queries = [(0, 100), (1, 100)]
    with_future = sample(past + future, [*queries, (0, 200)])
    assert with_future.pop((0, 200)) != with_future[0, 100]
    assert with_future == sample(past, queries)


def test_ages_are_days_and_keep_parts_of_a_second():
    anchor = 2 * 86_400_000_000 + 864_000  # two days and 0.864 seconds
    draw = neighbor_kernel.Draw(anchors=(anchor,), fanout=1, num_partitions=1)
    asked = pa.RecordBatch.from_pydict({"node": [4], "anchor_time": [anchor]})
    packed = [*draw.pack_events(iter([event_rows(4, [0])])), *draw.pack_queries(iter([asked]))]
    [answer] = draw.newest(iter(packed))
    assert answer["ages"][0].as_py() == [pytest.approx(2.00001, abs=5e-7)]
