"""How rows come together before a kernel."""

from itertools import chain
from types import SimpleNamespace

import pytest

from recspark.partitions import by_key


def test_equal_keys_share_a_partition_and_few_rows_are_not_merged_into_one_task(spark, table):
    rows = table("entity:bigint | item:bigint\n1 | 5\n1 | 6\n2 | 7\n3 | 8\n4 | 9\n1 | 7")
    spread = by_key(rows, "entity")
    assert spread.rdd.getNumPartitions() == int(spark.conf.get("spark.sql.shuffle.partitions"))
    together = spread.rdd.glom().map(lambda part: sorted({row.entity for row in part})).collect()
    assert sorted(chain.from_iterable(together)) == [1, 2, 3, 4]


@pytest.mark.parametrize(("number", "asked"), [("8", (8, "entity")), ("auto", ("entity",))])
def test_a_platform_that_chooses_the_number_itself_is_left_to_it(number, asked):
    frame = SimpleNamespace(
        sparkSession=SimpleNamespace(conf={"spark.sql.shuffle.partitions": number}),
        repartition=lambda *given: given,
    )
    assert by_key(frame, "entity") == asked
