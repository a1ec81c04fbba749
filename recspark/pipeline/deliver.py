"""From a registered model to the written recommendations."""

from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import ranges, schema, settings
from recspark.delta_log import DataFile
from recspark.existence import exists_at
from recspark.pipeline import registered
from recspark.pipeline.learn import Learnt
from recspark.pipeline.prepare import Prepared, held_files
from recspark.pipeline.start import SCORING, Run
from recspark.ranges import RowRange
from recspark.recommend import reasons, scoring, write
from recspark.recommend.scoring import Served
from recspark.registry import ModelVersion, Registry

NAME_COLUMNS = ("name", "title", "description")  # of items, as people call them
ROWS_PER_TASK = 32  # groups of seeds that one task scores; a worker loads the model once


@dataclass(frozen=True, kw_only=True)
class Serving:
    """A registered model at hand, and the stage tables as it reads them."""

    version: ModelVersion
    state: bytes
    model: settings.Model
    run: Run  # whose workspace holds the stage tables
    prepared: Prepared


def score(
    run: Run, prepared: Prepared, state: bytes, split: str, model: settings.Model | None = None
) -> DataFrame:
    """Score every seed of a split with a model; returns the written `scored` slice."""
    workspace = run.workspace
    model_and_files = Served(
        state=state,
        encodings=prepared.encodings.model_dump_json(),
        model=model or run.settings.model,
        node_files=held_files(run, prepared.encodings),
        item_state_files=workspace.paths("item_states"),
    )
    spark = workspace.spark
    served = spark.sparkContext.broadcast(model_and_files)
    nodes = _small_ranges(workspace.files("node_subgraphs", split=split))
    vectors = scoring.node_vectors(spark, nodes, served)
    workspace.write("node_vectors", vectors, schema.NODE_VECTORS, split=split)
    seeds = _small_ranges(workspace.files("subgraphs", split=split))
    vector_files = workspace.paths("node_vectors", split=split)
    scored = scoring.top_k(spark, seeds, vector_files, served, run.query.k)
    return workspace.write("scored", scored, schema.SCORED, split=split)


