"""MLflow runs: parameters, input tables, curves, files and the model. Only the driver uses it.

The registry of models is in `recspark.registry`.
"""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import mlflow
from mlflow.data.delta_dataset_source import DeltaDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.models.signature import ModelSignature
from mlflow.types.schema import Array, ColSpec, DataType, Schema

from recspark import settings
from recspark.tables import Source

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

MODEL_CODE = Path(__file__).parent / "recommend" / "pyfunc_model.py"
# What the model needs where it is served; named here, since MLflow's own search takes a minute.
MODEL_PACKAGES = (
    "recspark", "torch", "torch-geometric", "numpy", "pandas", "pyarrow", "pydantic", "pyyaml",
)  # fmt: skip
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(DataType.binary, "subgraphs")]),
    outputs=Schema(
        [
            ColSpec(DataType.long, "entity"),
            ColSpec(Array(DataType.long), "items"),
            ColSpec(Array(DataType.double), "scores"),
        ]
    ),
)
MAX_PARAMETERS_PER_REQUEST = 100  # MLflow's limit


@dataclass(frozen=True, kw_only=True)
class Tracker:
    """A tracking server that answers, and the experiment of these settings there."""

    uri: str
    experiment_id: str

    @contextmanager
    def run(self, name: str) -> Iterator["Run"]:
        """Open a run; it ends as FAILED when the block raises."""
        with mlflow.start_run(experiment_id=self.experiment_id, run_name=name) as active:
            yield Run(run_id=active.info.run_id)


