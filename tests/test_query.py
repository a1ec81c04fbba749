from datetime import date, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recspark.prepare.anchors import Anchor
from recspark.query import nodes
from recspark.query.explain import explain
from recspark.query.meaning import check_columns
from recspark.query.parse import parse
from recspark.query.window import Window
from recspark.settings import Table

TABLES = {
    "users": Table(path="users", primary_key="user_id", time_column="joined"),
    "items": Table(path="items", primary_key="item_id"),
    "transactions": Table(
        path="transactions",
        time_column="time",
        foreign_keys={"user_id": "users", "item_id": "items"},
    ),
}
QUERY = "PREDICT LIST_DISTINCT(transactions.item_id, 0, 7, days) RANK TOP 12 FOR EACH users.user_id"


def where(condition):
    return parse(f"{QUERY} WHERE {condition}", TABLES).where


def users(column):
    return nodes.ColumnName("users", column)


def test_a_query_knows_its_tables_keys_window_and_k():
    query = parse(QUERY, TABLES)
    assert (query.target_table, query.target_item_key, query.target_entity_key) == (
        "transactions", "item_id", "user_id",
    )  # fmt: skip
    assert (query.item_table, query.entity_table, query.k) == ("items", "users", 12)
    assert (query.window, query.where) == (Window(0, 7, "days"), None)


def test_keywords_have_any_case_and_lines_and_comments_are_free():
    text = """-- the Monday mail
        predict list_distinct(transactions.item_id, 0, 7, Days)
        Rank Top 12  -- of them
        for each users.user_id"""
    assert parse(text, TABLES) == parse(QUERY, TABLES)


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("users.a = TRUE", nodes.Comparison(users("a"), "=", True)),
        ("users.a <> -1.5e3", nodes.Comparison(users("a"), "!=", -1500.0)),
        ("users.a >= DATE '2024-02-29'", nodes.Comparison(users("a"), ">=", date(2024, 2, 29))),
        ("users.a = 'it''s -- so'", nodes.Comparison(users("a"), "=", "it's -- so")),
        ("users.`last seen` < 3", nodes.Comparison(users("last seen"), "<", 3)),
        ("users.rank IS NULL", nodes.IsNull(users("rank"))),
        ("users.a NOT IN (1, 2)", nodes.Not(nodes.In(users("a"), (1, 2)))),
        ("users.a NOT LIKE 'a%'", nodes.Not(nodes.Like(users("a"), "a%"))),
        ("users.a is not null", nodes.Not(nodes.IsNull(users("a")))),
    ],
)
def test_a_condition_is_read_as_in_sql(text, condition):
    assert where(text) == condition


def test_not_binds_closer_than_and_and_and_closer_than_or():
    a, b, c = (nodes.IsNull(users(name)) for name in "abc")
    read = where("NOT users.a IS NULL AND users.b IS NULL OR users.c IS NULL")
    assert read == nodes.Or((nodes.And((nodes.Not(a), b)), c))
    read = where("NOT (users.a IS NULL AND (users.b IS NULL OR users.c IS NULL))")
    assert read == nodes.Not(nodes.And((a, nodes.Or((b, c)))))


names = st.sampled_from(["user_id", "rank", "not", "is", "last seen", "größe", "a.b"])
columns = names.map(users)
numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
literals = st.one_of(st.booleans(), numbers, st.text(max_size=5), st.dates())
predicates = st.one_of(
    st.builds(nodes.Comparison, columns, st.sampled_from(["=", "!="]), literals),
    st.builds(nodes.Comparison, columns, st.sampled_from(nodes.COMPARATORS), numbers),
    st.builds(nodes.In, columns, st.lists(numbers, min_size=1, max_size=3).map(tuple)),
    st.builds(nodes.Like, columns, st.text(max_size=5)),
    st.builds(nodes.IsNull, columns),
)
several = lambda inner: st.lists(inner, min_size=2, max_size=3).map(tuple)  # noqa: E731
conditions = st.recursive(
    predicates,
    lambda inner: st.one_of(
        st.builds(nodes.Not, inner),
        st.builds(nodes.And, several(inner)),
        st.builds(nodes.Or, several(inner)),
    ),
    max_leaves=6,
)
units = st.sampled_from(["days", "weeks", "months"])
spans = st.builds(lambda start, length, unit: Window(start, start + length, unit),
                  st.integers(0, 20), st.integers(1, 60), units)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(spans, st.integers(1, 10**6), st.none() | conditions)
