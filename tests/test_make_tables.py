import logging
import runpy
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from conftest import drawn
from pyspark.sql.types import StructType

from recspark import settings, tables
from recspark.demo import olist, online_retail, shop

# A job is a script beside the package, so it is run by its path.
main = runpy.run_path(str(Path(__file__).parents[1] / "jobs" / "make_tables.py"))["main"]

PUBLISHED = """
    line_id:bigint | invoice:string | stock_code:string | description:string | quantity:int | invoice_date:timestamp | unit_price:double | customer_id:bigint | country:string
    0              | 500            | 85123a            | HEART            | 6            | 2010-12-01T08:26:00    | 2.55              | 17850              | Norway
    1              | 501            | 85123A            | HEART HOLDER     | 2            | 2010-12-02T08:26:00    | 2.95              | 17850              | France
    2              | 501            | 85123A            | HEART HOLDER     | 2            | 2010-12-02T08:26:00    | 2.95              | 17850              | France
    3              | 501            | POST              | POSTAGE          | 1            | 2010-12-02T08:26:00    | 9.00              | 17850              | France
    4              | 502            | 22423             | CAKESTAND        | 1            | 2010-12-03T08:26:00    | 0.00              | 17850              | France
    5              | 503            | 22423             | CAKESTAND        | 1            | 2010-12-04T08:26:00    | 9.95              |                    | France
    6              | C504           | 85123A            | HEART HOLDER     | -1           | 2010-12-05T08:26:00    | 2.95              | 17850              | France
    7              | C499           | 85123A            | HEART            | -3           | 2010-12-01T08:00:00    | 2.55              | 17850              | Norway
    8              | 505            | 47503J            | TOY              | -9           | 2010-12-05T09:00:00    | 1.00              | 17850              | France
"""


def utc(*parts):
    return datetime(*parts, tzinfo=UTC)


def rows(frame):
    return [tuple(row.values()) for row in frame.toArrow().to_pylist()]


@pytest.fixture(scope="module")
def converted(spark, tmp_path_factory):
    """The drawn lines as the job writes them, and what it said."""
    folder = tmp_path_factory.mktemp("online_retail")
    lines = drawn(PUBLISHED)
    place = lines.column_names.index("invoice_date")
    without_zone = lines["invoice_date"].cast(pa.timestamp("us"))  # as in the copy
    lines = lines.set_column(place, "invoice_date", without_zone)
    pq.write_table(lines, folder / "transactions.parquet")
    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("make_tables")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    out = str(folder / "out")
    arguments = ["online_retail_ii", "--out", out, "--source", str(folder)]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    logger.removeHandler(handler)
    assert result.exit_code == 0, result.output
    names = ("users", "items", "transactions", "returns")
    return {name: rows(tables.read(spark, f"{out}/{name}")) for name in names}, said


def test_purchases_keep_their_exact_repeats_and_upper_case_codes(converted):
    written, _ = converted
    assert sorted(written["transactions"]) == [
        (0, 17850, "85123A", "500", utc(2010, 12, 1, 8, 26), 6, 2.55),
        (1, 17850, "85123A", "501", utc(2010, 12, 2, 8, 26), 2, 2.95),
        (2, 17850, "85123A", "501", utc(2010, 12, 2, 8, 26), 2, 2.95),
    ]


def test_users_and_items_are_as_of_their_first_purchase(converted):
    written, _ = converted
    assert written["users"] == [(17850, "Norway", utc(2010, 12, 1, 8, 26))]
    assert written["items"] == [("85123A", "HEART", utc(2010, 12, 1, 8, 26))]


def test_a_cancellation_is_a_return_unless_its_item_was_never_bought_before(converted):
    written, _ = converted
    assert written["returns"] == [
        (6, 17850, "85123A", "C504", utc(2010, 12, 5, 8, 26), 1, 2.95),
    ]


def test_every_line_that_is_left_out_is_counted(converted):
    _, said = converted
    counts = [
        line.removeprefix("online_retail_ii: ") for line in said if "online_retail_ii:" in line
    ]
    assert counts == [
        "2 lines, cancellations",
        "1 lines, no positive price",
        "1 lines, not a product",
        "3 lines, purchases",
        "1 lines, quantity without sense",
        "1 lines, without customer",
        "1 exact repeats of a line, kept as bought",
        "1 cancellations before a first purchase, left out",
    ]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("85123", "purchases"), ("85123ab", "purchases"), (" 47503J ", "purchases"),
        ("DCGS0003", "not a product"), ("851234", "not a product"), ("8512A", "not a product"),
        ("M", "not a product"), ("", "not a product"),
    ],
)  # fmt: skip
def test_a_product_code_is_five_digits_and_letters(kinds_by_code, code, kind):
    assert kinds_by_code[code] == kind


@pytest.fixture(scope="module")
def kinds_by_code(spark):
    codes = ["85123", "85123ab", " 47503J ", "DCGS0003", "851234", "8512A", "M", ""]
    one = drawn(PUBLISHED).to_pandas().head(1)
    raw = pd.concat([one.assign(line_id=i, stock_code=code) for i, code in enumerate(codes)])
    found = online_retail.classify(spark.createDataFrame(raw)).toPandas()
    return {codes[row.line_id]: row.kind for row in found.itertuples()}


