"""The model as MLflow serves it: this file is the model's code, its artifacts are the rest.

Input is one binary column `subgraphs`, each value an Arrow IPC stream with the columns of
`schema.SUBGRAPHS`, both hops included, of the run that trained the model. Output is one row per
seed: `entity` (bigint node), `items` (bigint nodes, best first) and `scores` (double, decreasing).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
import pyarrow as pa
from mlflow.pyfunc.model import PythonModel

from recspark import settings
from recspark.encodings import Encodings
from recspark.query.parse import parse
from recspark.recommend import model_files

if TYPE_CHECKING:
    from recspark.gnn.catalogue import Catalogue
    from recspark.gnn.model import Network


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """What a version consists of."""

    network: "Network"
    catalogue: "Catalogue"
    k: int


def load(*, state: Path, encodings: Path, settings_file: Path, catalogue: Path) -> LoadedModel:
    """Read a version's files: torch state (weights only, on the CPU), JSON, YAML, Parquet."""
    from recspark.gnn.serving import load as load_network

    fitted = Encodings.model_validate_json(encodings.read_text(encoding="utf-8"))
    chosen = settings.load(settings_file)
    return LoadedModel(
        network=load_network(state.read_bytes(), fitted, chosen.model),
        catalogue=model_files.read_catalogue(catalogue, fitted),
        k=parse(chosen.query, chosen.tables).k,
    )


def decode(model_input: pd.DataFrame) -> pa.Table:
    """The rows of all Arrow streams in the column `subgraphs`, in order.

    Raises:
        ValueError: the column is missing or holds something else.
    """
    if "subgraphs" not in model_input.columns or model_input.empty:
        raise ValueError(
            f"model input: needs at least one row with a binary column 'subgraphs', got "
            f"{len(model_input)} rows with {sorted(model_input.columns)}."
        )
    try:
        streams = [pa.ipc.open_stream(bytes(s)).read_all() for s in model_input["subgraphs"]]
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"model input: 'subgraphs' should be Arrow IPC streams ({error})."
        ) from None
    return pa.concat_tables(streams)


def recommend(model: LoadedModel, subgraphs: pa.Table) -> pd.DataFrame:
    """The best items on sale for every seed: columns `entity`, `items`, `scores`."""
    import torch

    from recspark.gnn import batches, ranking

    encodings = model.network.encodings
    found: list[tuple[int, list[int], list[float]]] = []
    for row in range(subgraphs.num_rows):
        (group,) = subgraphs.slice(row, 1).combine_chunks().to_batches()
        batch = batches.read([group], encodings)
        with torch.no_grad():
            outputs = model.network(batch, model.catalogue, None)
        available = model.catalogue.available(batch.anchor_days)
        items, scores = ranking.top_k(outputs, batch, available, model.k)
        entities = batch.nodes[0, encodings.entity_table].nodes_N
        found += zip(entities.tolist(), items.tolist(), scores.double().tolist(), strict=True)
    return pd.DataFrame(found, columns=["entity", "items", "scores"])


class RecsparkModel(PythonModel):
    """A trained network with what it needs to read subgraphs."""

    def load_context(self, context: Any) -> None:
        """Read the files of the version."""
        paths = {name: Path(path) for name, path in context.artifacts.items()}
        self.model = load(
            state=paths["state"],
            encodings=paths["encodings"],
            settings_file=paths["settings"],
            catalogue=paths["catalogue"],
        )

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Recommend for every seed of the given subgraphs."""
        return recommend(self.model, decode(model_input))


mlflow.models.set_model(RecsparkModel())
