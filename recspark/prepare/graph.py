"""The relational graph of one run date: what is fitted to it, its nodes and its events."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import schema
from recspark.encodings import Encodings
from recspark.prepare import amounts, events, nodes, statistics
from recspark.query.nodes import Query
from recspark.settings import Settings
from recspark.tables import Source, Workspace
from recspark.windows import is_in_label_window, is_visible

log = logging.getLogger(__name__)

MIN_SALES_FOR_ID = 5  # an item sold less often up to the newest training anchor has no id embedding


@dataclass(frozen=True, kw_only=True)
class Graph:
    """The stage tables `nodes_<table>` and `events_<table>`, as frames read back from storage."""

    nodes: dict[str, DataFrame]
    events: dict[str, DataFrame]

    def keys(self, table: str) -> DataFrame:
        """(key, node) of a node table."""
        return self.nodes[table].select(schema.KEY, schema.NODE)


def check(sources: Mapping[str, Source], settings: Settings, run_date: datetime) -> dict[str, int]:
    """Check keys before anything is written; returns the number of rows per node table.

    Raises:
        ValueError: an empty node table, a null or repeated primary key, a foreign key whose type
            differs from the key it points to, or a run date before the first event.
    """
    for name, table in settings.tables.items():
        for column, target in table.foreign_keys.items():
            own = _kind(sources[name], column)
            other = _kind(sources[target], str(settings.tables[target].primary_key))
            if own != other:
                raise ValueError(
                    f"tables.{name}.foreign_keys.{column} is {own}, but the primary key of "
                    f"'{target}' is {other}; make them the same type."
                )
    counts = {}
    for name in settings.node_tables:
        declared = settings.tables[name]
        rows = nodes.present(sources[name].frame, declared, run_date)
        counts[name] = nodes.check_keys(name, rows, declared)
    return counts


def _kind(source: Source, column: str) -> str:
    kind = source.types()[column]
    return "integer" if kind in ("tinyint", "smallint", "int", "bigint") else kind


def first_event(source: Source, run_date: datetime) -> datetime:
    """Time of the oldest event of a table.

    Raises:
        ValueError: no event at or before the run date.
    """
    time = F.col(str(source.declared.time_column)).cast("timestamp")
    oldest, num_visible = source.frame.agg(
        F.date_format(F.min(time), "yyyy-MM-dd HH:mm:ss"),
        F.count(F.when(is_visible(time, F.lit(run_date)), 1)),
    ).collect()[0]
    where = f"tables.{source.name} ('{source.declared.location}')"
    if oldest is None:
        raise ValueError(f"{where} has no rows; write the table first.")
    if not num_visible:
        raise ValueError(
            f"{where}: the first event is at {oldest}, after the run date {run_date:%Y-%m-%d}; "
            f"choose a later run date."
        )
    return datetime.fromisoformat(oldest)


def count_buyers(target: Source, entities: DataFrame, query: Query, anchor: datetime) -> int:
    """How many of these entities have a target event in the label window after the anchor.

    `entities` has their keys as `schema.KEY`, distinct.
    """
    time = F.col(str(target.declared.time_column)).cast("timestamp")
    inside = is_in_label_window(
        time, F.lit(query.window.opens(anchor)), F.lit(query.window.closes(anchor))
    )
    buyers = target.frame.where(inside).select(F.col(query.target_entity_key).alias(schema.KEY))
    return buyers.distinct().join(entities, on=schema.KEY, how="left_semi").count()


def fit(
    sources: Mapping[str, Source], settings: Settings, query: Query, newest_train_anchor: datetime
) -> Encodings:
    """How each column is read, from what training anchors may see."""
    fitted = {
        name: statistics.fit_table(
            name,
            sources[name].frame,
            table,
            is_event=name in settings.event_tables,
            newest_train_anchor=newest_train_anchor,
            max_categories=settings.model.max_categories,
        )
        for name, table in settings.tables.items()
    }
    target = query.target_table
    numbers = [number.column for number in fitted[target].numbers]
    return Encodings(
        entity_table=query.entity_table,
        item_table=query.item_table,
        target_table=target,
        target_entity_key=query.target_entity_key,
        target_item_key=query.target_item_key,
        target_price_column=amounts.price_column(target, settings.tables[target], numbers),
        target_quantity_column=amounts.quantity_column(target, settings.tables[target], numbers),
        nodes={name: fitted[name] for name in settings.node_tables},
        events={name: fitted[name] for name in settings.event_tables},
        item_keys=_sold_often(sources[target], query, newest_train_anchor),
        text_buckets=settings.model.text_buckets,
    )


def _sold_often(target: Source, query: Query, newest_train_anchor: datetime) -> tuple[str, ...]:
    """Keys of the items sold at least `MIN_SALES_FOR_ID` times, as text, sorted."""
    time = F.col(str(target.declared.time_column)).cast("timestamp")
    seen = target.frame.where(is_visible(time, F.lit(newest_train_anchor)))
    key = F.col(query.target_item_key).cast("string").alias("key")
    sold = seen.select(key).where(F.col("key").isNotNull()).groupBy("key").count()
    often = sold.where(F.col("count") >= MIN_SALES_FOR_ID).select("key").orderBy("key")
    return tuple(row["key"] for row in often.collect())


def write(
    workspace: Workspace,
    sources: Mapping[str, Source],
    encodings: Encodings,
    num_rows: Mapping[str, int],
    run_date: datetime,
) -> Graph:
    """Number and encode every node table, then every event table, and write both."""
    rows = {
        name: nodes.present(sources[name].frame, sources[name].declared, run_date)
        for name in encodings.nodes
    }
    numbered = {
        name: nodes.number(frame, str(sources[name].declared.primary_key), num_rows[name])
        for name, frame in rows.items()
    }
    written_nodes = {}
    for name, encoding in encodings.nodes.items():
        encoded = nodes.encode(
            rows[name],
            sources[name].declared,
            encoding,
            numbered[name],
            parents=numbered,
            text_buckets=encodings.text_buckets,
        )
        item_keys = encodings.item_keys if name == encodings.item_table else None
        encoded = nodes.with_id_codes(encoded, item_keys)
        ddl = schema.nodes(sources[name].types()[str(sources[name].declared.primary_key)])
        written_nodes[name] = workspace.write(f"nodes_{name}", encoded, ddl)
    graph = Graph(nodes=written_nodes, events={})
    keys = {name: graph.keys(name) for name in graph.nodes}
    for name, encoding in encodings.events.items():
        encoded = events.encode(
            name,
            sources[name].frame,
            sources[name].declared,
            encoding,
            numbered=keys,
            run_date=run_date,
        )
        graph.events[name] = workspace.write(f"events_{name}", encoded, schema.EVENTS)
    return graph
