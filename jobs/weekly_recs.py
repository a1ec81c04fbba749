"""The weekly job: Delta tables in, recommendations for the run date out."""

import time

import click

from recspark import registry, settings, windows
from recspark.pipeline import deliver, judge, learn, prepare, promote, show, start
from recspark.query.parse import parse
from recspark.report import terminal
from recspark.schema import SCORE, TEST
from recspark.session import open_session
from recspark.tracking import open_tracker


@click.command()
@click.option("--config", required=True, help="YAML file with the run's settings.")
@click.option("--run-date", required=True, help="Date to recommend for, such as 2026-11-23 (UTC).")
def main(config: str, run_date: str) -> None:
    """Train on what the tables hold up to the run date and write recommendations for it."""
    started = time.monotonic()
    with show.at_terminal("weekly_recs") as console:
        chosen = settings.load(config)
        query = parse(chosen.query, chosen.tables)
        moment = windows.midnight(run_date)
        spark = open_session(f"recspark weekly_recs {chosen.name}")
        run = start.start(spark, chosen, query, moment, holdout=True)
        tracker = open_tracker(chosen.tracking)

        with tracker.run(f"{chosen.name} {run_date}") as tracked:
            tracked.log_settings(chosen)
            tracked.log_inputs(run.sources)

            prepared = prepare.prepare(run)
            learnt = learn.learn(run, prepared, tracked)

            tuned = judge.tune(run, prepared)
            on_test = deliver.score(run, prepared, learnt.selected, TEST)
            truth = judge.test_truth(prepared)
            verdict = judge.judge(run, prepared, tuned, on_test, truth, started=started)
            judge.track(tracked, verdict, tuned, query.k, "test")

            models = registry.Registry(name=chosen.model_name)
            version = learn.register(run, prepared, learnt, tracked)
            serving = promote.choose(models, version, learnt, tuned)
            prepared, state, shape = deliver.serving(
                run, prepared, learnt, models, version, serving
            )
            scored = deliver.score(run, prepared, state, SCORE, shape)
            num_entities = scored.count()
            deliver.deliver(run, prepared, scored, serving)

            console.print(judge.table(verdict, f"Test {run.anchor_times(TEST)[0]:%Y-%m-%d}"))
            shown = show.examples(run, prepared)
            entity, item = query.entity.column, query.target_item_key
            console.print(terminal.recommendations_table(shown, entity=entity, item=item))
            console.print(
                terminal.run_summary(
                    recommendations=chosen.output.recommendations,
                    num_rows=show.num_rows(run),
                    num_entities=num_entities,
                    model=f"{serving.name} version {serving.version}",
                    run_id=tracked.run_id,
                    tracking_uri=tracker.uri,
                    seconds=time.monotonic() - started,
                )
            )


if __name__ == "__main__":
    main()
