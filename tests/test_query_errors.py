import pytest

from recspark.query.parse import parse
from recspark.settings import Table

TABLES = {
    "users": Table(path="users", primary_key="user_id", time_column="joined"),
    "items": Table(path="items", primary_key="item_id"),
    "shops": Table(path="shops", time_column="opened"),
    "transactions": Table(
        path="transactions",
        time_column="time",
        foreign_keys={"user_id": "users", "item_id": "items"},
    ),
    "gifts": Table(
        path="gifts",
        time_column="time",
        foreign_keys={"giver_id": "users", "taker_id": "users", "item_id": "items"},
    ),
    "prices": Table(path="prices", time_column="time", foreign_keys={"item_id": "items"}),
}
QUERY = "PREDICT LIST_DISTINCT(transactions.item_id, 0, 7, days) RANK TOP 12 FOR EACH users.user_id"
KNOWN = "Known: gifts, items, prices, shops, transactions, users."
A_VALUE = "a value (a number, 'text', TRUE, FALSE or DATE '2024-01-31')"


def refusal(text):
    with pytest.raises(ValueError, match=r"^query") as fault:
        parse(text, TABLES)
    return str(fault.value).removeprefix("query, line 1, column ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1: expected PREDICT, found the end of the query."),
        ("SELECT 1", "1: expected PREDICT, found 'SELECT'."),
        (QUERY[:55] + " ", "56: expected RANK, found the end of the query."),
        (QUERY[:48], "49: expected ',', found the end of the query."),
        (QUERY + " twice", "92: expected WHERE or the end of the query, found 'twice'."),
        (QUERY + ";", "91: expected WHERE or the end of the query, found ';'."),
        (QUERY.replace("12", "twelve"), "66: expected a number, found 'twelve'."),
        (QUERY.replace("EACH", "EVERY"), "73: expected EACH, found 'EVERY'."),
        (QUERY.replace("days", "7"), "51: expected days, weeks or months, found '7'."),
        (QUERY.replace(".item_id", ".5"), "36: expected a column name, found '5'."),
        (QUERY + " WHERE users.a", "105: expected a comparison such as =, IN, IS, LIKE or NOT, "
                                   "found the end of the query."),
        (QUERY + " WHERE users.a =", f"107: expected {A_VALUE}, found the end of the query."),
        (QUERY + " WHERE users.a = NULL",
         f"108: expected {A_VALUE}, found 'NULL' (a null is met with IS NULL)."),
        (QUERY + ' WHERE users.a = "x"',
         f"108: expected {A_VALUE}, found '\"' (texts stand in 'single quotes')."),
        (QUERY + " WHERE users.a = 'x", "108: the quote ' is never closed; close it."),
        (QUERY + " WHERE opt_in", "104: expected '.', found the end of the query."),
    ],
)  # fmt: skip
def test_what_is_not_a_query_is_told_with_what_was_expected(text, message):
    assert refusal(text) == message


@pytest.mark.parametrize(
    ("written", "instead", "message"),
    [
        ("12", "0", "66: RANK TOP 0 recommends nothing; ask for at least 1."),
        ("12", "1.5", "66: the K of RANK TOP must be a whole number, found 1.5."),
        ("LIST_DISTINCT", "LIST_DISTNCT", "9: unknown aggregation 'LIST_DISTNCT'; did you mean "
                                          "'LIST_DISTINCT'? Known: LIST_DISTINCT."),
        ("days", "day", "51: unknown unit 'day'; did you mean 'days'? Known: days, months, weeks."),
        ("0, 7", "7, 7", "45: the window ends at 7, not after its start 7; write the start first "
                         "and a larger end."),
        ("0, 7", "-1, 7", "45: the window starts at -1, before the anchor; start at 0 or later."),
        ("0, 7", "0, 9999", "45: the window ends 9999 days ahead; 10 years is the most."),
        ("transactions", "transaction", f"23: unknown table 'transaction'; did you mean "
                                        f"'transactions'? {KNOWN}"),
        ("transactions", "items", "23: 'items' is not an event table; event tables are "
                                  "transactions, gifts, prices."),
        ("transactions", "shops", "23: 'shops' is not an event table; event tables are "
                                  "transactions, gifts, prices."),
        ("item_id", "item_d", "23: 'item_d' is not a foreign key of 'transactions'; did you mean "
                              "'item_id'? Known: item_id, user_id."),
        ("item_id", "user_id", "23: 'transactions.user_id' points to 'users', the table of "
                               "FOR EACH; predict a foreign key to another table."),
        ("users.user_id", "user.user_id", f"78: unknown table 'user'; did you mean 'users'? "
                                          f"{KNOWN}"),
        ("users.user_id", "users.email", "78: FOR EACH needs the primary key of 'users', found "
                                         "'email'; Known: user_id."),
        ("users.user_id", "shops.id", "78: 'shops' has no primary_key; declare one in the "
                                      "settings."),
        ("transactions", "prices", "72: 'prices' has no foreign key to 'users', only to items; "
                                   "predict a table that points to both."),
        ("transactions", "gifts", "71: 'gifts' points to 'users' over giver_id and taker_id; "
                                  "declare only the foreign key of the one who acts."),
    ],
)  # fmt: skip
def test_what_means_nothing_is_told_with_the_nearest_name(written, instead, message):
    assert refusal(QUERY.replace(written, instead, 1)) == message


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("items.a = 1", "98: WHERE speaks of 'items.a'; only columns of 'users' can be used "
                        "there."),
        ("users.a < TRUE", "106: TRUE and FALSE have no order, found '<'; compare with = or !=."),
        ("users.a IN (1, 'b')", "98: IN mixes number and text; give values of one kind."),
        ("users.a = DATE '2024-02-30'", "113: '2024-02-30' is not a date like '2024-01-31'."),
        ("users.a = 1e999", "106: the number is too large for a double; write a smaller one."),
        ("users.a = 9223372036854775808", "106: the number 9223372036854775808 is too large for "
                                          "a bigint; write a smaller one."),
    ],
)  # fmt: skip
def test_a_condition_that_cannot_be_met_is_refused(condition, message):
    assert refusal(f"{QUERY} WHERE {condition}") == message


def test_the_line_is_counted_in_a_query_of_several_lines():
    text = "-- the Monday mail\n" + QUERY.replace(" RANK", "\n  RANK").replace("12", "0")
    assert refusal(text).startswith("query, line 3, column 12: RANK TOP 0")
