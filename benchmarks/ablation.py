"""What each part of the model is worth: the same dates without it, with paired intervals.

    python benchmarks/ablation.py --config CONFIG --as-of 2011-05-13 --as-of 2011-06-12 --record

The full model and one model without each part are trained with the same seed and scored on what was
bought after each date; differences are paired by user, and the users of all dates are drawn
together. Parts are:

- of the same trained model, with some of its weights at 0: `graph` (the graph's score, whole),
  `tower` (the product of the entity's and the item's vector), `prior` (of popularity), `ids`
  (vectors of item ids), `trend` (what is known of items at the anchor, for vectors and prior),
  `hop 2` (what messages of the second hop bring), `times` (ages of events and of nodes), `trees`.
  All but the last are parts of the graph's score, so they tell nothing where its weight is 0;
- `refit`: the model that validation chose, without the validation labels, and with the few boosters
  that are enough to choose by;
- `heads`: one pair head instead of several;
- `ranks`: one process that takes as many groups per step as all ranks took together;
- `negatives`: all negatives in every step instead of a share;
- `loss`: heads that learn by a softmax over candidates instead of LambdaRank;
- `group NAME`: the pair features of a group count as missing (`pair_features.groups`);
- `table NAME`: an event table other than the target's is not there at all;
- `anchors`: half as many training anchors.

Each date is prepared once for all but the last two.

With `--shop-until` the tables are a demo shop's of the usual size that ends on the date, and a user
counts with the MAP@K that is expected by the shop's own chances (`demo_oracle.expected_maps`): what
users happened to buy has no part in it, and intervals are narrower.
"""

import fnmatch
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import click
import demo_oracle
import numpy as np
import torch
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from rich.table import Table

from recspark import settings, windows
from recspark.demo.spec import Shop
from recspark.evaluate import bootstrap, comparison, metrics
from recspark.pipeline import deliver, learn, prepare, show, start
from recspark.pipeline.prepare import Prepared
from recspark.pipeline.start import Run
from recspark.prepare import interactions, pair_features
from recspark.prepare.feature_schema import FeatureSchema
from recspark.query.parse import parse
from recspark.report import terminal
from recspark.schema import ENTITY, ITEMS, KEY, LABELS, NODE, SCORE, TRAIN
from recspark.session import close_session, open_session
from recspark.tracking import open_tracker

RESULTS = Path(__file__).parent / "RESULTS.md"
FULL, REFIT, TREND = "full", "refit", "trend"
TREND_AND_COLUMNS = "graph.tower.perceptron.0.weight"  # (D, D + T): columns' channels come first
SILENCED = {  # part to the names of its weights
    "graph": ("tower_weight",),
    "tower": ("graph.tower.perceptron.2.*", "graph.tower.id_projection.weight"),
    "prior": ("graph.tower.prior.2.weight",),
    "ids": ("graph.tower.id_projection.weight",),
    TREND: ("graph.tower.gate.weight", "graph.tower.prior.0.weight"),
    "hop 2": ("graph.hop_2.convolutions.*.out.*",),
    "times": ("graph.*.age.*", "graph.*.times.*"),
    "trees": ("pair_head.trees.scale",),
}


@dataclass(frozen=True)
class Scores:
    """MAP@K of every user who bought something after one date, by what was left out."""

    of: dict[str, np.ndarray]


def changed(chosen: settings.Settings, section: str, **values: object) -> settings.Settings:
    """The settings with some values of a section replaced."""
    part = getattr(chosen, section).model_copy(update=values)
    return chosen.model_copy(update={section: part})


def variants(
    chosen: settings.Settings, features: FeatureSchema
) -> Iterator[tuple[str, settings.Settings]]:
    """Name and settings of every model that has to be trained besides the full one."""
    yield "heads", changed(chosen, "model", heads=1)
    training = chosen.training
    groups_of_all = training.num_processes * training.groups_per_batch
    yield "ranks", changed(chosen, "training", num_processes=1, groups_per_batch=groups_of_all)
    yield "negatives", changed(chosen, "training", negative_share=1.0)
    yield "loss", changed(chosen, "training", candidate_loss="softmax")
    for group, names in pair_features.groups(features).items():
        yield f"group {group}", changed(chosen, "model", ignored_features=names)


