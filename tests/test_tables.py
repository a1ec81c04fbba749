from datetime import date

import pyarrow.parquet as pq
import pytest
from delta.tables import DeltaTable

from recspark import delta_log, settings, tables

MONDAY, NEXT_MONDAY = date(2026, 11, 16), date(2026, 11, 23)
SALES = "run_date date, split string, item bigint"
CHECKS = {"item_known": "item >= 0", "split_known": "split IS NOT NULL"}


def shop(folder, **sales):
    """Settings with a table of users and one of sales in a folder."""
    return settings.parse(
        {
            "name": "shop", "seed": 7, "query": "PREDICT ...",
            "tables": {
                "users": {"path": f"{folder}/users", "primary_key": "user_id"},
                "sales": {
                    "path": f"{folder}/sales", "time_column": "sold_at",
                    "foreign_keys": {"user_id": "users"},
                } | sales,
            },
            "output": {"recommendations": f"{folder}/out", "workspace": f"{folder}/work"},
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def sources(spark, tmp_path_factory):
    """Users in two versions, and sales."""
    folder = tmp_path_factory.mktemp("sources")
    for rows in (2, 3):
        users = spark.range(rows).withColumnRenamed("id", "user_id")
        tables.write_source(users, f"{folder}/users")
    sales = "1L as user_id, timestamp'2026-11-16 08:00:00' as sold_at, 'monday' as sold_on"
    tables.write_source(spark.range(1).selectExpr(*sales.split(", ")), f"{folder}/sales")
    return folder


def test_sources_are_pinned_to_their_newest_version_whatever_is_written_later(spark, sources):
    pinned = tables.pin(spark, shop(sources))
    assert {name: source.version for name, source in pinned.items()} == {"users": 1, "sales": 0}
    assert pinned["sales"].types() == {
        "user_id": "bigint", "sold_at": "timestamp", "sold_on": "string",
    }  # fmt: skip
    tables.write_source(spark.range(9).withColumnRenamed("id", "user_id"), f"{sources}/users")
    assert pinned["users"].frame.count() == 3


@pytest.mark.parametrize(
    ("sales", "sentence"),
    [
        ({"path": "/not/there"}, "tables.sales: no Delta table at '/not/there'; write it first"),
        ({"path": None, "name": "not_there"}, "tables.sales: no Delta table at 'not_there'"),
        ({"price_column": "sold_for"}, "tables.sales: no column 'sold_for' in '"),
        (
            {"price_column": "sold_on"},
            "tables.sales: price_column 'sold_on' is string; make it a number or leave "
            "price_column out.",
        ),
        ({"time_column": "sold"}, "did you mean 'sold_on'? Known: sold_at, sold_on, user_id."),
        (
            {"time_column": "sold_on"},
            "tables.sales: time column 'sold_on' is string; make it a timestamp or a date.",
        ),
    ],
)
def test_a_source_that_is_not_as_declared_is_told(spark, sources, sales, sentence):
    with pytest.raises(ValueError, match=r"^tables\.sales: ") as fault:
        tables.pin(spark, shop(sources, **sales))
    assert sentence in str(fault.value)


def test_a_frame_conforms_or_the_column_is_named(table):
    drawn = table("split:string | item:bigint | run_date:string | note:string")
    with pytest.raises(ValueError, match="snapshots: run_date should be date, is string") as fault:
        tables.conform(drawn, SALES, "snapshots")
    assert "Present: ['item', 'note', 'run_date', 'split']" in str(fault.value)
    dated = drawn.selectExpr("cast(run_date as date) as run_date", "split", "item", "note")
    assert tables.conform(dated, SALES, "snapshots").columns == ["run_date", "split", "item"]
    with pytest.raises(ValueError, match="snapshots: item should be bigint, is missing"):
        tables.conform(dated.drop("item"), SALES, "snapshots")


def test_a_write_replaces_its_slice_and_nothing_else(spark, table, tmp_path):
    path = str(tmp_path / "sales")

    def write(day, splits, text):
        drawn = table(f"split:string | item:bigint\n{text}")
        frame = drawn.selectExpr(f"date'{day}' as run_date", "split", "item")
        owned = {"run_date": day, "split": splits}
        return tables.replace_slice(frame, path, slice_values=owned)

    def rows():
        return sorted((r.run_date, r.split, r.item) for r in tables.read(spark, path).collect())

    write(MONDAY, ("train", "test"), "train | 1\ntrain | 2\ntest | 3")
    write(NEXT_MONDAY, "train", "train | 4")
    expected = [
        (MONDAY, "test", 5), (MONDAY, "train", 1), (MONDAY, "train", 2), (NEXT_MONDAY, "train", 4),
    ]  # fmt: skip
    write(MONDAY, "test", "test | 5")
    assert rows() == expected
    version = write(MONDAY, "test", "test | 5")
    assert rows() == expected
    assert version == delta_log.version_now(spark, path) == 3
    assert delta_log.version_now(spark, str(tmp_path / "nothing here")) == -1

    def files(after=-1, **owned):
        return delta_log.data_files(spark, path, after, owned)

    assert sum(file.num_rows for file in files()) == 4
    of_train = files(run_date=MONDAY, split=("train", "validation"))
    assert sum(file.num_rows for file in of_train) == 2
    for file in of_train:
        assert pq.read_metadata(file.path).num_rows == file.num_rows
    assert [file.num_rows for file in files(after=2, split="test")] == [1]
    assert files(after=2, split="train") == []


def test_a_table_left_without_some_checks_gets_them_with_the_next_write(spark, table, tmp_path):
    path = str(tmp_path / "sales")
    frame = table("split:string | item:bigint\ntrain | 1").selectExpr(
        f"date'{MONDAY}' as run_date", "split", "item"
    )
    frame.limit(0).write.format("delta").partitionBy("run_date").save(path)
    spark.sql(f"ALTER TABLE delta.`{path}` ADD CONSTRAINT item_known CHECK (item >= 0)")
    tables.replace_slice(frame, path, slice_values={"run_date": MONDAY}, checks=CHECKS)
    properties = DeltaTable.forPath(spark, path).detail().collect()[0]["properties"]
    found = {name: text for name, text in properties.items() if "constraints" in name}
    assert found == {f"delta.constraints.{name}": text for name, text in CHECKS.items()}
    assert tables.read(spark, path).count() == 1


def test_a_slice_value_that_would_break_out_of_its_quotes_is_our_own_bug(table, tmp_path):
    frame = table("split:string | item:bigint\ntrain | 1")
    with pytest.raises(AssertionError, match="is no name, date or number"):
        tables.replace_slice(frame, str(tmp_path / "sales"), slice_values={"split": "x' OR '1"})


def test_a_stage_table_of_another_release_is_made_anew(spark, tmp_path, caplog):
    def workspace(run_date):
        return tables.Workspace(spark=spark, settings=shop(tmp_path), run_date=run_date)

    old = spark.createDataFrame([(1, [0.5])], "item bigint, features array<float>")
    workspace(MONDAY).write("pairs", old, "run_date date, item bigint, features array<float>")
    new = spark.createDataFrame([(2, bytearray(b"xy"))], "item bigint, features binary")
    packed = "run_date date, item bigint, features binary"
    written = workspace(NEXT_MONDAY).write("pairs", new, packed)
    assert [tuple(row) for row in written.collect()] == [(NEXT_MONDAY, 2, bytearray(b"xy"))]
    assert "pairs: another release wrote it with other columns" in caplog.text
    renamed = spark.createDataFrame([(3, 0.5)], "item bigint, rate double")
    written = workspace(MONDAY).write("pairs", renamed, "run_date date, item bigint, rate double")
    assert [tuple(row) for row in written.collect()] == [(MONDAY, 3, 0.5)]


def test_a_slices_files_are_those_of_its_newest_rows(table, spark, tmp_path):
    workspace = tables.Workspace(spark=spark, settings=shop(tmp_path), run_date=MONDAY)

    def listed(split):
        rows = spark.read.parquet(*workspace.paths("pairs", split=split))
        return sorted(row.item for row in rows.select("item").collect())

    workspace.write("pairs", table("item:bigint\n1\n2"), SALES, split="train")
    assert listed("train") == [1, 2]
    workspace.write("pairs", table("item:bigint\n3"), SALES, split="test")
    assert (listed("train"), listed("test")) == ([1, 2], [3])
    workspace.write("pairs", table("item:bigint\n4"), SALES, split="train")
    assert (listed("train"), listed("test")) == ([4], [3])
    both = workspace.files("pairs", split=("train", "test"))
    assert sum(file.num_rows for file in both) == 2
