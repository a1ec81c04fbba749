"""The first half of the weekly job: train, judge and register a model; `score.py` is the other."""

import time

import click

from recspark.pipeline import judge, learn, prepare, promote, show, start
from recspark.registry import Registry
from recspark.schema import TEST
from recspark.session import close_session
from recspark.tracking import open_tracker


@click.command()
@click.option("--config", required=True, help="YAML file with the run's settings.")
@click.option("--run-date", required=True, help="Date up to which to learn (UTC).")
def main(config: str, run_date: str) -> None:
    """Train on what the tables hold up to the run date and register the model."""
    started = time.monotonic()
    with show.at_terminal("train") as console:
        run = start.open_run("train", config, run_date, splits=start.LEARNING)
        tracker = open_tracker(run.settings.tracking)
        models = Registry(name=run.settings.model_name)

        with tracker.run(f"{run.settings.name} train {run_date}") as tracked:
            tracked.log_settings(run.settings)
            tracked.log_inputs(run.sources)

            prepared = prepare.prepare(run)
            learnt = learn.learn(run, prepared, tracked)
            tuned = judge.tune(run, prepared)
            verdict = judge.on_test(run, prepared, learnt, tuned, tracked, started=started)

            version = learn.register(run, prepared, learnt, tracked)
            standing = promote.judge_champion(run, models, version, tracked)
            champion = promote.choose(models, version, learnt, tuned, standing, tracked)

            console.print(judge.table(verdict, f"Test {run.anchor_times(TEST)[0]:%Y-%m-%d}"))
            show.trained(console, version, champion, tracker, tracked, started=started)


if __name__ == "__main__":
    try:
        main()
    finally:
        close_session()
