"""The weekly job: Delta tables in, recommendations for the run date out."""

import time

import click

from recspark.pipeline import deliver, judge, learn, prepare, promote, show, start
from recspark.registry import Registry
from recspark.schema import TEST
from recspark.session import close_session
from recspark.tracking import open_tracker


@click.command()
@click.option("--config", required=True, help="YAML file with the run's settings.")
@click.option("--run-date", required=True, help="Date to recommend for, such as 2026-11-23 (UTC).")
def main(config: str, run_date: str) -> None:
    """Train on what the tables hold up to the run date and write recommendations for it."""
    started = time.monotonic()
    with show.at_terminal("weekly_recs") as console:
        run = start.open_run("weekly_recs", config, run_date)
        tracker = open_tracker(run.settings.tracking)
        models = Registry(name=run.settings.model_name)

        with tracker.run(f"{run.settings.name} {run_date}") as tracked:
            tracked.log_settings(run.settings)
            tracked.log_inputs(run.sources)

            prepared = prepare.prepare(run)
            learnt = learn.learn(run, prepared, tracked)
            tuned = judge.tune(run, prepared)
            verdict = judge.on_test(run, prepared, learnt, tuned, tracked, started=started)

            version = learn.register(run, prepared, learnt, tracked)
            standing = promote.judge_champion(run, models, version, tracked)
            champion = promote.choose(models, version, learnt, tuned, standing, tracked)

            serving = deliver.serving(run, prepared, learnt, models, version, champion)
            scored = deliver.recommend(serving)

            console.print(judge.table(verdict, f"Test {run.anchor_times(TEST)[0]:%Y-%m-%d}"))
            show.delivered(console, run, serving, scored, tracker, tracked, started=started)


if __name__ == "__main__":
    try:
        main()
    finally:
        close_session()
