from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recspark import ranges
from recspark.ranges import RowRange


@dataclass(frozen=True)
class File:
    path: str
    num_rows: int


row_counts = st.lists(st.integers(0, 30), max_size=8)


@given(row_counts, st.integers(1, 6))
def test_every_row_belongs_to_exactly_one_rank_and_ranks_are_even(counts, num_ranks):
    files = [File(f"part-{i}", count) for i, count in enumerate(counts)]
    plan = ranges.split(files, num_ranks)
    rows = [
        (piece.path, row)
        for pieces in plan
        for piece in pieces
        for row in range(piece.first_row, piece.first_row + piece.num_rows)
    ]
    assert rows == [(file.path, row) for file in files for row in range(file.num_rows)]
    shares = [sum(piece.num_rows for piece in pieces) for pieces in plan]
    assert len(shares) == num_ranks
    assert max(shares) - min(shares) <= 1
    assert all(piece.num_rows >= 1 for pieces in plan for piece in pieces)


def test_a_file_is_cut_where_one_rank_ends_and_the_next_begins():
    assert ranges.split([File("a", 3), File("empty", 0), File("b", 4)], 2) == (
        (RowRange(path="a", first_row=0, num_rows=3), RowRange(path="b", first_row=0, num_rows=1)),
        (RowRange(path="b", first_row=1, num_rows=3),),
    )


def test_no_ranks_is_refused():
    with pytest.raises(ValueError, match="needs at least 1 rank, got 0"):
        ranges.split([File("a", 3)], 0)
