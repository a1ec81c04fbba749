"""Stage tables of (seed, item) pairs: what is known of items and customers, and the candidates."""

import logging
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import schema
from recspark.encodings import Encodings
from recspark.pipeline.start import Run
from recspark.prepare import (
    candidates,
    customer_classes,
    entity_pool,
    interactions,
    item_due_rates,
    item_states,
    item_trends,
    pair_features,
    pair_parts,
    quantiles,
)
from recspark.prepare.feature_schema import FeatureSchema
from recspark.prepare.graph import Graph
from recspark.prepare.interactions import EventRoles

log = logging.getLogger(__name__)

# Split, then `all` or a source, to the share of the labels that are among the candidates.
Recall: TypeAlias = Mapping[str, Mapping[str, float]]


def write(
    run: Run, encodings: Encodings, built: Graph, seeds: DataFrame, *, fitted: bool
) -> tuple[Encodings, DataFrame, Recall]:
    """Write the candidates of the seeds, and before them what they are found from.

    Returns the encodings, with the quantiles of the features where they are being `fitted`, the
    candidates, and their recall.
    """
    roles = interactions.roles(encodings)
    features = interactions.features(encodings)
    states = _write_states(run, encodings, built, roles, features)
    workspace = run.workspace
    pairs = candidates.build(
        built.events,
        roles,
        seeds,
        built.nodes[encodings.entity_table],
        workspace.paths("item_states"),
        workspace.paths("entity_pool"),
        workspace.paths("customer_classes"),
        workspace.paths("item_due_rates"),
        features=features,
        horizon_days=run.horizon_days,
        settings=run.settings.candidates,
    )
    pairs = workspace.write("candidates", pairs, schema.CANDIDATES)
    names = pair_features.pair_names(features)
    recall = candidates.recall(pairs, seeds, names)
    recall.pop(schema.SCORE, None)  # its labels are not known yet
    for split, found in sorted(recall.items()):
        shares = ", ".join(f"{source} {share:.3f}" for source, share in found.items())
        log.info("candidates: recall of %s labels: %s", split, shares)
    if fitted:
        encodings = _fit_quantiles(run, encodings, states, pairs, features)
    return encodings, pairs, recall


def _write_states(
    run: Run,
    encodings: Encodings,
    built: Graph,
    roles: Sequence[EventRoles],
    features: FeatureSchema,
) -> DataFrame:
    """Item states, which are returned, what of them is due, the entity pool, and its classes."""
    chosen, workspace = run.settings.candidates, run.workspace
    times = sorted({anchor.time for anchor in run.anchors})
    states = item_states.build(
        built.events,
        roles,
        built.nodes[encodings.item_table],
        times,
        features=features,
        horizon_days=run.horizon_days,
        settings=chosen,
    )
    states = workspace.write("item_states", states, schema.ITEM_STATES)
    due_rates = item_due_rates.build(workspace.spark, times, workspace.paths("item_states"))
    workspace.write("item_due_rates", due_rates, schema.ITEM_DUE_RATES)
    pool = entity_pool.build(
        built.events,
        roles[0],
        built.nodes[encodings.entity_table],
        times,
        history_per_entity=chosen.history_per_entity,
        horizon_days=run.horizon_days,
        seed=run.settings.seed,
    )
    workspace.write("entity_pool", pool, schema.ENTITY_POOL)
    classes = customer_classes.build(
        workspace.spark,
        times,
        workspace.paths("item_states"),
        workspace.paths("entity_pool"),
        features=features,
    )
    workspace.write("customer_classes", classes, schema.CUSTOMER_CLASSES)
    return states


def _fit_quantiles(
    run: Run,
    encodings: Encodings,
    states: DataFrame,
    pairs: DataFrame,
    features: FeatureSchema,
) -> Encodings:
    pair_names = pair_features.pair_names(features)
    trend_names = item_trends.trend_names(features)
    learnt = F.col(schema.ANCHOR_TIME).isin(run.anchor_times(schema.TRAIN))
    seed = run.settings.seed
    pair_knots = quantiles.knots(
        pairs.where(F.col(schema.SPLIT) == schema.TRAIN),
        schema.FEATURES,
        len(pair_names),
        key=[schema.ANCHOR_TIME, schema.ENTITY],
        num_rows=quantiles.SEED_ROWS,
        seed=seed,
    )
    middle = {n: k[len(k) // 2] for n, k in zip(pair_names, pair_knots, strict=True)}
    return encodings.model_copy(
        update={
            "trend_names": trend_names,
            "pair_names": pair_names,
            "pair_groups": pair_features.groups(features),
            "trend_knots": quantiles.knots(
                states.where(learnt),
                schema.TREND,
                len(trend_names),
                key=[schema.ANCHOR_TIME, schema.ITEM],
                num_rows=quantiles.ITEM_ROWS,
                seed=seed,
            ),
            "pair_knots": pair_knots,
            "pair_parts": pair_parts.parts(middle, features),
        }
    )
