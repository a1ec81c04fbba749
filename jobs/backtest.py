"""The weekly pipeline as if on past dates, scored against what was bought after each."""

import json
import time
from dataclasses import replace
from pathlib import Path

import click

from recspark import settings, windows
from recspark.evaluate.resources import Resources
from recspark.evaluate.summary import Judged, summarize
from recspark.pipeline import deliver, judge, learn, prepare, show, start
from recspark.query.parse import parse
from recspark.schema import SCORE
from recspark.session import close_session, open_session
from recspark.tracking import open_tracker


@click.command()
@click.option("--config", required=True, help="YAML file with the run's settings.")
@click.option("--as-of", "dates", required=True, multiple=True, help="Past date; may be repeated.")
@click.option(
    "--seed", "seeds", multiple=True, type=int, help="Of training; may be repeated [config's]."
)
@click.option("--json", "json_file", help="File for the numbers: runs, their summary, resources.")
def main(
    config: str, dates: tuple[str, ...], seeds: tuple[int, ...], json_file: str | None
) -> None:
    """Train on what was known on each date and compare with what happened in the horizon after.

    Each date is prepared once and its baselines are tuned once; each seed trains on it anew.
    """
    with show.at_terminal("backtest") as console, Resources() as resources:
        chosen = settings.load(config)
        query = parse(chosen.query, chosen.tables)
        moments = [windows.midnight(text) for text in dict.fromkeys(dates)]
        trained = tuple(dict.fromkeys(seeds)) or (chosen.seed,)
        spark = open_session(f"recspark backtest {chosen.name}")
        runs = [start.start(spark, chosen, query, moment, holdout=False) for moment in moments]
        tracker = open_tracker(chosen.tracking)

        verdicts, judged = [], []
        for run in runs:
            started = time.monotonic()
            with resources.stage("prepare"):
                prepared = prepare.prepare(run)
            truth = prepared.truth
            assert truth is not None, "a backtest has a truth"
            with resources.stage("baselines"):
                tuned = judge.tune(run, prepared)
                listed = judge.list_baselines(run, prepared, tuned, truth).persist()
                listed.count()
            for seed in trained:
                seeded = replace(run, settings=chosen.model_copy(update={"seed": seed}))
                name = f"{chosen.name} backtest {run.run_date:%Y-%m-%d} seed {seed}"
                with tracker.run(name) as tracked:
                    tracked.log_settings(seeded.settings)
                    tracked.log_inputs(run.sources)
                    with resources.stage("train"):
                        learnt = learn.learn(seeded, prepared, tracked)
                    with resources.stage("score"):
                        scored = deliver.score(seeded, prepared, learnt.serving, SCORE)
                    with resources.stage("judge"):
                        verdict = judge.judge(
                            seeded, prepared, tuned, scored, truth,
                            started=started, listed=listed, draw_seed=chosen.seed,
                        )  # fmt: skip
                    judge.track(tracked, verdict, tuned, query.k, "backtest")
                console.print(judge.table(verdict, f"Backtest {run.run_date:%Y-%m-%d} seed {seed}"))
                verdicts.append({"seed": seed, **verdict.comparison.to_json()})
                as_of = verdict.comparison.as_of
                judged.append(Judged(as_of=as_of, seed=seed, totals=verdict.totals))
                started = time.monotonic()
            listed.unpersist()
            truth.unpersist()
        summary = summarize(judged, judge.OURS)
        if len(judged) > 1:
            console.print(judge.summary_table(summary))
        console.print(judge.resources_table(resources))
        if json_file is not None:
            told = {
                "runs": verdicts,
                "summary": summary.to_json(),
                "seconds": resources.seconds,
                "peak_gib": resources.peak_gib(),
            }
            Path(json_file).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    finally:
        close_session()
