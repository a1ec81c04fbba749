"""The candidates and labels of rows of `subgraphs` become tensors.

Axes: B seeds, C candidates, F pair features, L labels, W candidates of one seed padded to the
widest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from recspark import schema
from recspark.encodings import Encodings
from recspark.gnn import arrow


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Seeds of one anchor, their candidates and all that they bought."""

    anchor_days: float
    num_seeds: int
    candidate_seeds_C: Tensor  # int64, ascending
    candidate_items_C: Tensor  # int64, item nodes
    features_CF: Tensor  # float32, NaN where missing
    is_label_C: Tensor  # bool
    label_seeds_L: Tensor  # int64, ascending
    label_items_L: Tensor  # int64, item nodes

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        return type(self)(**{name: _moved(value, device) for name, value in vars(self).items()})


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Mapping):
        return {place: entry.to(device) for place, entry in value.items()}
    return value.to(device) if isinstance(value, Tensor) else value


def read(rows: Sequence[pa.RecordBatch], encodings: Encodings) -> Candidates:
    """The candidates and labels of groups of one anchor; `rows` as `batches.read` wants them."""
    found = [CandidateRow(batch, row) for batch in rows for row in range(batch.num_rows)]
    return Candidates(**merge(found, encodings))


class CandidateRow:
    """The candidates and labels of one row of `subgraphs` as numpy arrays."""

    def __init__(self, batch: pa.RecordBatch, row: int) -> None:
        self.anchor_days = float(
            arrow.days(batch.column(schema.ANCHOR_TIME).slice(row, 1), null=np.nan)[0]
        )
        self.num_seeds = int(batch.column(schema.NUM_SEEDS)[row].as_py())
        self.candidate_offsets = arrow.flat(batch, "candidate_offsets", row, np.int64)
        self.items = arrow.flat(batch, schema.ITEMS, row, np.int64)
        stored = batch.column(schema.FEATURES)[row].as_buffer()
        self.features = np.frombuffer(stored, schema.PACKED)
        self.is_label = arrow.flat(batch, schema.IS_LABEL, row, np.bool_)
        self.label_offsets = arrow.flat(batch, "label_offsets", row, np.int64)
        self.labels = arrow.flat(batch, schema.LABELS, row, np.int64)


def padded(
    seeds_C: Tensor, num_seeds: int, *columns_C: Tensor, fill: int = 0, width: int = 1
) -> tuple[Tensor, ...]:
    """Each column (C,) by seed and place within it, (B, W), `fill` behind a seed's last entry.

    `seeds_C` ascending; W is the most entries of a seed, and at least `width`.
    """
    place_C = torch.arange(len(seeds_C), device=seeds_C.device)
    place_C = place_C - torch.searchsorted(seeds_C, seeds_C)
    shape = (num_seeds, max(int(place_C.max()) + 1 if len(place_C) else 0, width))
    return tuple(
        column_C.new_full(shape, fill).index_put((seeds_C, place_C), column_C)
        for column_C in columns_C
    )


def merge(rows: Sequence[CandidateRow], encodings: Encodings) -> dict[str, Any]:
    """The fields of `Candidates`."""
    anchors = {row.anchor_days for row in rows}
    assert len(anchors) == 1, f"a batch has one anchor, got {sorted(anchors)}"
    seeds = np.cumsum([0, *(row.num_seeds for row in rows)])
    num_features = len(encodings.pair_names)
    candidates = _merge_offsets([row.candidate_offsets for row in rows], seeds)
    features = np.concatenate([row.features for row in rows])
    assert len(features) == len(candidates) * num_features, "pair features do not fit candidates"
    items = torch.from_numpy(np.concatenate([row.items for row in rows]))
    return {
        "anchor_days": anchors.pop(),
        "num_seeds": int(seeds[-1]),
        "candidate_seeds_C": candidates,
        "candidate_items_C": items,
        "features_CF": torch.from_numpy(features.reshape(len(candidates), num_features)),
        "is_label_C": torch.from_numpy(np.concatenate([row.is_label for row in rows])),
        "label_seeds_L": _merge_offsets([row.label_offsets for row in rows], seeds),
        "label_items_L": torch.from_numpy(np.concatenate([row.labels for row in rows])),
    }


def _merge_offsets(offsets: list[np.ndarray], seeds: np.ndarray) -> Tensor:
    """For each entry of the merged lists the seed it belongs to.

    `seeds` is the number of each row's first seed, and behind them that of all seeds.
    """
    owners = [
        np.repeat(np.arange(len(ends) - 1) + first, np.diff(ends))
        for ends, first in zip(offsets, seeds[:-1], strict=True)
    ]
    return torch.from_numpy(arrow.joined(owners, np.int64))