def prepared_anew(run: Run) -> Iterator[tuple[str, settings.Settings]]:
    """Name and settings of every model whose tables have to be prepared without something."""
    chosen = run.settings
    for table in chosen.event_tables:
        if table != run.query.target_table:
            others = {name: one for name, one in chosen.tables.items() if name != table}
            yield f"table {table}", chosen.model_copy(update={"tables": others})
    num_anchors = len(run.anchor_times(TRAIN))
    yield "anchors", changed(chosen, "snapshots", train_anchors=max(num_anchors // 2, 1))


def silenced(state: bytes, part: str) -> bytes:
    """The same parameters with those of a part of `SILENCED` at 0."""
    parameters = torch.load(io.BytesIO(state))
    for pattern in SILENCED[part]:
        for name in fnmatch.filter(parameters, pattern):
            parameters[name] = torch.zeros_like(parameters[name])
    if part == TREND:
        weights = parameters[TREND_AND_COLUMNS]
        weights[:, len(weights) :] = 0.0
    buffer = io.BytesIO()
    torch.save(parameters, buffer)
    return buffer.getvalue()


def on_date(run: Run, parts: tuple[str, ...], shop: Shop | None) -> Scores:
    """Train and score the full model and every variant of one date."""
    prepared = prepare.prepare(run)
    truth = prepared.truth
    assert truth is not None
    found: dict[str, np.ndarray] = {}
    tracker = open_tracker(run.settings.tracking)

    def is_asked(name: str) -> bool:
        return not parts or name in parts

    def measure(name: str, at: Run, state: bytes) -> None:
        found[name] = _per_user(at, prepared, state, truth, shop)

    def learnt_without(name: str, at: Run, tables: Prepared) -> bytes:
        with tracker.run(f"{name} left out {run.run_date:%Y-%m-%d}") as tracked:
            return learn.learn(at, tables, tracked).serving

    with tracker.run(f"{run.settings.name} ablation {run.run_date:%Y-%m-%d}") as tracked:
        learnt = learn.learn(run, prepared, tracked)
    measure(FULL, run, learnt.serving)
    for part in filter(is_asked, SILENCED):
        measure(part, run, silenced(learnt.serving, part))
    if is_asked(REFIT):
        measure(REFIT, run, learnt.selected)
    for name, chosen in variants(run.settings, interactions.features(prepared.encodings)):
        if not is_asked(name):
            continue
        at = replace(run, settings=chosen)
        measure(name, at, learnt_without(name, at, prepared))
    for name, chosen in prepared_anew(run):
        if not is_asked(name):
            continue
        beside = changed(chosen, "output", workspace=run.settings.stage_path("ablation"))
        spark = run.workspace.spark
        at = start.start(spark, beside, run.query, run.run_date, holdout=False)
        anew = prepare.prepare(at)
        found[name] = _per_user(at, anew, learnt_without(name, at, anew), truth, shop)
    return Scores(found)


def _per_user(
    run: Run, prepared: Prepared, state: bytes, truth: DataFrame, shop: Shop | None
) -> np.ndarray:
    scored = deliver.score(run, prepared, state, SCORE)
    if shop is not None:
        return _expected(run, prepared, scored, truth, shop)
    name = metrics.name(metrics.MAP, run.query.k)
    rows = comparison.score(scored, truth, run.query.k).orderBy(ENTITY).select(name).collect()
    return np.array([row[0] for row in rows])


def _expected(
    run: Run, prepared: Prepared, scored: DataFrame, truth: DataFrame, shop: Shop
) -> np.ndarray:
    """What `demo_oracle.expected_maps` says of those who bought something, by entity."""
    keys = {
        table: {row[NODE]: int(row[KEY]) for row in prepared.graph.keys(table).collect()}
        for table in (run.query.entity_table, run.query.item_table)
    }
    bought = truth.where(F.size(LABELS) > 0).select(ENTITY, F.size(LABELS).alias("size"))
    rows = bought.join(scored.select(ENTITY, ITEMS), on=ENTITY).orderBy(ENTITY).collect()
    known = demo_oracle.oracle_on(shop, run.run_date.date(), run.horizon_days)
    position = {int(key): place for place, key in enumerate(known.assortment.items.item_id_I)}
    of_items, of_users = keys[run.query.item_table], keys[run.query.entity_table]
    lists = np.array([[position[of_items[node]] for node in row[ITEMS]] for row in rows])
    chances = known.chances_UI[[of_users[row[ENTITY]] - 1 for row in rows]]
    sizes = np.array([row["size"] for row in rows])
    return demo_oracle.expected_maps(chances, lists, sizes, run.query.k)


def rows_of(dates: list[Scores]) -> list[tuple[str, list[float], bootstrap.Interval]]:
    """Part, MAP@K without it, and the full model minus that.

    MAP@K of each date and of the users of all dates together, as the difference is.
    """
    full = np.concatenate([scores.of[FULL] for scores in dates])
    rows = []
    for name in dates[0].of:
        of_each = [scores.of[name] for scores in dates]
        without = np.concatenate(of_each)
        means = [float(one.mean()) for one in (*of_each, without)]
        rows.append((name, means, bootstrap.paired_interval(full, without, seed=7)))
    return rows


@click.command()
@click.option("--config", required=True, help="YAML file with the run's settings.")
@click.option("--as-of", "dates", required=True, multiple=True, help="Past date; may be repeated.")
@click.option("--part", "parts", multiple=True, help="Only this part; may be repeated [all].")
@click.option("--shop-until", type=click.DateTime(["%Y-%m-%d"]), help="End of the demo shop.")
@click.option("--record", is_flag=True, help="Append the rows to RESULTS.md.")
def main(
    config: str,
    dates: tuple[str, ...],
    parts: tuple[str, ...],
    shop_until: datetime | None,
    record: bool,
) -> None:
    """Measure what each part is worth."""
    with show.at_terminal("ablation") as console:
        chosen = settings.load(config)
        query = parse(chosen.query, chosen.tables)
        moments = [windows.midnight(text) for text in dates]
        spark = open_session(f"recspark ablation {chosen.name}")
        runs = [start.start(spark, chosen, query, moment, holdout=False) for moment in moments]
        shop = None if shop_until is None else demo_oracle.usual_shop(shop_until.date())
        rows = rows_of([on_date(run, parts, shop) for run in runs])
        table = Table("left out", *dates, "all users", "full minus this (95 %)")
        for name, means, found in rows:
            told = terminal.difference(found)
            table.add_row(name, *(f"{mean:.4f}" for mean in means), told)
            if record:
                with RESULTS.open("a", encoding="utf-8") as file:
                    over = f"{chosen.name} {', '.join(dates)}"
                    file.write(f"| {over} | {name} | {means[-1]:.4f} | {told} |\n")
        console.print(table)


if __name__ == "__main__":
    try:
        main()
    finally:
        close_session()
