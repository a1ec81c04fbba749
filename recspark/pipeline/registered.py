"""Models that are registered already, and the stage tables as they read them."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from recspark import schema, settings
from recspark.encodings import Encodings, TableEncoding
from recspark.pipeline import prepare as stages
from recspark.pipeline.prepare import Prepared
from recspark.pipeline.start import Run
from recspark.prepare import interactions, item_trends, pair_features
from recspark.prepare.anchors import Anchor
from recspark.registry import ModelVersion, Registry
from recspark.tables import Workspace

# Under the workspace: a model of another run has other encodings, and the tables of the run that
# fetches it must stay whole.
FOLDER = "registered"


@dataclass(frozen=True, kw_only=True)
class RegisteredModel:
    """What a registered version consists of."""

    version: ModelVersion
    serving: bytes  # state to serve with
    selected: bytes  # state that has learnt neither from its run's validation nor from its test
    encodings: Encodings
    settings: settings.Settings


def download(registry: Registry, version: ModelVersion) -> RegisteredModel:
    """The files of a registered version.

    Raises:
        ValueError: they are those of another release, or damaged.
    """
    with tempfile.TemporaryDirectory() as folder:
        artifacts = registry.download(version, Path(folder)) / "artifacts"
        try:
            encodings = Encodings.model_validate_json((artifacts / "encodings.json").read_bytes())
            as_trained = settings.load(artifacts / "settings.yaml")
        except ValueError as fault:
            said = " ".join(str(fault).split())
            raise _of_another_release(version, f"and cannot be read: {said}") from None
        model = RegisteredModel(
            version=version,
            serving=(artifacts / "state.pt").read_bytes(),
            selected=(artifacts / "selected.pt").read_bytes(),
            encodings=encodings,
            settings=as_trained,
        )
    _check_parameters(model)
    return model


def _check_parameters(model: RegisteredModel) -> None:
    """Check that this release's network has the parameters of both states."""
    from recspark.gnn import serving

    version = model.version
    for file, state in (("state.pt", model.serving), ("selected.pt", model.selected)):
        try:
            serving.load(state, model.encodings, model.settings.model)
        except serving.DamagedState:
            raise ValueError(
                f"version {version.version} of model {version.name} has a damaged file '{file}'; "
                f"restore it where MLflow keeps the artifacts, or train a new version."
            ) from None
        except RuntimeError:  # of torch, with pages of names
            raise _of_another_release(version, "whose network has other parameters") from None


def prepare(run: Run, model: RegisteredModel, anchors: Sequence[Anchor]) -> tuple[Run, Prepared]:
    """Write the stage tables of these anchors as the model reads them, in a folder of their own.

    Returns:
        The run as it was prepared, whose workspace is that folder, and its tables.

    Raises:
        ValueError: the run's tables are not those that the model was trained on.
    """
    check_readable(run, model)
    output = run.settings.output
    as_trained = run.settings.model_copy(
        update={
            "candidates": model.settings.candidates,
            "sampling": model.settings.sampling,
            "output": output.model_copy(update={"workspace": run.settings.stage_path(FOLDER)}),
        }
    )
    workspace = Workspace(
        spark=run.workspace.spark, settings=as_trained, run_date=run.workspace.run_date
    )
    alike = replace(run, settings=as_trained, anchors=tuple(anchors), workspace=workspace)
    return alike, stages.prepare(alike, model.encodings)


def check_readable(run: Run, model: RegisteredModel) -> None:
    """Check that the run declares every table, key and column that the model reads.

    Raises:
        ValueError: what is missing or has another kind, or this release computes other features.
    """
    encodings, query = model.encodings, run.query
    asked = {
        "recommends to": (encodings.entity_table, query.entity_table),
        "recommends": (encodings.item_table, query.item_table),
        "learnt from": (encodings.target_table, query.target_table),
        "finds users by": (encodings.target_entity_key, query.target_entity_key),
        "finds items by": (encodings.target_item_key, query.target_item_key),
    }
    for role, (trained, now) in asked.items():
        if trained != now:
            raise _unreadable(model, f"it {role} '{trained}', the query says '{now}'")
    for name, encoding in encodings.nodes.items():
        if name not in run.settings.node_tables:
            raise _unreadable(model, f"no node table '{name}' is declared")
        _check_table(run, model, name, encoding)
    for name, encoding in encodings.events.items():
        if name not in run.settings.event_tables:
            raise _unreadable(model, f"no event table '{name}' is declared")
        _check_table(run, model, name, encoding)
    _check_features(run, model)


def _check_features(run: Run, model: RegisteredModel) -> None:
    features = interactions.features(model.encodings)
    for kind, trained, now in (
        ("pair", model.encodings.pair_names, pair_features.pair_names(features)),
        ("item", model.encodings.trend_names, item_trends.trend_names(features)),
    ):
        if trained != now:
            apart = sorted(set(trained) ^ set(now))[:3] or ["their order"]
            said = f"whose {kind} features differ ({', '.join(apart)})"
            raise _of_another_release(model.version, said)


def _check_table(run: Run, model: RegisteredModel, name: str, encoding: TableEncoding) -> None:
    declared = tuple(run.settings.tables[name].foreign_keys.items())
    if declared != encoding.foreign_keys:
        raise _unreadable(
            model,
            f"it knows the foreign keys {dict(encoding.foreign_keys)} of '{name}', the config "
            f"declares {dict(declared)}",
        )
    kinds = run.sources[name].types()
    numbers = [number.column for number in encoding.numbers]
    others = [*(category.column for category in encoding.categories), *encoding.times]
    for column in (*numbers, *others, *encoding.texts):
        if column not in kinds:
            raise _unreadable(model, f"'{name}' has no column '{column}'")
    for column in numbers:
        kind = kinds[column]
        if not schema.is_number(kind):
            raise _unreadable(model, f"'{name}.{column}' is {kind}, it was a number")


def _unreadable(model: RegisteredModel, fault: str) -> ValueError:
    version = model.version
    return ValueError(
        f"version {version.version} of model {version.name} cannot read today's tables: {fault}; "
        f"train a new version, or correct the config."
    )


def _of_another_release(version: ModelVersion, said: str) -> ValueError:
    return ValueError(
        f"version {version.version} of model {version.name} was made by another release, {said}; "
        f"train a new version."
    )
