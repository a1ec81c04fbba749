"""Neighbour sampling against Spark's window functions: same events, same queries, same answer.

    python benchmarks/bench_neighbors.py --record

The alternative joins queries with the events they see, ranks by `row_number` over (node, anchor),
newest first, keeps rows up to the fanout (Spark prunes by itself with a group limit before and
after its shuffle), and collects each query's rows into the lists that the network reads, which is
the answer that ours gives. It is timed a second time without that last step, one row per
neighbour, which is less than is needed. All read the same Parquet files, run in turn in one
session, and write to Spark's `noop` sink; before that, one untimed run of the two full ways must
give the same rows to the last column.
"""

import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click
from pyspark import __version__ as spark_version
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from rich.console import Console
from rich.table import Table

from recspark import windows
from recspark.prepare import neighbors
from recspark.session import open_session

RESULTS = Path(__file__).parent / "RESULTS.md"
SEED = 7
LAST_ANCHOR = datetime(2024, 7, 1)  # noqa: DTZ001 - UTC by contract
SECONDS_OF_EVENTS = 180 * 86_400  # before the last anchor; the weekly anchors lie within


def write_inputs(
    spark: SparkSession,
    folder: str,
    *,
    num_events: int,
    num_users: int,
    hub_edges: int,
    num_anchors: int,
) -> tuple[DataFrame, DataFrame]:
    """Events as schema.EVENTS (user 0 is the hub) and every user at every weekly anchor."""

    def drawn(salt: str, below: int) -> Column:
        return F.pmod(F.xxhash64(F.lit(SEED), F.lit(salt), "id"), F.lit(below))

    is_hub = F.col("id") < hub_edges
    user = F.when(is_hub, 0).otherwise(drawn("user", num_users - 1) + 1).cast("bigint")
    end = F.lit(LAST_ANCHOR).cast("timestamp")
    events = spark.range(0, num_events, 1, 4).select(
        F.xxhash64("id").alias("event"),
        F.timestamp_seconds(F.unix_seconds(end) - drawn("time", SECONDS_OF_EVENTS)).alias("time"),
        F.array(user, drawn("item", 20_000)).alias("nodes"),
        # The row's own number stands in for an attribute, so that answers can be told apart.
        F.array(F.col("id").cast("float"), (F.col("id") % 1000 / 7).cast("float")).alias("numbers"),
        F.array((F.col("id") % 50).cast("int")).alias("codes"),
    )
    anchors = F.array(*[F.lit(LAST_ANCHOR - windows.days(7 * w)) for w in range(num_anchors)])
    queries = spark.range(num_users).select(
        F.col("id").alias("node"), F.explode(anchors).alias("anchor_time")
    )
    frames = []
    for name, frame in (("events", events), ("queries", queries)):
        frame.write.parquet(f"{folder}/{name}")
        frames.append(spark.read.parquet(f"{folder}/{name}"))
    return frames[0], frames[1]


def by_window(events: DataFrame, queries: DataFrame, fanout: int) -> DataFrame:
    """The same draw by `row_number`, one row per neighbour with its rank, 1 the newest."""
    hanging = events.withColumn("node", F.get("nodes", F.lit(0)))
    seen = queries.join(hanging, on="node", how="inner").where(
        windows.is_visible(F.col("time"), F.col("anchor_time"))
    )
    newest_first = Window.partitionBy("node", "anchor_time").orderBy(
        F.desc("time"), F.xxhash64(F.lit(SEED).cast("bigint"), "event"), "event"
    )
    ranked = seen.withColumn("rank", F.row_number().over(newest_first))
    micros = F.unix_micros("anchor_time") - F.unix_micros("time")
    age = (micros / F.lit(86_400e6)).cast("float")
    return ranked.where(F.col("rank") <= fanout).select(
        "anchor_time", "node", "rank", age.alias("age"), "nodes", "numbers", "codes"
    )


def in_lists(ranked: DataFrame) -> DataFrame:
    """The rows of `by_window` in the form of ours: one row per query, its events newest first."""
    fields = ("rank", "age", "nodes", "numbers", "codes")
    newest_first = F.sort_array(F.collect_list(F.struct(*fields)))
    per_query = ranked.groupBy("anchor_time", "node").agg(newest_first.alias("drawn"))
    flat = [F.flatten(f"drawn.{name}").alias(name) for name in ("nodes", "numbers", "codes")]
    return per_query.select("anchor_time", "node", F.col("drawn.age").alias("ages"), *flat)


def fingerprint(rows: DataFrame) -> tuple[int, int]:
    """Number of rows and the sum of a hash over all their columns."""
    row_hash = F.xxhash64(*rows.columns).cast("decimal(38,0)")
    found = rows.agg(F.count("*").alias("rows"), F.sum(row_hash).alias("total")).collect()[0]
    return int(found["rows"]), int(found["total"])


