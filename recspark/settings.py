"""One run's settings: a YAML file read strictly, impossible values refused before Spark starts.

Runs differ by file, not by flag. Every field has a type, a default where one is honest, and a
sentence with its unit. The seed has no default: a run without one is not a run.
"""

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

# Names end up in the conditions of slices and in the registry, so quotes and slashes are refused.
NAME_PATTERN = r"[A-Za-z0-9_.-]+"


BaselineName = Literal["segment_popularity", "als", "item_item", "personal_frequency", "tifu_knn"]
CandidateLoss = Literal["lambda_rank", "softmax"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


class Table(_Section):
    """A source table: where it lies, and which of its columns mean what."""

    path: str | None = None  # folder or URI of a Delta table
    name: str | None = None  # or its name in the catalog
    primary_key: str | None = None  # column whose value names the row; unique, never null
    time_column: str | None = None  # event tables: when it happened; node tables: exists from
    end_time_column: str | None = None  # node tables: exists until, exclusive; null: no end
    foreign_keys: dict[str, str] = Field(default_factory=dict)  # column -> table it points to
    ignore: tuple[str, ...] = ()  # columns that are never read as features
    price_column: str | None = None  # event tables: amount paid per unit; default: by its name
    quantity_column: str | None = None  # event tables: units bought; default: by its name

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.name is None):
            raise ValueError("give either path or name")
        return self

    @model_validator(mode="after")
    def _amounts_are_read(self) -> Self:
        for role in ("price_column", "quantity_column"):
            if getattr(self, role) in self.ignore:
                raise ValueError(f"{role} is under ignore too; take it out of one of the two")
        return self

    @property
    def location(self) -> str:
        """Path or catalog name, for messages."""
        return self.path if self.path is not None else str(self.name)


class Snapshots(_Section):
    """Which past moments are learnt from."""

    train_anchors: PositiveInt | None = None  # number of training snapshots; default: by the data
    step_days: PositiveInt | None = None  # days between them; default: by the horizon
    max_seeds_per_anchor: PositiveInt = 200_000  # a hash of (seed, key) chooses beyond that


class Sampling(_Section):
    """How wide a subgraph reaches from its anchor."""

    fanouts: tuple[PositiveInt, PositiveInt] = (32, 8)  # newest events kept per foreign key and hop
    group_size: PositiveInt = 16  # seeds that share one subgraph row


class Candidates(_Section):
    """Which items are looked at pair by pair."""

    per_seed: PositiveInt = 100  # items per seed after merging the sources
    similar_per_item: PositiveInt = 50  # co-purchased items kept per item
    history_per_entity: PositiveInt = 100  # newest distinct items counted for co-purchase


class Model(_Section):
    """The shape of the network."""

    width: Annotated[int, Field(ge=8, multiple_of=4)] = 64  # channels of every hidden vector
    id_width: Annotated[int, Field(ge=4)] = 32  # channels of the gated id embedding
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    heads: PositiveInt = 4  # pair heads, averaged: they err apart
    ignored_features: tuple[str, ...] = ()  # pair features that count as missing everywhere
    max_categories: PositiveInt = 200  # distinct values kept per category column
    text_buckets: PositiveInt = 2048  # hash buckets of word n-grams


class Training(_Section):
    """How the network learns."""

    num_processes: PositiveInt = 2  # ranks; each takes one Spark task slot
    use_gpu: bool = False  # nccl on GPUs that Spark assigns; else gloo on CPUs
    max_epochs: PositiveInt | None = None  # default: by the number of training labels
    patience: PositiveInt = 2  # epochs clearly below the best validation MAP@K before stopping
    groups_per_batch: PositiveInt = 2  # of seeds per rank and step of the heads; of the graph twice
    negative_share: Annotated[float, Field(gt=0, le=1)] = 0.33  # of candidates nobody bought
    candidate_loss: CandidateLoss = "lambda_rank"  # of the heads; or "softmax" over candidates
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 0.008  # of the heads: one-cycle peak
    graph_learning_rate: Annotated[float, Field(gt=0, lt=1)] = 0.004  # of all other parameters
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    trees: bool = True  # add boosted trees, unless validation is clearly worse with them
    refit: bool = True  # train again with the validation labels, for the epochs validation chose
    max_attempts: PositiveInt = 3  # launches before giving up; each resumes from the checkpoint


class Evaluation(_Section):
    """What the model is compared with."""

    baselines: tuple[BaselineName, ...] = get_args(BaselineName)  # popularity always


class Output(_Section):
    """Where a run writes."""

    recommendations: str  # folder or URI of the Delta table of recommendations
    workspace: str  # folder or URI under which the stage tables live
    checkpoints: str | None = None  # folder that every rank reaches; default: in the workspace

    @model_validator(mode="after")
    def _checkpoints_are_a_folder(self) -> Self:
        place = self.checkpoints or self.workspace
        if "://" in place:
            raise ValueError(
                f"checkpoints need a mounted folder that every rank reaches, not '{place}'; "
                f"set output.checkpoints"
            )
        return self


