"""Write source tables to try recspark on: a generated shop, Online Retail II, or Olist."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import click
from pyspark.sql import DataFrame

from recspark import tables
from recspark.demo import olist, online_retail, shop
from recspark.demo.spec import Shop
from recspark.session import close_session, open_session

log = logging.getLogger("make_tables")


@click.group()
def main() -> None:
    """Write source tables as Delta, each into OUT/<table>; what was there is replaced."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")


@main.command("shop")
@click.option("--out", required=True, help="Folder or URI for the tables.")
@click.option("--until", required=True, type=click.DateTime(["%Y-%m-%d"]), help="End of the data.")
@click.option("--users", default=2_000, show_default=True)
@click.option("--items", default=400, show_default=True)
@click.option("--events", default=60_000, show_default=True, help="Purchases, give or take 10 %.")
@click.option("--days", default=548, show_default=True, help="Length of the history.")
@click.option("--seed", default=7, show_default=True)
def make_shop(
    out: str, until: datetime, users: int, items: int, events: int, days: int, seed: int
) -> None:
    """A generated shop; nothing in it happens on or after UNTIL."""
    try:
        plan = Shop(
            num_users=users,
            num_items=items,
            num_events=events,
            seed=seed,
            until=until.date(),
            num_days=days,
        )
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    spark = open_session("recspark-make-tables")
    _write(shop.merchants(spark, plan), out, "merchants")
    _write(shop.items(spark, plan), out, "items")
    _write(shop.users(spark, plan), out, "users")
    bought = _write(shop.transactions(spark, plan), out, "transactions")
    _write(shop.returns(bought, plan), out, "returns")


@main.command("online_retail_ii")
@click.option("--out", required=True, help="Folder or URI for the tables.")
@click.option(
    "--source",
    required=True,
    type=click.Path(path_type=Path),
    help="The published .xlsx, or a folder with it or with transactions.parquet.",
)
def make_online_retail(out: str, source: Path) -> None:
    """Online Retail II, cleaned; each kind of line that is left out is counted."""
    spark = open_session("recspark-make-tables")
    with _faults_told():
        published = online_retail.read_lines(spark, source)
    lines = online_retail.classify(published).cache()
    kinds = online_retail.count_kinds(lines)
    for kind, count in kinds.items():
        log.info("online_retail_ii: %s lines, %s", f"{count:,}", kind)
    written = {
        name: _write(frame, out, name) for name, frame in online_retail.tables(lines).items()
    }
    log.info(
        "online_retail_ii: %s exact repeats of a line, kept as bought",
        f"{online_retail.count_duplicates(written['transactions']):,}",
    )
    log.info(
        "online_retail_ii: %s cancellations before a first purchase, left out",
        f"{kinds.get(online_retail.CANCELLATION, 0) - written['returns'].count():,}",
    )
    lines.unpersist()


@main.command("olist")
@click.option("--out", required=True, help="Folder or URI for the tables.")
@click.option(
    "--source",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder with the published tables, such as orders.parquet.",
)
def make_olist(out: str, source: Path) -> None:
    """Brazilian E-Commerce by Olist, delivered orders only; for non-commercial use."""
    spark = open_session("recspark-make-tables")
    with _faults_told():
        published = olist.read_published(spark, source)
    for name, frame in olist.tables(published).items():
        _write(frame, out, name)


@contextmanager
def _faults_told() -> Iterator[None]:
    """A fault in the published files ends the command in one sentence."""
    try:
        yield
    except ValueError as error:
        raise click.ClickException(str(error)) from None


def _write(frame: DataFrame, out: str, name: str) -> DataFrame:
    """Write one table, say how many rows, and return it as written."""
    started = time.monotonic()
    path = f"{out.rstrip('/')}/{name}"
    tables.write_source(frame, path)
    written = tables.read(frame.sparkSession, path)
    log.info("%s: %s rows, %.1f s", path, f"{written.count():,}", time.monotonic() - started)
    return written


if __name__ == "__main__":
    try:
        main()
    finally:
        close_session()
