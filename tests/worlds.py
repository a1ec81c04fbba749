"""Many small generated shops, stacked into one table under a world key, so that Spark runs once.

A shop is a list of events of users 0 to 3 on items 0 to 3, at whole hours from `EPOCH`. World w
has the nodes w * 8 to w * 8 + 3 of both tables, so that no shop can touch another.
"""

from datetime import UTC, datetime, timedelta

import oracle
import pyarrow as pa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

EPOCH = datetime(2024, 3, 1, tzinfo=UTC)
ANCHORS = (-100, 0, 1, 100)  # hours from EPOCH
NODES_PER_WORLD = 8

# Leaks live one step either side of an anchor; equal times meet often.
hours = st.sampled_from([a + step for a in ANCHORS for step in (-1, 0, 1)]) | st.integers(-300, 300)
events = st.lists(
    st.tuples(st.integers(0, 3), st.none() | st.integers(-1, 3), hours), max_size=14
)  # (user, item, hours)
ids = st.permutations(range(14))
shops = st.tuples(events, ids)


def fixed(strategy, count):
    """The same `count` examples of a strategy in every run."""
    examples = []

    @settings(
        max_examples=count, phases=[Phase.generate], database=None, derandomize=True,
        deadline=None, suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy)
    def collect(example):
        examples.append(example)

    collect()
    assert len(examples) >= count
    return examples[:count]


def stacked(shops):
    """All shops' events as one list for the oracle, in the nodes and ids of their worlds."""
    return [
        oracle.Event(
            id=world * 100 + ids[row],
            time=hour,
            nodes=(_node(world, user), _node(world, item)),
            numbers=(float(row), float(world)),
            codes=(row % 3,),
        )
        for world, (rows, ids) in enumerate(shops)
        for row, (user, item, hour) in enumerate(rows)
    ]


def queries(num_worlds):
    """Every user or item node of every world at every anchor, as (node, hours)."""
    return [
        (world * NODES_PER_WORLD + node, anchor)
        for world in range(num_worlds)
        for node in range(4)
        for anchor in ANCHORS
    ]


def moment(hour):
    """The time of an hour, UTC."""
    return EPOCH + timedelta(hours=hour)


def hour(moment):
    """The inverse of `moment`, whether it has a zone or not."""
    return round((moment.replace(tzinfo=UTC) - EPOCH) / timedelta(hours=1))


def event_table(events):
    """Events of the oracle as Arrow, with the columns of schema.EVENTS that sampling reads."""
    return pa.table(
        {
            "event": pa.array([e.id for e in events], pa.int64()),
            "time": pa.array([moment(e.time) for e in events], pa.timestamp("us", tz="UTC")),
            "nodes": pa.array([e.nodes for e in events], pa.list_(pa.int64())),
            "numbers": pa.array([e.numbers for e in events], pa.list_(pa.float32())),
            "codes": pa.array([e.codes for e in events], pa.list_(pa.int32())),
        }
    )


def query_table(queries):
    """Queries (node, hours) as Arrow."""
    nodes, hours = zip(*queries, strict=True)
    times = pa.array(list(map(moment, hours)), pa.timestamp("us", tz="UTC"))
    return pa.table({"node": pa.array(nodes, pa.int64()), "anchor_time": times})


def by_query(rows):
    """Rows of schema.NEIGHBORS as {(node, hours): (ages in hours, nodes, numbers, codes)}."""
    return {
        (row["node"], hour(row["anchor_time"])): (
            [round(age * 24) for age in row["ages"]], row["nodes"], row["numbers"], row["codes"],
        )
        for row in rows.to_pylist()
    }  # fmt: skip


def as_answers(drawn):
    """The oracle's answer in the form of `by_query`; a foreign key that is None becomes -1."""
    return {
        (node, anchor): (
            [anchor - e.time for e in events],
            [-1 if n is None else n for e in events for n in e.nodes],
            [number for e in events for number in e.numbers],
            [code for e in events for code in e.codes],
        )
        for (node, anchor), events in drawn.items()
    }


def _node(world, number):
    return number if number is None or number < 0 else world * NODES_PER_WORLD + number