def seconds(build: Callable[[], DataFrame]) -> float:
    """Wall-clock of building and running one frame into the void."""
    started = time.monotonic()
    build().write.format("noop").mode("overwrite").save()
    return time.monotonic() - started


def peak_gib(spark: SparkSession) -> tuple[float, float]:
    """Highest resident memory so far: of the JVM, and of its largest living Python worker."""
    jvm = spark._jvm
    assert jvm is not None
    driver = int(jvm.java.lang.ProcessHandle.current().pid())
    parents, peaks = {}, {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        except FileNotFoundError:  # the process ended meanwhile
            continue
        pid = int(status.parent.name)
        parents[pid] = int(fields["PPid"])
        peaks[pid] = int(fields.get("VmHWM", "0 kB").split()[0]) / 2**20
    daemons = [pid for pid, parent in parents.items() if parent == driver]
    workers = [peaks[pid] for pid, parent in parents.items() if parent in daemons]
    return peaks[driver], max(workers, default=0.0)


@click.command()
@click.option("--events", "num_events", default=2_000_000, show_default=True)
@click.option("--users", "num_users", default=200_000, show_default=True)
@click.option("--hub-edges", default=100_000, show_default=True, help="events of one user")
@click.option("--anchors", "num_anchors", default=13, show_default=True, help="a week apart")
@click.option("--fanout", default=10, show_default=True)
@click.option("--repeats", default=3, show_default=True, help="timed runs of each; median")
@click.option("--record", is_flag=True, help="append the result to RESULTS.md")
def main(
    num_events: int,
    num_users: int,
    hub_edges: int,
    num_anchors: int,
    fanout: int,
    repeats: int,
    record: bool,
) -> None:
    """Time both ways of drawing the newest neighbours and check that they agree."""
    console = Console()
    spark = open_session("bench-neighbors")
    with tempfile.TemporaryDirectory() as folder:
        events, queries = write_inputs(
            spark,
            folder,
            num_events=num_events,
            num_users=num_users,
            hub_edges=hub_edges,
            num_anchors=num_anchors,
        )

        def ours() -> DataFrame:
            return neighbors.newest(events, queries, position=0, fanout=fanout, seed=SEED)

        def theirs() -> DataFrame:
            return in_lists(by_window(events, queries, fanout))

        def without_lists() -> DataFrame:
            return by_window(events, queries, fanout)

        expected, found = fingerprint(theirs()), fingerprint(ours().select(*theirs().columns))
        if found != expected:
            raise click.ClickException(f"the answers differ: window {expected}, kernel {found}")
        timed: list[tuple[float, float, float]] = []
        jvm = worker = 0.0
        for repeat in range(1, repeats + 1):
            kernel = seconds(ours)
            jvm, worker = map(max, (jvm, worker), peak_gib(spark))
            timed.append((kernel, seconds(theirs), seconds(without_lists)))
            told = "kernel {:.1f} s, window {:.1f} s, without lists {:.1f} s".format(*timed[-1])
            console.print(f"run {repeat}: {told}")
    kernel, window, bare = (statistics.median(run) for run in zip(*timed, strict=True))
    master = spark.sparkContext.master
    spark.stop()

    table = Table(title=f"{expected[0]:,} rows for {num_users * num_anchors:,} queries")
    for heading in ("method", "seconds (median)", "recspark is faster by"):
        table.add_column(heading, justify="left" if heading == "method" else "right")
    table.add_row("recspark", f"{kernel:.1f}", "")
    table.add_row("window row_number", f"{window:.1f}", f"{window / kernel:.1f}x")
    table.add_row("  the same, left without lists", f"{bare:.1f}", f"{bare / kernel:.1f}x")
    console.print(table)
    console.print(
        f"identical answers; peak JVM {jvm:.1f} GiB, largest Python worker {worker:.1f} GiB"
    )
    if record:
        sizes = f"{num_events:,} events, {num_users:,} users, hub {hub_edges:,}"
        row = [
            datetime.now(UTC).date().isoformat(),
            f"neighbors: {sizes}, {num_anchors} anchors",
            f"{kernel:.1f} s",
            f"window {window:.1f} s, without lists {bare:.1f} s",
            f"{window / kernel:.1f}x, {bare / kernel:.1f}x",
            f"JVM {jvm:.1f}, worker {worker:.1f} GiB",
            f"{os.cpu_count()} cores {platform.machine()}, {master}",
            f"Python {platform.python_version()}, Spark {spark_version}",
            f"`bench_neighbors.py --repeats {repeats}`",
        ]
        with RESULTS.open("a", encoding="utf-8") as results:
            results.write("| " + " | ".join(row) + " |\n")


if __name__ == "__main__":
    main()
