"""Splits the rows of a table's files over ranks: every row to exactly one rank.

Imports neither Spark nor torch: the driver plans from row counts in the table's log, ranks read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class CountedFile(Protocol):
    """A file whose number of rows is known without opening it."""

    @property
    def path(self) -> str:
        """Where the file lies."""
        ...

    @property
    def num_rows(self) -> int:
        """Rows in the file, >= 0."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class RowRange:
    """Rows `first_row` to `first_row + num_rows - 1` of one file, counted from 0."""

    path: str
    first_row: int
    num_rows: int  # >= 1


def split(files: Sequence[CountedFile], num_ranks: int) -> tuple[tuple[RowRange, ...], ...]:
    """The ranges that each rank reads, in the order of `files`.

    Every row belongs to exactly one rank and the ranks' row counts differ by at most 1; the lower
    ranks hold the extra ones. A rank has no range when there are fewer rows than ranks.

    Raises:
        ValueError: fewer than 1 rank.
    """
    if num_ranks < 1:
        raise ValueError(f"training.num_processes: needs at least 1 rank, got {num_ranks}.")
    rows_per_rank, num_longer = divmod(sum(file.num_rows for file in files), num_ranks)
    plan: list[tuple[RowRange, ...]] = []
    position, first_row = 0, 0  # the next row that nobody owns yet: file number, row in it
    for rank in range(num_ranks):
        wanted = rows_per_rank + (rank < num_longer)
        ranges: list[RowRange] = []
        while wanted > 0:
            file = files[position]
            taken = min(wanted, file.num_rows - first_row)
            if taken > 0:
                ranges.append(RowRange(path=file.path, first_row=first_row, num_rows=taken))
            wanted -= taken
            first_row += taken
            if first_row == file.num_rows:
                position, first_row = position + 1, 0
        plan.append(tuple(ranges))
    return tuple(plan)
