import math
from datetime import datetime

import pytest

from recspark.encodings import Category, Number, TableEncoding
from recspark.prepare import columns, events, nodes, statistics
from recspark.settings import Table

USERS = Table(path="shop/users", primary_key="user_id", time_column="joined_at")
RUN_DATE = datetime(2024, 3, 1)


def test_only_rows_that_exist_at_the_run_date_become_nodes(table):
    users = table("""
        user_id:bigint | joined_at:timestamp
        7              | 2024-03-01T00:00:00
        8              | 2024-03-01T00:00:01
        9              |
        """)
    kept = nodes.present(users, USERS, RUN_DATE).toArrow()["user_id"].to_pylist()
    assert sorted(kept) == [7, 9]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("", "tables.users .* has no rows that exist at the run date"),
        ("7 | \n 7 | \n 8 | ", "primary key user_id = 7 stands in 2 rows; keep one row"),
        ("7 | \n | \n", "1 of 2 rows have no user_id; give each row its key"),
    ],
)
def test_empty_tables_and_bad_keys_end_in_one_sentence(table, rows, told):
    users = table("user_id:bigint | joined_at:timestamp\n" + rows)
    with pytest.raises(ValueError, match=told):
        nodes.check_keys("users", users, USERS)


def test_numbers_are_dense_whatever_the_partitions_and_buckets(table, monkeypatch):
    users = table("user_id:string\n" + "\n".join(f"u{i}" for i in range(9)))
    monkeypatch.setattr(nodes, "ROWS_PER_BUCKET", 4)
    found = [
        dict(zip(*nodes.number(frame, "user_id", 9).toArrow().to_pydict().values(), strict=True))
        for frame in (users.repartition(1), users.repartition(5))
    ]
    assert sorted(found[0].values()) == list(range(9))
    assert found[0] == found[1]


def test_columns_are_encoded_with_their_missing_and_unknown_values(table):
    items = table("""
        item_id:bigint | price:double | colour:string | name:string
        1              | 0            | red           | Red Mug
        2              |              | green         |
        3              | 1.718281828459045 |          | red red mug
        """)
    encoding = TableEncoding(
        numbers=(Number(column="price", center=1.0, scale=0.5),),
        categories=(Category(column="colour", values=("blue", "red")),),
        texts=("name",),
    )
    encoded = nodes.encode(
        items, Table(path="p", primary_key="item_id"), encoding,
        nodes.number(items, "item_id", 3), parents={}, text_buckets=1000,
    ).orderBy("key").toArrow().to_pydict()  # fmt: skip
    assert encoded["node"] == [0, 1, 2]
    assert encoded["numbers"][0] == [-2.0]
    assert math.isnan(encoded["numbers"][1][0])
    assert encoded["numbers"][2] == [0.0]
    assert encoded["codes"] == [[3], [1], [0]]  # red, unknown, missing
    assert [len(grams) for grams in encoded["buckets"]] == [3, 0, 4]
    assert set(encoded["buckets"][0]) < set(encoded["buckets"][2])  # red, mug, "red mug"


def test_events_with_null_or_dangling_keys_are_skipped_and_counted(table, caplog):
    bought = table("""
        user:string | item:bigint | at:timestamp        | quantity:int
        ann         | 10          | 2024-02-01T00:00:00 | 3
        ann         |             | 2024-02-02T00:00:00 | 1
        ann         | 99          | 2024-02-03T00:00:00 | 1
        bob         | 10          |                     | 1
        ann         | 10          | 2024-03-01T00:00:01 | 1
        """)
    keys = {
        "users": table("key:string | node:bigint\nann | 0\nbob | 1"),
        "items": table("key:bigint | node:bigint\n10 | 5"),
    }
    declared = Table(path="p", time_column="at", foreign_keys={"user": "users", "item": "items"})
    encoding = TableEncoding(
        numbers=(Number(column="quantity", center=0.0, scale=1.0),),
        foreign_keys=(("user", "users"), ("item", "items")),
    )
    found = events.encode(
        "bought", bought, declared, encoding, numbered=keys, run_date=RUN_DATE
    ).toArrow()
    assert found["nodes"].to_pylist() == [[0, 5]]
    assert found["amounts"].to_pylist() == [[3.0]]
    told = caplog.text
    assert "item is null: 1, item points to no row: 1, time is null: 1" in told

    later = events.after(
        bought.fillna(99, subset=["item"]), declared, encoding, numbered=keys, run_date=RUN_DATE
    )
    assert later.toArrow()["nodes"].to_pylist() == [[0, 5]]


def test_statistics_come_from_rows_up_to_the_newest_training_anchor(table):
    source = table("""
        user:bigint | at:timestamp        | price:double | size:string | delivered:timestamp
        1           | 2024-01-01T00:00:00 | 0            | S           | 2024-01-02T00:00:00
        1           | 2024-01-02T00:00:00 | 1.718281828459045 | S      | 2024-01-02T00:00:00
        1           | 2024-01-03T00:00:00 | 999          | XXL         | 2024-01-02T00:00:00
        """)
    fitted = statistics.fit_table(
        "bought", source,
        Table(path="p", time_column="at", foreign_keys={"user": "users"}),
        is_event=True, newest_train_anchor=datetime(2024, 1, 2), max_categories=5,
    )  # fmt: skip
    assert fitted.numbers == (Number(column="price", center=0.5, scale=0.5),)
    assert fitted.categories == (Category(column="size", values=("S",)),)
    assert fitted.times == ()  # a delivery time may lie after the anchor


def test_a_string_of_many_words_is_text_and_a_code_is_a_category(table):
    rows = "\n".join(f"{i} | large red mug {i} | c{i}" for i in range(6))
    source = table("item:bigint | name:string | code:string\n" + rows)
    fitted = statistics.fit_table(
        "items", source, Table(path="p", primary_key="item"),
        is_event=False, newest_train_anchor=RUN_DATE, max_categories=3,
    )  # fmt: skip
    assert fitted.texts == ("name",)
    assert [c.column for c in fitted.categories] == ["code"]
    assert len(fitted.categories[0].values) == 3


def test_hashed_words_do_not_depend_on_their_order_of_rows(table):
    frame = table("a:string\nÉclair au café\ncafé ÉCLAIR")
    first, second = frame.select(columns.buckets(["a"], 512).alias("b")).toArrow()["b"].to_pylist()
    assert len(set(first) & set(second)) == 2  # éclair, café; the pairs differ
