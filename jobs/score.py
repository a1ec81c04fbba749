"""The second half of the weekly job: recommendations by a model that is already registered."""

import time
from dataclasses import asdict

import click

from recspark.pipeline import deliver, show, start
from recspark.registry import CHAMPION, Registry
from recspark.session import close_session
from recspark.tracking import open_tracker


@click.command()
@click.option("--config", required=True, help="YAML file with the run's settings.")
@click.option("--run-date", required=True, help="Date to recommend for, such as 2026-11-23 (UTC).")
@click.option("--alias", default=CHAMPION, show_default=True, help="Of the version that scores.")
def main(config: str, run_date: str, alias: str) -> None:
    """Write recommendations for the run date with the model that has the alias now."""
    started = time.monotonic()
    with show.at_terminal("score") as console:
        run = start.open_run("score", config, run_date, splits=start.SCORING)
        tracker = open_tracker(run.settings.tracking)
        models = Registry(name=run.settings.model_name)
        version = models.resolve(alias)

        with tracker.run(f"{run.settings.name} score {run_date}") as tracked:
            tracked.log_settings(run.settings)
            tracked.log_inputs(run.sources)
            tracked.log_json(asdict(version), "model.json")

            serving = deliver.fetch(run, models, version)
            scored = deliver.recommend(serving)

            show.delivered(console, run, serving, scored, tracker, tracked, started=started)


if __name__ == "__main__":
    try:
        main()
    finally:
        close_session()
