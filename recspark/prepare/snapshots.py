"""Seeds and their labels: which entity is asked about at which anchor, and what it then did."""

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import Window as W
from pyspark.sql import functions as F

from recspark import schema, windows
from recspark.existence import exists_at
from recspark.prepare import conditions
from recspark.prepare.anchors import Anchor
from recspark.query.nodes import Query
from recspark.tables import Source

log = logging.getLogger(__name__)

OPENS, CLOSES = "opens", "closes"


def entities(users: DataFrame, query: Query) -> DataFrame:
    """The rows of the source entity table that pass the query's WHERE, all columns kept.

    A comparison with a null is not true, so such rows are left out.
    """
    return users if query.where is None else users.where(conditions.to_column(query.where))


def entity_keys(users: Source, query: Query) -> DataFrame:
    """The primary keys of those rows, as `schema.KEY`."""
    key = F.col(str(users.declared.primary_key))
    return entities(users.frame, query).select(key.alias(schema.KEY))


def build(
    anchors: Sequence[Anchor],
    *,
    nodes: DataFrame,
    events: DataFrame,
    entity_position: int,
    item_position: int,
    query: Query,
    scored_entities: DataFrame | None = None,
    max_seeds_per_anchor: int,
    seed: int,
) -> DataFrame:
    """Every seed of a run: `schema.SNAPSHOTS` without `run_date`.

    Train, validation and test anchors have a row for each entity that exists at the anchor and has
    a label; labels are all distinct item nodes of its events in the window, on sale at the anchor
    or not, since what was bought is the truth. The scoring anchor has a row for each entity that
    exists then, with no labels; a backtest scores those alone that it can judge. Beyond
    `max_seeds_per_anchor`, which does not bind scoring, a hash of (seed, anchor, entity) chooses,
    so that any partitioning chooses alike.

    Args:
        anchors: of `anchors.plan`.
        nodes: `schema.nodes` of the entity table, restricted to eligible entities.
        events: `schema.EVENTS` of the target table. Rows whose entity or item node is null or -1
            are skipped.
        entity_position: place in the events' `nodes` of the foreign key to the entity table.
        item_position: place in the events' `nodes` of the foreign key to the item table.
        query: gives the window.
        scored_entities: nodes in a column `entity`; of all others nothing is asked at the scoring
            anchor. None: everybody is scored.
        max_seeds_per_anchor: the most rows of one learning or judging anchor.
        seed: of the choice among too many seeds.
    """
    learnt = [anchor for anchor in anchors if anchor.split != schema.SCORE]
    scored = [anchor for anchor in anchors if anchor.split == schema.SCORE]
    labelled = _labelled(
        learnt,
        nodes=nodes,
        events=events,
        entity_position=entity_position,
        item_position=item_position,
        query=query,
    )
    seeds = _subsample(labelled, max_seeds_per_anchor, seed)
    if not scored:
        return seeds
    asked = nodes.join(
        F.broadcast(_anchor_rows(nodes, scored, query)),
        on=exists_at(F.col(schema.ANCHOR_TIME)),
        how="inner",
    )
    if scored_entities is not None:
        chosen = scored_entities.withColumnRenamed(schema.ENTITY, schema.NODE)
        asked = asked.join(chosen, on=schema.NODE, how="left_semi")
    no_labels = F.array().cast("array<bigint>").alias(schema.LABELS)
    return seeds.unionByName(asked.select(*_seed_key(F.col(schema.NODE)), no_labels))


def truth(
    events: DataFrame,
    anchor: Anchor,
    *,
    nodes: DataFrame,
    entity_position: int,
    item_position: int,
    query: Query,
) -> DataFrame:
    """What eligible entities did in the window after one anchor: columns entity, labels.

    The labels of a backtest's run date, from events after it that no other stage may see. Same
    rules and arguments as `build`, without a limit on the number of seeds; items that did not
    exist at the run date have numbers below -1 and count as bought too.
    """
    return _labelled(
        [anchor],
        nodes=nodes,
        events=events,
        entity_position=entity_position,
        item_position=item_position,
        query=query,
    ).select(schema.ENTITY, schema.LABELS)