@dataclass(frozen=True, kw_only=True)
class Run:
    """The open run of this process."""

    run_id: str

    def log_settings(self, chosen: settings.Settings) -> None:
        """Log every setting as a parameter named like its key, such as `model.width`."""
        parameters = list(flatten(chosen.model_dump(mode="json")).items())
        for first in range(0, len(parameters), MAX_PARAMETERS_PER_REQUEST):
            mlflow.log_params(dict(parameters[first : first + MAX_PARAMETERS_PER_REQUEST]))

    def log_inputs(self, sources: Mapping[str, Source]) -> None:
        """Log each source table at its pinned version: a dataset and a tag `table_version.<name>`.

        Nothing is read or counted. The version is the dataset's digest too, as MLflow leaves
        version 0 out of a Delta source.
        """
        for name, source in sources.items():
            origin = DeltaDatasetSource(
                path=source.declared.path,
                delta_table_name=source.declared.name,
                delta_table_version=source.version,
            )
            digest = f"v{source.version}"
            dataset = MetaDataset(origin, name=name, digest=digest)  # type: ignore[abstract]
            mlflow.log_input(dataset, context="training")
        mlflow.set_tags({f"table_version.{name}": s.version for name, s in sources.items()})

    def log_history(
        self, history: Sequence[Mapping[str, float | None]], *, k: int, phase: str = "train"
    ) -> None:
        """Log one point per epoch (`epoch`, from 1) and curve; entries that are None are left out.

        `validation_map` becomes `<phase>/val_map_at_<k>_per_epoch`, `seconds`
        `<phase>/seconds_per_epoch`, and any other key `<phase>/<key>`. A curve needs a name of its
        own: under the name of a final metric its last point would be taken for that.
        """
        curves = {
            "validation_map": f"val_map_at_{k}_per_epoch", "seconds": "seconds_per_epoch"
        }  # fmt: skip
        for point in history:
            measured = {
                f"{phase}/{curves.get(key, key)}": v
                for key, v in point.items()
                if key != "epoch" and v is not None
            }
            epoch = point["epoch"]
            assert epoch is not None
            mlflow.log_metrics(measured, step=int(epoch))

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Log final metrics; names have the form `test/map_at_12` or `val/map_at_12/popularity`."""
        mlflow.log_metrics(dict(metrics))

    def log_text(self, text: str, file: str) -> None:
        """Keep a text as this file of the run."""
        mlflow.log_text(text, file)

    def log_json(self, content: dict[str, Any], file: str) -> None:
        """Keep a document as this JSON file of the run."""
        mlflow.log_dict(content, file)

    def log_figure(self, figure: "Figure", file: str) -> None:
        """Keep a matplotlib figure as this image file of the run."""
        mlflow.log_figure(figure, file)

    def log_model(
        self, *, state: Path, selected: Path, encodings: Path, settings_file: Path, catalogue: Path
    ) -> str:
        """Log the pyfunc model from code with its files and return its URI.

        It serves `state`; `selected` has not learnt from validation and only travels along.
        The model takes one column `subgraphs`, see `recspark.recommend.pyfunc_model`.
        """
        with warnings.catch_warnings():
            # An example would be a whole subgraph, and MLflow would run the model on it.
            warnings.filterwarnings("ignore", message=".*input example was not provided")
            logged = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(MODEL_CODE),
                artifacts={
                    "state": str(state),
                    "selected": str(selected),
                    "encodings": str(encodings),
                    "settings": str(settings_file),
                    "catalogue": str(catalogue),
                },
                signature=SIGNATURE,
                pip_requirements=_requirements(),
            )
        return str(logged.model_uri)


def _requirements() -> list[str]:
    """Exact versions of what the model needs; XGBoost has another name on some platforms."""
    trees = sorted(set(packages_distributions().get("xgboost", [])))
    return [f"{package}=={version(package)}" for package in (*MODEL_PACKAGES, *trees)]


def open_tracker(chosen: settings.Tracking) -> Tracker:
    """Connect to MLflow and find or create the experiment.

    `MLFLOW_TRACKING_URI` goes before `chosen.uri`. The folder of a sqlite file is created.

    Raises:
        ValueError: a file store, a server that does not answer, an experiment that was deleted.
    """
    quieten()
    in_environment = os.environ.get("MLFLOW_TRACKING_URI")
    place = "MLFLOW_TRACKING_URI" if in_environment else "tracking.uri"
    uri = _usable(in_environment or chosen.uri, place)
    mlflow.set_tracking_uri(uri)
    if not in_environment:  # MLflow sets it for subprocesses; training ranks do not talk to MLflow
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    try:
        with _one_quick_request():
            found = mlflow.get_experiment_by_name(chosen.experiment)
    except MlflowException as error:
        raise ValueError(
            f"{place} '{uri}' does not answer ({_first_line(error)}); start the server, correct "
            f"the URI, or use sqlite:///mlflow.db."
        ) from error
    return Tracker(uri=uri, experiment_id=_experiment_id(chosen, found))


def quieten() -> None:
    """Silence MLflow's progress bars, printed links and migration lines; warnings still show."""
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def flatten(content: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one level, keys joined by dots; lists are values, None is left out."""
    if not isinstance(content, dict):
        return {} if content is None else {prefix: content}
    parts = [flatten(v, f"{prefix}.{key}" if prefix else key) for key, v in content.items()]
    return {key: value for part in parts for key, value in part.items()}


def _usable(uri: str, place: str) -> str:
    """The URI, a sqlite file made absolute and its folder created; file stores are refused."""
    scheme = urlsplit(uri).scheme
    if scheme in ("", "file"):
        raise ValueError(
            f"{place} '{uri}' is a file store, which MLflow 3 refuses; use sqlite:///mlflow.db or "
            f"the address of a server."
        )
    if not scheme.startswith("sqlite") or uri.count("///") == 0 or uri.endswith(":memory:"):
        return uri
    head, _, file = uri.partition("///")
    absolute = Path(file).absolute()
    absolute.parent.mkdir(parents=True, exist_ok=True)
    return f"{head}///{absolute}"


def _experiment_id(chosen: settings.Tracking, found: Experiment | None) -> str:
    if found is None:
        location = chosen.artifacts
        if location is not None and "://" not in location:
            location = Path(location).absolute().as_uri()
        return str(mlflow.create_experiment(chosen.experiment, artifact_location=location))
    if found.lifecycle_stage != "active":
        raise ValueError(
            f"tracking.experiment '{chosen.experiment}' was deleted in MLflow; restore it there or "
            f"choose another name."
        )
    return str(found.experiment_id)


@contextmanager
def _one_quick_request() -> Iterator[None]:
    """Ask a server once and for 10 s; MLflow's own retries go on for minutes."""
    limits = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
    ours = {name: value for name, value in limits.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
