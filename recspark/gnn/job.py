"""What the driver hands to every training rank, and what every rank hands back.

Imports no torch, so that the driver can plan and judge without it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from recspark import settings
from recspark.ranges import RowRange

MAX_ITEMS_OF_FULL_SOFTMAX = 20_000  # beyond, B x I scores per step cost more than they teach


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """One training run; picklable, the same object on every rank."""

    encodings: str  # `Encodings` as JSON
    model: settings.Model
    training: settings.Training
    max_epochs: int  # the one-cycle schedule spans so many, until validation asks for fewer
    ranges: Mapping[str, tuple[tuple[RowRange, ...], ...]]  # split -> rank -> rows of `subgraphs`
    node_files: Mapping[str, tuple[str, ...]]  # node table -> its files; not the entity table
    item_state_files: tuple[str, ...]
    k: int  # validation ranks by MAP@k
    seed: int
    checkpoint_dir: str  # a folder that every rank can reach and a later attempt finds again
    progress_path: str  # rank 0 keeps one line of JSON there

    def identity(self) -> str:
        """Text that is equal for two jobs exactly when one may resume the other's checkpoint."""
        parts = (self.encodings, self.model, self.training, sorted(self.ranges.items()))
        return repr((*parts, self.max_epochs, self.k, self.seed))


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One line of a phase's history."""

    phase: str  # "selected", "annealed" or "refitted": which model
    epoch: int  # from 1
    heads_loss: float  # mean over the epoch's seeds with a label
    graph_loss: float
    validation_map: float | None  # MAP@k; None while refitting
    map_without_graph: float | None  # MAP@k by the pair head alone; None while refitting
    tower_weight: float  # that validation chose for the graph's score
    seconds: float


@dataclass(frozen=True, kw_only=True)
class GroupChoice:
    """What groups of pair features are worth to a network without trees: MAP@k on validation."""

    map_with_all: float  # of the network as it came from its best epoch
    map_without: Mapping[str, float]  # group -> without it, with all others
    left_out: Mapping[str, float]  # group -> without it and those before it here


@dataclass(frozen=True, kw_only=True)
class RankReport:
    """What one rank did. The driver believes a run only when every rank reports `completed`."""

    rank: int
    status: str
    num_rows: Mapping[str, int]  # split -> rows of `subgraphs` this rank read
    num_steps: int  # optimizer steps of this attempt
    resumed_from_epoch: int  # epochs that an earlier attempt had finished; 0 when started fresh
    best_epoch: int
    rate_falls_within: int  # epochs; more than `best_epoch` where cutting short did better
    best_validation_map: float  # of the selected model
    map_without_trees: float  # of the network alone, without groups of features left out
    map_with_trees: float | None  # also where they were refused; None: none were made
    tower_weight: float  # that validation chose for the graph's score, trees included
    map_without_graph: float
    by_group: GroupChoice
    trees_share: float  # how much trees count beside the heads' 1; 0: there are none
    history: tuple[Epoch, ...] = field(default=())
    selected_path: str  # state of the model that validation chose
    serving_path: str  # state of the refitted model; the same file without refit