class Tracking(_Section):
    """MLflow. `MLFLOW_TRACKING_URI` in the environment goes before `uri`."""

    uri: str = "sqlite:///mlflow.db"
    experiment: str = "recspark"
    artifacts: str | None = None  # where a new experiment keeps its files; default: MLflow's own
    model_name: str | None = None  # registered model; default: recspark-<name>


class Settings(_Section):
    """Everything that decides what a run does."""

    name: str  # of the query: the `query` column of the output, part of the model's name
    tables: dict[str, Table]
    query: str  # PREDICT LIST_DISTINCT(...) RANK TOP k FOR EACH ... [WHERE ...]
    seed: int
    output: Output
    snapshots: Snapshots = Snapshots()
    sampling: Sampling = Sampling()
    candidates: Candidates = Candidates()
    model: Model = Model()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    tracking: Tracking = Tracking()

    @field_validator("name")
    @classmethod
    def _name_is_plain(cls, name: str) -> str:
        if not re.fullmatch(NAME_PATTERN, name):
            raise ValueError(f"use letters, digits, '_', '.' and '-' only, not '{name}'")
        return name

    @model_validator(mode="after")
    def _keys_point_somewhere(self) -> Self:
        for name, table in self.tables.items():
            for column, target in table.foreign_keys.items():
                where = f"tables.{name}.foreign_keys.{column}"
                if target not in self.tables:
                    raise ValueError(f"{where}: no table '{target}'{nearest(target, self.tables)}")
                if self.tables[target].primary_key is None:
                    raise ValueError(f"{where}: table '{target}' has no primary_key")
                if target == name:
                    raise ValueError(f"{where}: a table cannot point to itself")
        for name in self.tables:
            if name not in self.node_tables and name not in self.event_tables:
                raise ValueError(
                    f"tables.{name}: give it a time_column and foreign_keys (an event table), or "
                    f"let another table's foreign_keys point to it (a node table)"
                )
        return self

    @property
    def node_tables(self) -> tuple[str, ...]:
        """Tables that a foreign key points to, in declared order."""
        pointed_to = {to for table in self.tables.values() for to in table.foreign_keys.values()}
        return tuple(name for name in self.tables if name in pointed_to)

    @property
    def event_tables(self) -> tuple[str, ...]:
        """Tables of events: with a time and foreign keys, and none that points to them."""
        return tuple(
            name
            for name, table in self.tables.items()
            if name not in self.node_tables and table.time_column and table.foreign_keys
        )

    @property
    def model_name(self) -> str:
        """Name under which the model is registered."""
        return self.tracking.model_name or f"recspark-{self.name}"

    @property
    def checkpoint_root(self) -> str:
        """Folder under which training keeps its checkpoints."""
        return self.output.checkpoints or self.stage_path("checkpoints")

    def stage_path(self, table: str) -> str:
        """Where the stage table of this name lies."""
        return f"{self.output.workspace.rstrip('/')}/{table}"


def nearest(word: str, known: Any) -> str:
    """A hint for a misspelt word: `; did you mean 'users'? Known: items, users`."""
    names = sorted(str(name) for name in known)
    close = get_close_matches(word, names, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ";"
    return f"{hint} Known: {', '.join(names) or 'none'}."


def load(path: str | Path) -> Settings:
    """Read a run's settings from a YAML file.

    Raises:
        ValueError: one sentence per fault, naming the key, when the file is missing, is not YAML,
            has an unknown key or an impossible value.
    """
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"config '{file}' does not exist; pass --config with a YAML file.")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(
            f"config '{file}' is not valid YAML: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(content, dict):
        raise ValueError(f"config '{file}' should hold keys and values, such as 'query: ...'.")
    return parse(content, source=str(file))


def parse(content: dict[str, Any], source: str = "settings") -> Settings:
    """Check settings already read into a dictionary; `source` names them in messages.

    Raises:
        ValueError: as `load`.
    """
    try:
        return Settings.model_validate(content)
    except ValidationError as error:
        faults = [_sentence(fault) for fault in error.errors()]
        raise ValueError(f"{source}: {' '.join(faults)}") from None


def _sentence(fault: Any) -> str:
    """One pydantic fault as a sentence that names the key, the value and the nearest known key."""
    place = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        section = _section_at(fault["loc"][:-1])
        return f"unknown key '{place}'{nearest(str(fault['loc'][-1]), section.model_fields)}"
    if fault["type"] == "missing":
        return f"'{place}' is missing; it has no default."
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return f"{place}: {message}." if place else f"{message.rstrip('.')}."
    return f"'{place}': {message[0].lower()}{message[1:]}, got {fault['input']!r}."


def _section_at(location: tuple[Any, ...]) -> type[BaseModel]:
    """The settings class at a fault's place."""
    section: type[BaseModel] = Settings
    for part in location:
        if section is Settings and part == "tables":
            return Table
        annotation = section.model_fields[str(part)].annotation
        assert isinstance(annotation, type)
        section = annotation
    return section
