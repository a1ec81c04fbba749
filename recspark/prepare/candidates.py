"""Candidates of every seed with their pair features: one pass over the entities' partitions."""

from collections.abc import Mapping, Sequence
from functools import partial

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import schema
from recspark.partitions import by_key
from recspark.prepare import candidate_kernel, interactions, nodes
from recspark.prepare.candidate_kernel import SEED_ROW, Plan
from recspark.prepare.feature_schema import FeatureSchema
from recspark.prepare.interactions import EventRoles
from recspark.settings import Candidates

COLUMNS = (
    f"{schema.SPLIT} string, {schema.ANCHOR_TIME} timestamp, {schema.ENTITY} bigint, "
    f"{schema.ITEMS} array<bigint>, {schema.FEATURES} binary, "
    f"{schema.IS_LABEL} array<boolean>, {schema.BECAUSE} array<bigint>"
)


def build(
    events: Mapping[str, DataFrame],
    event_roles: Sequence[EventRoles],
    snapshots: DataFrame,
    entities: DataFrame,
    item_state_files: Sequence[str],
    pool_files: Sequence[str],
    class_files: Sequence[str],
    due_rate_files: Sequence[str],
    *,
    features: FeatureSchema,
    horizon_days: float,
    settings: Candidates,
) -> DataFrame:
    """CANDIDATES without `run_date`: one row per seed, min(per_seed, items on sale) items each.

    Args:
        events: stage event tables by name; only rows `<= anchor` count at an anchor.
        event_roles: how to read them, the target table first (`interactions.roles`).
        snapshots: split, anchor_time, entity, labels.
        entities: the node table of the entities: node, codes, parents.
        item_state_files: Parquet files of the item states of all anchors, paths or URIs that
            workers can open.
        pool_files: the same of the entity pool.
        class_files: the same of the customers' classes.
        due_rate_files: the same of the items' due rates.
        features: which there are.
        horizon_days: length of the label window, days.
        settings: how many candidates, from how long a history.

    `features` packs the columns `pair_features.pair_names` of each item in turn.
    """
    known = snapshots.join(nodes.traits(entities, schema.ENTITY), on=schema.ENTITY, how="inner")
    seeds = known.select(
        F.lit(SEED_ROW).alias(interactions.KIND),
        F.col(schema.ENTITY),
        F.col(schema.ANCHOR_TIME).alias(schema.TIME),
        F.col(schema.SPLIT),
        F.col(schema.LABELS),
        F.col(schema.TRAITS),
    )
    # Empty and not null: on its way to Python every null of a list is filled in anew for each row
    # behind it, as the size of the batch is asked for.
    of_seeds = (schema.LABELS, schema.TRAITS)
    of_events = interactions.union(events, event_roles).withColumns(
        {name: F.array().cast(seeds.schema[name].dataType) for name in of_seeds}
    )
    rows = of_events.unionByName(seeds, allowMissingColumns=True)
    plan = Plan(
        horizon_days=horizon_days,
        per_seed=settings.per_seed,
        history_per_entity=settings.history_per_entity,
        features=features,
        state_files=tuple(item_state_files),
        pool_files=tuple(pool_files),
        class_files=tuple(class_files),
        due_rate_files=tuple(due_rate_files),
    )
    kernel = partial(candidate_kernel.run, plan=plan)
    return by_key(rows, schema.ENTITY).mapInArrow(kernel, COLUMNS)


def recall(
    candidates: DataFrame, snapshots: DataFrame, pair_names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Share of the labels among the candidates, per split: `all`, and of each source alone.

    `pair_names` are those of the features. A label that several sources retrieved counts for
    each; NaN for a split without labels.
    """
    kernel = partial(candidate_kernel.hits, names=tuple(pair_names))
    counted = ", ".join(f"{name} bigint" for name in candidate_kernel.FOUND_BY)
    read = candidates.select(schema.SPLIT, schema.FEATURES, schema.IS_LABEL)
    found = read.mapInArrow(kernel, f"{schema.SPLIT} string, {counted}")
    hits = [F.sum(name).alias(name) for name in candidate_kernel.FOUND_BY]
    sums = found.groupBy(schema.SPLIT).agg(*hits)
    truths = snapshots.groupBy(schema.SPLIT).agg(F.sum(F.size(schema.LABELS)).alias("truths"))
    rows = sums.join(truths, on=schema.SPLIT, how="inner").collect()
    return {
        row[schema.SPLIT]: {
            name: row[name] / row["truths"] if row["truths"] else float("nan")
            for name in candidate_kernel.FOUND_BY
        }
        for row in rows
    }
