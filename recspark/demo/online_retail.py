"""Online Retail II (UCI 502, doi 10.24432/C5CG6D, CC BY 4.0) as source tables.

The published file has one line per article and invoice, with its quirks: cancellations on invoices
that start with C, postage and fees among the codes, customers without an id, sheets that overlap.
Times carry no zone; they are read as UTC.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pandas as pd
import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from recspark.tables import conform

log = logging.getLogger(__name__)

LINES = (
    "line_id bigint, invoice string, stock_code string, description string, quantity int, "
    "invoice_date timestamp, unit_price double, customer_id bigint, country string"
)
USERS = "customer_id bigint, country string, first_seen timestamp"
ITEMS = "stock_code string, description string, first_sold timestamp"
TRANSACTIONS = (
    "line_id bigint, customer_id bigint, stock_code string, invoice string, "
    "invoice_date timestamp, quantity int, unit_price double"  # price per unit, in pounds
)
RETURNS = (
    "return_id bigint, customer_id bigint, stock_code string, invoice string, "
    "returned_at timestamp, quantity int, unit_price double"  # quantity that went back, > 0
)

PURCHASE, CANCELLATION = "purchases", "cancellations"
_KIND = "kind"
_PRODUCT_CODE = r"^\d{5}[A-Z]*$"
_ARROW_LINES = pa.schema(
    {
        "line_id": pa.int64(),
        "invoice": pa.string(),
        "stock_code": pa.string(),
        "description": pa.string(),
        "quantity": pa.int32(),
        "invoice_date": pa.timestamp("us", tz="UTC"),
        "unit_price": pa.float64(),
        "customer_id": pa.int64(),
        "country": pa.string(),
    }
)
_COLUMNS_OF_SHEETS = {
    "Invoice": "invoice",
    "StockCode": "stock_code",
    "Description": "description",
    "Quantity": "quantity",
    "InvoiceDate": "invoice_date",
    "Price": "unit_price",
    "Customer ID": "customer_id",
    "Country": "country",
}


def read_lines(spark: SparkSession, source: str | Path) -> DataFrame:
    """All lines as published (schema LINES), the overlap of two sheets kept once.

    `source` is the published .xlsx, a folder that holds it, or a folder with the Parquet copy
    `transactions.parquet`. Reading .xlsx takes place on the driver: the file is of a fixed size.

    Raises:
        ValueError: nothing of the kind lies there, or a sheet lacks a column.
    """
    place = Path(source)
    parquet = place / "transactions.parquet" if place.is_dir() else place
    if parquet.suffix == ".parquet" and parquet.is_file():
        # Times without a zone arrive as timestamp_ntz; the session's zone, UTC, makes them times.
        lines = spark.read.parquet(str(parquet.resolve()))
        wanted = cast(StructType, StructType.fromDDL(LINES)).fields
        casts = [F.col(column.name).cast(column.dataType) for column in wanted]
        return conform(lines.select(*casts), LINES, table="transactions.parquet")
    books = sorted(place.glob("*.xlsx")) if place.is_dir() else [place]
    if not books or not books[0].is_file() or books[0].suffix != ".xlsx":
        raise ValueError(
            f"source '{source}' holds neither transactions.parquet nor an .xlsx file; "
            f"download online_retail_II.xlsx from the UCI repository and point --source to it."
        )
    return conform(spark.createDataFrame(read_sheets(books)), LINES, table="sheets")


def read_sheets(books: Sequence[Path]) -> pa.Table:
    """The lines (schema LINES) of all sheets of the published workbooks.

    From the first moment of a later sheet on, that sheet alone counts: the published ones overlap
    by nine days. Lines are numbered by time, then by their place.

    Raises:
        ValueError: a sheet lacks a column.
    """
    # As text, since a column of codes mixes numbers (22423) and words (85123A).
    opened = [pd.read_excel(book, sheet_name=None, dtype=str) for book in books]
    sheets = []
    for name, sheet in ((name, sheet) for book in opened for name, sheet in book.items()):
        missing = sorted(set(_COLUMNS_OF_SHEETS) - set(sheet.columns))
        if missing:
            raise ValueError(f"sheet '{name}' lacks {missing}; it has {list(sheet.columns)}.")
        times = pd.to_datetime(sheet["InvoiceDate"])
        sheets.append(sheet.rename(columns=_COLUMNS_OF_SHEETS).assign(invoice_date=times))
    sheets.sort(key=lambda sheet: sheet["invoice_date"].min())
    next_opens = [sheet["invoice_date"].min() for sheet in sheets[1:]] + [pd.Timestamp.max]
    kept = [
        sheet[sheet["invoice_date"] < opens]
        for sheet, opens in zip(sheets, next_opens, strict=True)
    ]
    lines = pd.concat(kept).sort_values("invoice_date", kind="stable").reset_index(drop=True)
    num_twice = sum(len(sheet) for sheet in sheets) - len(lines)
    log.info("online_retail_ii: %s lines of overlapping sheets, left out", f"{num_twice:,}")
    for name in ("quantity", "unit_price", "customer_id"):
        lines[name] = pd.to_numeric(lines[name])
    lines["line_id"] = lines.index
    lines["invoice_date"] = lines["invoice_date"].dt.tz_localize("UTC")
    return pa.Table.from_pandas(lines, schema=_ARROW_LINES, preserve_index=False)


def classify(lines: DataFrame) -> DataFrame:
    """Trim and upper-case the codes of `lines` (LINES) and say in `kind` what each line is.

    The first rule that holds counts: without customer, not a product (the code is not five digits
    and letters), a cancellation, no positive quantity, no positive price, else a purchase.
    """
    is_cancelled = F.upper("invoice").startswith("C")
    kind = (
        F.when(F.col("customer_id").isNull(), "without customer")
        .when(~F.coalesce(F.col("stock_code").rlike(_PRODUCT_CODE), F.lit(False)), "not a product")
        .when(is_cancelled & (F.col("quantity") < 0), CANCELLATION)
        # An odd sign on either kind of invoice corrects the books: nobody bought or gave back.
        .when(is_cancelled | (F.col("quantity") <= 0), "quantity without sense")
        .when(F.col("unit_price") <= 0, "no positive price")
        .otherwise(PURCHASE)
    )
    return lines.withColumn("stock_code", F.upper(F.trim("stock_code"))).withColumn(_KIND, kind)


def tables(lines: DataFrame) -> dict[str, DataFrame]:
    """The source tables users, items, transactions and returns from classified lines.

    What is said of a user or an item comes from the first purchase, so it is known from then on.
    A cancellation before the first purchase of its user or item points to nothing: it is left out.
    """
    bought = lines.where(F.col(_KIND) == PURCHASE)
    first = F.struct("invoice_date", "line_id")
    users = bought.groupBy("customer_id").agg(
        F.min_by("country", first).alias("country"), F.min("invoice_date").alias("first_seen")
    )
    items = bought.groupBy("stock_code").agg(
        F.min_by("description", first).alias("description"),
        F.min("invoice_date").alias("first_sold"),
    )
    returns = (
        lines.where(F.col(_KIND) == CANCELLATION)
        .withColumnsRenamed({"line_id": "return_id", "invoice_date": "returned_at"})
        .withColumn("quantity", -F.col("quantity"))
        .join(users.select("customer_id", "first_seen"), on="customer_id", how="inner")
        .join(items.select("stock_code", "first_sold"), on="stock_code", how="inner")
        .where(_known_at("returned_at", "first_seen") & _known_at("returned_at", "first_sold"))
    )
    return {
        "users": conform(users, USERS, table="users"),
        "items": conform(items, ITEMS, table="items"),
        "transactions": conform(bought, TRANSACTIONS, table="transactions"),
        "returns": conform(returns, RETURNS, table="returns"),
    }


def _known_at(moment: str, since: str) -> Column:
    return F.col(since) <= F.col(moment)


def count_kinds(lines: DataFrame) -> dict[str, int]:
    """How many of the classified lines are of each kind: at most six entries."""
    rows = lines.groupBy(_KIND).count().orderBy(_KIND).collect()
    return {row[_KIND]: int(row["count"]) for row in rows}


def count_duplicates(bought: DataFrame) -> int:
    """How many transactions repeat another one in every column but `line_id`."""
    columns = [name for name in bought.columns if name != "line_id"]
    repeated = bought.groupBy(*columns).count().agg(F.sum(F.col("count") - 1).alias("repeats"))
    return int(repeated.collect()[0]["repeats"] or 0)
