"""From pinned tables to subgraphs: every stage table of a run, in the order of the data's way."""

from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import schema
from recspark.encodings import Encodings
from recspark.pipeline import pair_tables
from recspark.pipeline.pair_tables import Recall
from recspark.pipeline.start import Run
from recspark.prepare import (
    events,
    graph,
    neighbors,
    snapshots,
    subgraphs,
)
from recspark.prepare.anchors import Anchor
from recspark.prepare.graph import Graph

LEARNT = (schema.TRAIN, schema.VALIDATION)  # splits whose subgraphs carry hop 2
SCORED_LATER = (schema.TEST, schema.SCORE)  # splits that are scored layer by layer


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Stage tables of a run, encoded as its model wants them."""

    encodings: Encodings
    graph: Graph
    eligible: DataFrame  # nodes of the entity table that pass the query's WHERE
    snapshots: DataFrame
    truth: DataFrame | None  # of a backtest: (entity, anchor_time, labels) of who bought after it
    recall: Recall  # of the candidates


def prepare(run: Run, encodings: Encodings | None = None) -> Prepared:
    """Write every stage table up to the subgraphs.

    Without `encodings` they are fitted to what training anchors may see; with those of a trained
    model, the tables are what that model reads. Only the run's own anchors are written: a run of
    the scoring anchor alone leaves the subgraphs of other splits as they are.
    """
    fitted = encodings is None
    if encodings is None:
        newest = max(run.anchor_times(schema.TRAIN))
        encodings = graph.fit(run.sources, run.settings, run.query, newest)
    built = graph.write(run.workspace, run.sources, encodings, run.num_rows, run.run_date)
    eligible = _eligible(run, built)
    truth = _future_truth(run, encodings, built, eligible) if run.is_backtest else None
    seeds = _write_snapshots(run, encodings, built, eligible, truth)
    encodings, pairs, recall = pair_tables.write(run, encodings, built, seeds, fitted=fitted)
    _write_subgraphs(run, encodings, built, seeds, pairs)
    return Prepared(
        encodings=encodings,
        graph=built,
        eligible=eligible,
        snapshots=seeds,
        truth=truth,
        recall=recall,
    )


def positions(encodings: Encodings) -> tuple[int, int]:
    """Places of the entity and of the item among the target table's foreign keys."""
    columns = [column for column, _ in encodings.events[encodings.target_table].foreign_keys]
    return (
        columns.index(encodings.target_entity_key),
        columns.index(encodings.target_item_key),
    )


def _eligible(run: Run, built: Graph) -> DataFrame:
    keys = snapshots.entity_keys(run.sources[run.query.entity_table], run.query)
    return built.nodes[run.query.entity_table].join(keys, on=schema.KEY, how="left_semi")


def _future_truth(run: Run, encodings: Encodings, built: Graph, eligible: DataFrame) -> DataFrame:
    """What eligible entities bought after the run date: the labels of a backtest.

    Nothing else reads rows after the run date.
    """
    later = events.after(
        run.sources[run.query.target_table].frame,
        run.sources[run.query.target_table].declared,
        encodings.events[run.query.target_table],
        numbered={name: built.keys(name) for name in built.nodes},
        run_date=run.run_date,
    )
    entity_position, item_position = positions(encodings)
    bought = snapshots.truth(
        later,
        Anchor(run.run_date, schema.SCORE),
        nodes=eligible,
        entity_position=entity_position,
        item_position=item_position,
        query=run.query,
    )
    truth = bought.withColumn(schema.ANCHOR_TIME, F.lit(run.run_date)).persist()
    if truth.isEmpty():
        raise ValueError(
            f"nobody who existed on {run.run_date:%Y-%m-%d} bought anything in the "
            f"{run.horizon_days} days after it; choose a date that the purchases reach beyond."
        )
    return truth


def _write_snapshots(
    run: Run,
    encodings: Encodings,
    built: Graph,
    eligible: DataFrame,
    truth: DataFrame | None,
) -> DataFrame:
    entity_position, item_position = positions(encodings)
    seeds = snapshots.build(
        run.anchors,
        nodes=eligible,
        events=built.events[encodings.target_table],
        entity_position=entity_position,
        item_position=item_position,
        query=run.query,
        scored_entities=None if truth is None else truth.select(schema.ENTITY),
        max_seeds_per_anchor=run.settings.snapshots.max_seeds_per_anchor,
        seed=run.settings.seed,
    )
    written = run.workspace.write("snapshots", seeds, schema.SNAPSHOTS)
    snapshots.check_not_empty(written, run.anchors)
    return written


def _write_subgraphs(
    run: Run, encodings: Encodings, built: Graph, seeds: DataFrame, pairs: DataFrame
) -> None:
    sampling, workspace, seed = run.settings.sampling, run.workspace, run.settings.seed
    entities = built.nodes[encodings.entity_table]
    hop_1 = neighbors.hop_1(encodings, built.events, seeds, fanout=sampling.fanouts[0], seed=seed)
    hop_1 = workspace.write("neighbors", hop_1, schema.NEIGHBORS, hop=("1",))
    hop_2 = neighbors.hop_2(
        encodings,
        built.events,
        hop_1,
        nodes=built.nodes,
        complete_anchors=run.anchor_times(*SCORED_LATER),
        fanout=sampling.fanouts[1],
        seed=seed,
    )
    hop_2 = workspace.write("neighbors", hop_2, schema.NEIGHBORS, hop=("2",))
    reached = subgraphs.frontier(encodings, hop_2, entities)
    workspace.write("frontier", reached, schema.FRONTIER)
    hop_2_files = subgraphs.HopTwoFiles(
        neighbors=workspace.paths("neighbors", hop=("2",)), frontier=workspace.paths("frontier")
    )
    for every, hop_2_of_splits in ((LEARNT, hop_2_files), (SCORED_LATER, None)):
        splits = tuple(split for split in every if run.anchor_times(split))
        if not splits:
            continue
        of_splits = F.col(schema.SPLIT).isin(*splits)
        rows = subgraphs.of_seeds(
            encodings,
            snapshots=seeds.where(of_splits),
            candidates=pairs.where(of_splits),
            hop_1=hop_1,
            entities=entities,
            hop_2=hop_2_of_splits,
            group_size=sampling.group_size,
            seed=seed,
        )
        workspace.write("subgraphs", rows, schema.SUBGRAPHS, split=splits)
    for anchor in run.anchors:
        if anchor.split in SCORED_LATER:
            nodes = _reachable_nodes(encodings, built, anchor.time)
            rows = subgraphs.of_nodes(encodings, nodes, hop_2_files, anchor.split)
            workspace.write("node_subgraphs", rows, schema.SUBGRAPHS, split=anchor.split)


def _reachable_nodes(encodings: Encodings, built: Graph, anchor: datetime) -> DataFrame:
    """(anchor_time, table, node) of every node that hop 1 can reach."""
    found = None
    for table in encodings.reached_tables():
        part = built.nodes[table].select(
            F.lit(anchor).alias(schema.ANCHOR_TIME), F.lit(table).alias("table"), schema.NODE
        )
        found = part if found is None else found.unionByName(part)
    assert found is not None, "the target table's events point to items"
    return found


def held_files(run: Run, encodings: Encodings) -> dict[str, tuple[str, ...]]:
    """Files of the node tables that ranks and workers hold: all but the entities'."""
    return {
        table: run.workspace.paths(f"nodes_{table}")
        for table in encodings.nodes
        if table != encodings.entity_table
    }
