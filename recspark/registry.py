"""Registered models: versions and the aliases that say which of them serves."""

from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

CHAMPION = "champion"  # the version that scoring uses
CHALLENGER = "challenger"  # the newest version that has not won


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """One version of a registered model; resolved once, then used throughout a run."""

    name: str
    version: int
    run_id: str  # MLflow run that trained it

    @property
    def uri(self) -> str:
        """Where MLflow finds it, by number: it stays the same when an alias moves."""
        return f"models:/{self.name}/{self.version}"


@dataclass(frozen=True, kw_only=True)
class Registry:
    """The versions of one registered model, at the tracking server that is in use.

    Open a `recspark.tracking.Tracker` first: it sets and checks the server.
    """

    name: str

    def register(self, model_uri: str, run_id: str) -> ModelVersion:
        """Make a logged model the next version: `champion` if there is none, else `challenger`."""
        client = MlflowClient()
        try:
            registered = client.get_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            registered = client.create_registered_model(self.name)
        alias = CHALLENGER if CHAMPION in registered.aliases else CHAMPION
        created = client.create_model_version(self.name, source=model_uri, run_id=run_id)
        client.set_registered_model_alias(self.name, alias, created.version)
        return ModelVersion(name=self.name, version=int(created.version), run_id=run_id)

    def promote(self, version: ModelVersion) -> None:
        """Make this version the champion; it is a challenger no longer."""
        client = MlflowClient()
        client.set_registered_model_alias(self.name, CHAMPION, str(version.version))
        if self._version_of(CHALLENGER) == version:
            client.delete_registered_model_alias(self.name, CHALLENGER)

    def resolve(self, alias: str) -> ModelVersion:
        """The version that has this alias now.

        Raises:
            ValueError: no version has it.
        """
        found = self._version_of(alias)
        if found is None:
            raise ValueError(
                f"model '{self.name}' has no version with alias '{alias}' in "
                f"{mlflow.get_tracking_uri()}; train one first or correct tracking.uri."
            )
        return found

    def download(self, version: ModelVersion, folder: Path) -> Path:
        """Copy the files of a version under `folder` and return where they lie."""
        folder.mkdir(parents=True, exist_ok=True)
        local = mlflow.artifacts.download_artifacts(artifact_uri=version.uri, dst_path=str(folder))
        return Path(local)

    def _version_of(self, alias: str) -> ModelVersion | None:
        try:
            found = MlflowClient().get_model_version_by_alias(self.name, alias)
        except MlflowException as error:
            # MLflow says "invalid" for an alias that a known model does not have.
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            return None
        return ModelVersion(name=self.name, version=int(found.version), run_id=str(found.run_id))
