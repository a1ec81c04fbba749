import json
from datetime import date

import pytest
from delta.tables import DeltaTable
from py4j.protocol import Py4JJavaError

from recspark.recommend import write

MONDAY, NEXT_MONDAY = date(2026, 11, 16), date(2026, 11, 23)
PROVENANCE = write.Provenance(
    input_versions={"users": 3, "transactions": 0}, model_name="recspark-shop", model_version=2,
    run_id="run-7",
)  # fmt: skip
HEADER = "entity_id:bigint | rank:int | item_id:string | score:double | reason:string"
TWO_USERS = """
    1 | 1 | tea | 0.9 | bought before
    1 | 2 | jam | 0.4 |
    2 | 1 | jam | 7.5 | popular now
    2 | 2 | tea | -1  |
    """


@pytest.fixture
def rows(table, spark):
    """Recommendations as the job hands them over: what is drawn, and the columns of the run."""

    def build(text, run_date=MONDAY):
        return table(HEADER + text).selectExpr(
            "*", f"date'{run_date}' as run_date", "'shop' as query",
            "'recspark-shop' as model_name",
            "2 as model_version", "timestamp'2026-11-16 00:00:00' as anchor_time",
            "'run-7' as run_id",
        )  # fmt: skip

    return build


def write_to(path, frame, run_date=MONDAY, **changed):
    expected = {"num_entities": 2, "num_items_on_sale": 50, "k": 2} | changed
    return write.write(
        frame, str(path), entity_type="bigint", item_type="string", run_date=run_date,
        query="shop", provenance=PROVENANCE, **expected,
    )  # fmt: skip


def written(spark, path):
    frame = spark.read.format("delta").load(str(path))
    columns = frame.select("run_date", "entity_id", "rank", "item_id", "score")
    return sorted(tuple(row) for row in columns.collect())


EXPECTED = [(1, 1, "tea", 0.9), (1, 2, "jam", 0.4), (2, 1, "jam", 7.5), (2, 2, "tea", -1.0)]


def test_a_run_replaces_its_own_rows_and_leaves_those_of_other_dates(spark, rows, tmp_path):
    path = tmp_path / "recommendations"
    write_to(path, rows(TWO_USERS))
    write_to(path, rows(TWO_USERS.replace("0.9", "0.8"), NEXT_MONDAY), NEXT_MONDAY)
    version = write_to(path, rows(TWO_USERS))
    later = [(1, 1, "tea", 0.8), *EXPECTED[1:]]
    assert written(spark, path) == [(MONDAY, *row) for row in EXPECTED] + [
        (NEXT_MONDAY, *row) for row in later
    ]
    newest = DeltaTable.forPath(spark, str(path)).history(1).collect()[0]
    assert newest["version"] == version
    assert json.loads(newest["userMetadata"]) == {
        "input_versions": {"transactions": 0, "users": 3}, "model_name": "recspark-shop",
        "model_version": 2, "run_id": "run-7",
    }  # fmt: skip

    twice = rows(TWO_USERS.replace("2 | tea", "2 | jam"))
    with pytest.raises(RuntimeError, match="entity_id 2 has an item twice"):
        write_to(path, twice)
    assert written(spark, path)[:4] == [(MONDAY, *row) for row in EXPECTED]

    for bad, check in [
        ("\n 3 | 0 | tea | 0.5 |", "rank_from_1"),
        ("\n 3 | 1 | tea | nan |", "score_finite"),
        ("\n 3 | 1 |     | 0.5 |", "keys_present"),
    ]:
        with pytest.raises(Py4JJavaError, match=check):
            rows(bad).write.format("delta").mode("append").save(str(path))
    assert len(written(spark, path)) == 8


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("2 | 2 | tea | -1  |\n", "\n", "entity_id 2 has not exactly 2 rows"),
        ("1 | 2 | jam", "1 | 3 | jam", "entity_id 1 has ranks other than 1, 2, 3"),
        ("0.4", "0.9", "entity_id 1 has scores that do not decrease by rank"),
        ("7.5", "inf", "entity_id 2 has a score that is not finite"),
        ("7.5", "nan", "entity_id 2 has a score that is not finite"),
        ("2 | tea", "2 | ", "entity_id 2 has a null"),
    ],
)
def test_a_broken_promise_is_told_and_nothing_is_written(rows, tmp_path, before, after, fault):
    path = tmp_path / "recommendations"
    assert before in TWO_USERS
    with pytest.raises(RuntimeError, match=fault):
        write_to(path, rows(TWO_USERS.replace(before, after)))
    assert not path.exists()


def test_a_missing_entity_is_told(rows, tmp_path):
    with pytest.raises(RuntimeError, match="rows for 2 entities, eligible are 3"):
        write_to(tmp_path / "recommendations", rows(TWO_USERS), num_entities=3)


def test_fewer_items_on_sale_than_k_give_fewer_rows(rows):
    one_each = rows("\n 1 | 1 | tea | 0.9 |\n 2 | 1 | tea | 0.1 |")
    write.verify(one_each, num_entities=2, rows_per_entity=1)


def test_no_item_on_sale_is_refused(rows, tmp_path):
    with pytest.raises(ValueError, match="no item is on sale for run date 2026-11-16"):
        write_to(tmp_path / "recommendations", rows(TWO_USERS), num_items_on_sale=0)


def test_a_table_with_other_columns_is_refused_with_the_way_out(rows, table, tmp_path):
    path = tmp_path / "recommendations"
    table("entity_id:bigint\n1").write.format("delta").save(str(path))
    with pytest.raises(ValueError, match=r"column 'anchor_time' is missing.*name another path"):
        write_to(path, rows(TWO_USERS))