def test_the_text_of_a_query_reads_back_as_the_same_query(window, k, condition):
    query = nodes.Query(
        target=nodes.ListDistinct(nodes.ColumnName("transactions", "item_id"), window),
        ranking=nodes.TopK(k),
        entity=users("user_id"),
        where=condition,
        item_table="items",
        target_entity_key="user_id",
    )
    read = parse(str(query), TABLES)
    assert read == query
    assert str(read) == str(query)  # 1, 1.0 and TRUE are equal to Python, not in text


def test_a_name_that_is_a_keyword_or_not_a_word_is_written_in_backticks():
    assert str(nodes.ColumnName("not", "last seen")) == "`not`.`last seen`"


@pytest.mark.parametrize(
    ("window", "anchor", "opens", "closes", "back"),
    [
        (Window(0, 7, "days"), "2024-03-01", "2024-03-01", "2024-03-08", "2024-02-23"),
        (Window(1, 2, "weeks"), "2024-03-01", "2024-03-08", "2024-03-15", "2024-02-16"),
        (Window(1, 2, "months"), "2024-12-31", "2025-01-31", "2025-02-28", "2024-10-31"),
        (Window(0, 1, "months"), "2024-03-31", "2024-03-31", "2024-04-30", "2024-02-29"),
    ],
)
def test_a_window_opens_closes_and_steps_back_by_the_calendar(window, anchor, opens, closes, back):
    anchor, opens, closes, back = map(datetime.fromisoformat, (anchor, opens, closes, back))
    assert (window.opens(anchor), window.closes(anchor), window.back(anchor, 1)) == (
        opens, closes, back,
    )  # fmt: skip


def test_stepping_back_two_months_from_the_31st_is_not_stopped_by_a_short_month():
    assert Window(0, 1, "months").back(datetime(2024, 3, 31), 2) == datetime(2024, 1, 31)


def test_a_condition_may_only_compare_like_with_like():
    query = parse(f"{QUERY} WHERE users.a = 'x' AND users.b < 3 AND users.c = TRUE", TABLES)
    check_columns(query, {"users": {"a": "string", "b": "decimal(10,2)", "c": "boolean"}})
    faults = {
        "a": ("int", "column 98: 'users.a' is int and cannot be compared with a text; "
              "write a number."),
        "b": ("string", "column 116: 'users.b' is string and cannot be compared with a number; "
              "write a text in 'quotes'."),
        "c": ("bigint", "column 132: 'users.c' is bigint and cannot be compared with a boolean; "
              "write a number."),
    }  # fmt: skip
    for column, (kind, message) in faults.items():
        types = {"a": "string", "b": "double", "c": "boolean"} | {column: kind}
        with pytest.raises(ValueError, match=column) as fault:
            check_columns(query, {"users": types})
        assert str(fault.value) == f"query, line 1, {message}"


def test_any_column_may_be_null_but_it_must_exist():
    query = parse(f"{QUERY} WHERE users.email IS NULL", TABLES)
    check_columns(query, {"users": {"email": "array<string>"}})
    with pytest.raises(ValueError, match=r"no column 'email' in 'users'; did you mean 'e_mail'?"):
        check_columns(query, {"users": {"e_mail": "string"}})


def test_explain_gives_inputs_and_labels_of_every_anchor():
    query = parse(f"{QUERY} WHERE users.opt_in = TRUE", TABLES)
    anchors = [
        Anchor(datetime(2024, 3, 15), "score"),
        Anchor(datetime(2024, 3, 1), "train"),
    ]
    assert explain(query, anchors) == (
        f"{QUERY} WHERE users.opt_in = TRUE\n"
        "  recommends   12 rows of items, by transactions.item_id\n"
        "  to each      users.user_id, by transactions.user_id\n"
        "  where        users.opt_in = TRUE\n"
        "\n"
        "  split       inputs up to         labels after         labels up to\n"
        "  train       2024-03-01 00:00:00  2024-03-01 00:00:00  2024-03-08 00:00:00\n"
        "  score       2024-03-15 00:00:00  none: this is what is predicted"
    )
