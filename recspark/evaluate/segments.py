"""Popular lists: of everybody, and of entities that share the value of one category column.

Both rank items by decayed purchases. What a segment lacks is filled up from everybody's list.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import schema
from recspark.encodings import NUM_SPECIAL_CODES
from recspark.evaluate import purchases
from recspark.evaluate.histories import Popular, Rows, Scores
from recspark.evaluate.purchases import CHOICE, History

COLUMN, CODE = "column_position", "code"
Segments: TypeAlias = Mapping[tuple[int, int, int], NDArray[np.int64]]  # anchor, column, code


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which column makes the segments, and how fast purchases are forgotten in them."""

    column: str
    position: int  # of the column in `codes`
    half_life: float | None  # days; None: no decay


@dataclass(frozen=True, kw_only=True, eq=False)
class EverybodysPopularity:
    """The popular items of everybody, best first, for each half-life."""

    choices: tuple[float | None, ...]
    lists: tuple[Popular, ...]  # one per choice

    def score(self, rows: Rows) -> Iterator[Scores]:
        """The same list for every seed."""
        nothing = np.zeros(0, dtype=np.int64)
        for popular in self.lists:
            items = popular.get(rows.anchor, nothing)
            num_seeds = len(rows.entities)
            yield Scores(
                owners=np.repeat(np.arange(num_seeds), len(items)),
                items=np.tile(items, num_seeds),
                values=np.tile(-np.arange(len(items), dtype=np.float64), num_seeds),
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class SegmentPopularity:
    """The popular items of the seed's segment, for each choice."""

    choices: tuple[Choice, ...]
    lists: tuple[Segments, ...]  # one per choice

    def score(self, rows: Rows) -> Iterator[Scores]:
        """The same list for every seed of a segment; none where the value is missing or unknown."""
        nothing = np.zeros(0, dtype=np.int64)
        for choice, segments in zip(self.choices, self.lists, strict=True):
            codes = rows.codes[:, choice.position].tolist()
            lists = [segments.get((rows.anchor, choice.position, c), nothing) for c in codes]
            yield Scores(
                owners=np.repeat(np.arange(len(lists)), [len(items) for items in lists]),
                items=np.concatenate([nothing, *lists]),
                values=np.concatenate([nothing, *[-np.arange(len(items)) for items in lists]]),
            )


def everybody(days: DataFrame, k: int, choices: Sequence[float | None]) -> EverybodysPopularity:
    """In one Spark job; what is collected is anchors x half-lives x K numbers.

    Args:
        days: as of `purchases.of_everybody`.
        k: length of the lists.
        choices: half-lives in days; None: no decay.
    """
    top = purchases.most_popular(purchases.popularity(days, choices), k)
    lists = _collect(top, (), len(choices))
    return EverybodysPopularity(
        choices=tuple(choices),
        lists=tuple({anchor: items for (anchor,), items in of.items()} for of in lists),
    )


def of_columns(
    history: History, days: DataFrame, k: int, choices: Sequence[Choice]
) -> SegmentPopularity:
    """In one Spark job; what is collected is anchors x segments x half-lives x K numbers.

    Segments are the values of category columns, of which encodings keep a limited number.

    Args:
        history: with `entities` and `categories`.
        days: as of `purchases.of_everybody`.
        k: length of the lists.
        choices: columns and half-lives.
    """
    assert history.entities is not None
    half_lives = list(dict.fromkeys(choice.half_life for choice in choices))
    codes = history.entities.select(
        F.col(schema.NODE).alias(schema.ENTITY), F.posexplode(schema.CODES).alias(COLUMN, CODE)
    )
    wanted = sorted({choice.position for choice in choices})
    known = codes.where((F.col(CODE) >= NUM_SPECIAL_CODES) & F.col(COLUMN).isin(wanted))
    by = (COLUMN, CODE)
    weights = purchases.popularity(
        days.join(known, on=schema.ENTITY, how="inner"), half_lives, by=by
    )
    lists = _collect(purchases.most_popular(weights, k, by=by), by, len(half_lives))
    found = [
        {(anchor, column, code): items for (anchor, column, code), items in of.items()}
        for of in lists
    ]
    return SegmentPopularity(
        choices=tuple(choices),
        lists=tuple(found[half_lives.index(choice.half_life)] for choice in choices),
    )


def _collect(
    top: DataFrame, by: Sequence[str], num_choices: int
) -> list[dict[tuple[int, ...], NDArray[np.int64]]]:
    """Per choice the items, best first, of each (anchor in us, *by)."""
    anchor = F.unix_micros(schema.ANCHOR_TIME).alias("anchor")
    rows = top.select(CHOICE, anchor, *by, schema.RANK, schema.ITEM).collect()
    lists: list[dict[tuple[int, ...], list[int]]] = [{} for _ in range(num_choices)]
    for choice, *key, _, item in sorted(rows):
        lists[choice].setdefault(tuple(key), []).append(item)
    return [
        {key: np.array(items, dtype=np.int64) for key, items in of_choice.items()}
        for of_choice in lists
    ]