def _small_ranges(stored: tuple[DataFile, ...]) -> list[RowRange]:
    """The rows of files in ranges that one task scores."""
    num_rows = sum(file.num_rows for file in stored)
    parts = ranges.split(stored, max(-(-num_rows // ROWS_PER_TASK), 1))
    return [one for part in parts for one in part]


def fetch(run: Run, registry: Registry, version: ModelVersion) -> Serving:
    """Download a version and write the stage tables of the scoring anchor as it reads them.

    Raises:
        ValueError: the version cannot read this run's tables.
    """
    model = registered.download(registry, version)
    scoring_anchors = run.only(SCORING).anchors
    alike, prepared = registered.prepare(run, model, scoring_anchors)
    return Serving(
        version=version,
        state=model.serving,
        model=model.settings.model,
        run=alike,
        prepared=prepared,
    )


def serving(
    run: Run,
    prepared: Prepared,
    learnt: Learnt,
    registry: Registry,
    trained: ModelVersion,
    chosen: ModelVersion,
) -> Serving:
    """The chosen version: what is at hand if it is the one just trained, else fetched."""
    if chosen != trained:
        return fetch(run, registry, chosen)
    return Serving(
        version=chosen, state=learnt.serving, model=run.settings.model, run=run, prepared=prepared
    )


def recommend(served: Serving) -> DataFrame:
    """Score the run date and write the recommendations; returns the written `scored` slice."""
    scored = score(served.run, served.prepared, served.state, schema.SCORE, served.model)
    deliver(served.run, served.prepared, scored, served.version)
    return scored


def deliver(run: Run, prepared: Prepared, scored: DataFrame, version: ModelVersion) -> int:
    """Write the recommendations of the run date; returns the version of the output table."""
    entity_table, item_table = run.query.entity_table, run.query.item_table
    rows = _rows(run, scored)
    entities = prepared.graph.keys(entity_table).toDF(write.ENTITY_ID, schema.ENTITY)
    items = prepared.graph.keys(item_table).toDF(write.ITEM_ID, schema.ITEM)
    recommendations = (
        _with_reasons(run, prepared, rows)
        .join(entities, on=schema.ENTITY, how="inner")
        .join(items, on=schema.ITEM, how="inner")
        .select(
            F.lit(run.run_date.date()).alias(schema.RUN_DATE),
            F.lit(run.settings.name).alias(schema.QUERY),
            write.ENTITY_ID,
            (F.col("place") + 1).alias(schema.RANK),
            write.ITEM_ID,
            F.col("one")["scores"].alias(schema.SCORE_VALUE),
            schema.REASON,
            F.lit(version.name).alias(schema.MODEL_NAME),
            F.lit(version.version).alias(schema.MODEL_VERSION),
            schema.ANCHOR_TIME,
            F.lit(version.run_id).alias(schema.RUN_ID),
        )
    )
    return write.write(
        recommendations,
        run.settings.output.recommendations,
        entity_type=run.key_type(entity_table),
        item_type=run.key_type(item_table),
        run_date=run.run_date.date(),
        query=run.settings.name,
        num_entities=scored.count(),
        num_items_on_sale=_num_on_sale(run, prepared),
        k=run.query.k,
        provenance=write.Provenance(
            input_versions=run.versions,
            model_name=version.name,
            model_version=version.version,
            run_id=version.run_id,
        ),
    )


def _rows(run: Run, scored: DataFrame) -> DataFrame:
    """One row per recommendation, with `because`: the own item most often bought with it."""
    seeds = run.workspace.read("candidates").where(F.col(schema.SPLIT) == schema.SCORE)
    candidates = seeds.select(
        schema.ENTITY, F.col(schema.ITEMS).alias("candidates"), schema.BECAUSE
    )
    listed = scored.join(candidates, on=schema.ENTITY, how="left").withColumn(
        "partners",  # looked up inside the seed's arrays, so that no (entity, item) table is built
        F.transform(
            schema.ITEMS,
            lambda item: F.try_element_at(
                F.col(schema.BECAUSE),
                F.nullif(F.array_position("candidates", item), F.lit(0)).cast("int"),
            ),
        ),
    )
    one = F.posexplode(F.arrays_zip(schema.ITEMS, "scores", "reasons", "partners"))
    return listed.select(schema.ENTITY, schema.ANCHOR_TIME, one.alias("place", "one")).select(
        "*",
        F.col("one")[schema.ITEMS].alias(schema.ITEM),
        F.col("one")["partners"].alias(schema.BECAUSE),
    )


def _with_reasons(run: Run, prepared: Prepared, rows: DataFrame) -> DataFrame:
    """Add `reason`, its item and category by name."""
    source, table = run.sources[run.query.item_table], run.query.item_table
    key = F.col(str(source.declared.primary_key))
    name = next((F.col(c) for c in NAME_COLUMNS if c in source.frame.columns), key)
    categories = prepared.encodings.nodes[table].categories
    category = F.col(categories[0].column) if categories else F.lit(None)
    named = prepared.graph.keys(table).join(
        source.frame.select(
            key.alias(schema.KEY),
            name.cast("string").alias("name"),
            category.cast("string").alias("category"),
        ),
        on=schema.KEY,
        how="inner",
    )
    partners = named.select(F.col(schema.NODE).alias(schema.BECAUSE), "name")
    kinds = named.select(F.col(schema.NODE).alias(schema.ITEM), "category")
    told = rows.join(partners, on=schema.BECAUSE, how="left").join(
        kinds, on=schema.ITEM, how="left"
    )
    reason = F.col("one")["reasons"]
    reason = F.replace(reason, F.lit(reasons.ITEM), F.coalesce("name", F.lit("your purchases")))
    reason = F.replace(
        reason,
        F.lit(f" in {reasons.CATEGORY}"),
        F.coalesce(F.concat(F.lit(" in "), "category"), F.lit("")),
    )
    return told.withColumn(schema.REASON, reason)


def _num_on_sale(run: Run, prepared: Prepared) -> int:
    items = prepared.graph.nodes[run.query.item_table]
    return items.where(exists_at(F.lit(run.run_date))).count()