def check_not_empty(
    snapshots: DataFrame, anchors: Sequence[Anchor]
) -> dict[tuple[str, datetime], int]:
    """Count the seeds of each (split, anchor time), log them, and refuse what cannot be learnt.

    Returns:
        A count for every anchor, 0 where it has no seed.

    Raises:
        ValueError: nobody to score, or no seed in training or in validation.
    """
    rows = snapshots.groupBy(schema.SPLIT, schema.ANCHOR_TIME).count().collect()
    found = {(row[schema.SPLIT], row[schema.ANCHOR_TIME]): int(row["count"]) for row in rows}
    counts = {(a.split, a.time): found.get((a.split, a.time), 0) for a in anchors}
    totals = {split: 0 for split, _ in counts}
    for (split, _), count in counts.items():
        totals[split] += count
    log.info(
        "snapshots: %d anchors %s, seeds %s",
        len(counts),
        _range(anchors),
        ", ".join(f"{split} {total:,}" for split, total in totals.items()),
    )
    if totals.get(schema.SCORE) == 0:
        raise ValueError(
            "snapshots: no row of the entity table exists at the run date and passes the query's "
            "WHERE; there is nobody to recommend to."
        )
    for split, name in ((schema.TRAIN, "training"), (schema.VALIDATION, "validation")):
        if totals.get(split) == 0:
            raise ValueError(
                f"snapshots: no purchase in any {name} window (anchors "
                f"{_range(a for a in anchors if a.split == split)}); choose another run date or "
                f"a longer window."
            )
    return counts


def _labelled(
    anchors: Sequence[Anchor],
    *,
    nodes: DataFrame,
    events: DataFrame,
    entity_position: int,
    item_position: int,
    query: Query,
) -> DataFrame:
    """One row per anchor and entity with a label: split, anchor_time, entity, labels.

    The one place where labels are made.
    """
    in_window = windows.is_in_label_window(F.col(schema.TIME), F.col(OPENS), F.col(CLOSES))
    labels = F.sort_array(F.collect_set(schema.ITEM)).alias(schema.LABELS)
    happened = (
        events.select(
            schema.TIME,
            F.get(schema.NODES, F.lit(entity_position)).alias(schema.ENTITY),
            F.get(schema.NODES, F.lit(item_position)).alias(schema.ITEM),
        )
        .where((F.col(schema.ENTITY) >= 0) & (F.col(schema.ITEM) != -1))
        .join(F.broadcast(_anchor_rows(events, anchors, query)), on=in_window, how="inner")
        .groupBy(*_seed_key(F.col(schema.ENTITY)))
        .agg(labels)
    )
    bounds = nodes.select(
        F.col(schema.NODE).alias(schema.ENTITY), schema.START_TIME, schema.END_TIME
    )
    return (
        happened.join(bounds, on=schema.ENTITY, how="inner")
        .where(exists_at(F.col(schema.ANCHOR_TIME)))
        .select(*_seed_key(F.col(schema.ENTITY)), schema.LABELS)
    )


def _subsample(seeds: DataFrame, max_seeds_per_anchor: int, seed: int) -> DataFrame:
    """Keep the seeds with the smallest hash of each anchor."""
    draw = F.xxhash64(F.lit(seed), schema.ANCHOR_TIME, schema.ENTITY)
    by_draw = W.partitionBy(schema.SPLIT, schema.ANCHOR_TIME).orderBy(draw, schema.ENTITY)
    ranked = seeds.withColumn("draw_rank", F.row_number().over(by_draw))
    return ranked.where(F.col("draw_rank") <= max_seeds_per_anchor).drop("draw_rank")


def _anchor_rows(frame: DataFrame, anchors: Sequence[Anchor], query: Query) -> DataFrame:
    """The anchors as a small frame with their label bounds; `frame` lends its session."""
    moment = pa.timestamp("us", tz="UTC")
    times = [anchor.time for anchor in anchors]
    return frame.sparkSession.createDataFrame(
        pa.table(
            {
                schema.SPLIT: pa.array([anchor.split for anchor in anchors], pa.string()),
                schema.ANCHOR_TIME: pa.array(times, moment),
                OPENS: pa.array(map(query.window.opens, times), moment),
                CLOSES: pa.array(map(query.window.closes, times), moment),
            }
        )
    )


def _seed_key(entity: Column) -> tuple[Column, Column, Column]:
    return F.col(schema.SPLIT), F.col(schema.ANCHOR_TIME), entity.alias(schema.ENTITY)


def _range(anchors: Iterable[Anchor]) -> str:
    times = sorted(anchor.time for anchor in anchors)
    return f"{times[0]:%Y-%m-%d}..{times[-1]:%Y-%m-%d}"
