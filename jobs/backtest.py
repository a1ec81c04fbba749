"""The weekly pipeline as if on past dates, scored against what was bought after each."""

import json
import time
from pathlib import Path

import click

from recspark import settings, windows
from recspark.pipeline import deliver, judge, learn, prepare, show, start
from recspark.query.parse import parse
from recspark.schema import SCORE
from recspark.session import close_session, open_session
from recspark.tracking import open_tracker


@click.command()
@click.option("--config", required=True, help="YAML file with the run's settings.")
@click.option("--as-of", "dates", required=True, multiple=True, help="Past date; may be repeated.")
@click.option("--json", "json_file", help="File for the numbers, a list with one object per date.")
def main(config: str, dates: tuple[str, ...], json_file: str | None) -> None:
    """Train on what was known on each date and compare with what happened in the horizon after."""
    with show.at_terminal("backtest") as console:
        chosen = settings.load(config)
        query = parse(chosen.query, chosen.tables)
        moments = [windows.midnight(text) for text in dates]
        spark = open_session(f"recspark backtest {chosen.name}")
        runs = [start.start(spark, chosen, query, moment, holdout=False) for moment in moments]
        tracker = open_tracker(chosen.tracking)

        results = []
        for run in runs:
            started = time.monotonic()
            with tracker.run(f"{chosen.name} backtest {run.run_date:%Y-%m-%d}") as tracked:
                tracked.log_settings(chosen)
                tracked.log_inputs(run.sources)
                prepared = prepare.prepare(run)
                learnt = learn.learn(run, prepared, tracked)
                tuned = judge.tune(run, prepared)
                scored = deliver.score(run, prepared, learnt.serving, SCORE)
                truth = judge.future_truth(run, prepared)
                verdict = judge.judge(run, prepared, tuned, scored, truth, started=started)
                judge.track(tracked, verdict, tuned, query.k, "backtest")
            console.print(judge.table(verdict, f"Backtest {run.run_date:%Y-%m-%d}"))
            results.append(verdict.comparison.to_json())
        if json_file is not None:
            Path(json_file).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    finally:
        close_session()
