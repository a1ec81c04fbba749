import oracle
import pytest
import worlds
from hypothesis import given
from hypothesis import strategies as st

from recspark.prepare import neighbors

SEED = 7
later = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 300)), max_size=4)


@given(worlds.events, later, st.integers(0, 1))
def test_the_oracle_cannot_see_the_future(past, future, position):
    events = [
        oracle.Event(id=number, time=hour, nodes=(user, item))
        for number, (user, item, hour) in enumerate(past + future)
    ]
    queries = [(node, 0) for node in range(4)]
    draw = {"position": position, "fanout": 3, "seed": SEED}
    assert oracle.newest(events, queries, **draw) == oracle.newest(
        events[: len(past)], queries, **draw
    )


@pytest.mark.parametrize(("position", "num_partitions"), [(0, 1), (0, 3), (1, 7)])
def test_spark_samples_what_the_oracle_samples(spark, position, num_partitions):
    events = worlds.stacked(worlds.fixed(worlds.shops, count=200))
    queries = worlds.queries(200)
    draw = {"position": position, "fanout": 3, "seed": SEED}
    rows = neighbors.newest(
        spark.createDataFrame(worlds.event_table(events)),
        spark.createDataFrame(worlds.query_table(queries)),
        num_partitions=num_partitions,
        **draw,
    )
    expected = worlds.as_answers(oracle.newest(events, queries, **draw))
    assert len(expected) > 500, "the worlds are too empty to show anything"
    assert worlds.by_query(rows.toArrow()) == expected