def test_two_sheets_that_overlap_count_once_and_lines_are_numbered_by_time(tmp_path):
    first = sheet("""
        Invoice | StockCode | Quantity | InvoiceDate         | Price | Customer ID
        1       | 10002     | 4        | 2010-11-30 10:00:00 | 0.85  | 13085
        3       | 22423     | 1        | 2010-12-01 09:00:00 | 9.95  | 13085
        2       | 85123a    | 2        | 2010-11-30 09:00:00 | 2.55  |
        """)
    second = sheet("""
        Invoice | StockCode | Quantity | InvoiceDate         | Price | Customer ID
        3       | 22423     | 1        | 2010-12-01 09:00:00 | 9.95  | 13085
        C4      | 22423     | -1       | 2010-12-02 09:00:00 | 9.95  | 13085
        """)
    book = tmp_path / "online_retail_II.xlsx"
    with pd.ExcelWriter(book) as writer:
        # The published workbook holds codes of digits as numbers and the later sheet second.
        first.to_excel(writer, sheet_name="Year 2009-2010", index=False)
        second.to_excel(writer, sheet_name="Year 2010-2011", index=False)
    lines = online_retail.read_sheets([book]).to_pylist()
    found = [(x["line_id"], x["invoice"], x["stock_code"], x["customer_id"]) for x in lines]
    assert found == [
        (0, "2", "85123a", None),
        (1, "1", "10002", 13085),
        (2, "3", "22423", 13085),
        (3, "C4", "22423", 13085),
    ]
    assert lines[1]["invoice_date"] == utc(2010, 11, 30, 10)
    assert (lines[3]["quantity"], lines[3]["unit_price"]) == (-1, 9.95)


def sheet(text):
    """A drawn sheet as published: numbers where they can be, times as times."""
    header, *lines = [[c.strip() for c in x.split("|")] for x in text.strip().splitlines()]
    cells = [[int(c) if c.isdigit() else c or None for c in line] for line in lines]
    frame = pd.DataFrame(cells, columns=header).assign(Description="A", Country="Norway")
    frame["InvoiceDate"] = pd.to_datetime(frame["InvoiceDate"])
    return frame.astype({"Quantity": int, "Price": float})


def test_a_source_without_the_data_says_where_to_get_it(spark, tmp_path):
    arguments = ["online_retail_ii", "--out", str(tmp_path / "out"), "--source", str(tmp_path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "holds neither transactions.parquet nor an .xlsx file" in result.output
    assert not (tmp_path / "out").exists()


def test_a_shop_that_cannot_be_ends_in_one_sentence_before_spark_starts():
    result = CliRunner().invoke(main, "shop --out x --until 2026-11-23 --items 0".split())
    assert result.exit_code == 1
    assert result.output == "Error: demo shop: items should be at least 1, got 0.\n"


def test_the_shop_job_writes_its_five_tables(spark, tmp_path):
    out = str(tmp_path)
    size = "--until 2026-11-23 --users 20 --items 50 --events 400 --days 120"
    result = CliRunner().invoke(main, ["shop", "--out", out, *size.split()], catch_exceptions=False)
    assert result.exit_code == 0
    counts = {name: tables.read(spark, f"{out}/{name}").count() for name in SHOP_SCHEMAS}
    assert (counts["items"], counts["users"]) == (50, 20)
    assert counts["transactions"] == pytest.approx(400, rel=0.5)
    assert 0 < counts["returns"] < counts["transactions"] / 5


SHOP_SCHEMAS = {
    "merchants": shop.MERCHANTS, "items": shop.ITEMS, "users": shop.USERS,
    "transactions": shop.TRANSACTIONS, "returns": shop.RETURNS,
}  # fmt: skip
ONLINE_RETAIL_SCHEMAS = {
    "items": online_retail.ITEMS, "users": online_retail.USERS,
    "transactions": online_retail.TRANSACTIONS, "returns": online_retail.RETURNS,
}  # fmt: skip
OLIST_SCHEMAS = {
    "users": olist.USERS, "items": olist.ITEMS, "sellers": olist.SELLERS,
    "transactions": olist.TRANSACTIONS, "reviews": olist.REVIEWS,
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "schemas"),
    [
        ("conf/demo.yaml", SHOP_SCHEMAS),
        ("conf/weekly_recs.yaml", SHOP_SCHEMAS),
        ("conf/examples/online_retail_ii.yaml", ONLINE_RETAIL_SCHEMAS),
        ("conf/examples/olist.yaml", OLIST_SCHEMAS),
    ],
)
def test_a_config_names_only_tables_and_columns_that_the_job_writes(request, config, schemas):
    loaded = settings.load(request.config.rootpath / config)
    assert set(loaded.tables) == set(schemas)
    for name, table in loaded.tables.items():
        named = [table.primary_key, table.time_column, table.end_time_column, table.price_column]
        named += [table.quantity_column, *table.foreign_keys, *table.ignore]
        present = StructType.fromDDL(schemas[name]).fieldNames()
        assert {column for column in named if column} <= set(present), name
