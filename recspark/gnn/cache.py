"""A rank's own groups in one local Arrow file, memory-mapped: any order, no growing memory."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa

from recspark import schema
from recspark.files import read_rows
from recspark.gnn import arrow, batches
from recspark.ranges import RowRange


def write(ranges: Iterable[RowRange], path: Path) -> None:
    """Copy rows of `subgraphs` to one Arrow file, every row a record batch of its own.

    At least one range is needed, since the schema is the rows'.
    """
    writer = None
    with pa.OSFile(str(path), "wb") as sink:
        for one in ranges:
            for rows in read_rows(one, batches.COLUMNS):
                if writer is None:
                    writer = pa.ipc.new_file(sink, rows.schema)
                for row in range(rows.num_rows):
                    writer.write_batch(rows.slice(row, 1))
        assert writer is not None, "a cache needs at least one row"
        writer.close()


class GroupStore:
    """Groups by number, from one or several cache files."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._readers = [pa.ipc.open_file(pa.memory_map(str(path))) for path in paths]
        self._places = [
            (reader, row) for reader in self._readers for row in range(reader.num_record_batches)
        ]
        anchors = [self._group(g).column(schema.ANCHOR_TIME) for g in range(len(self._places))]
        self.anchors_G = np.concatenate([arrow.days(anchor, null=np.nan) for anchor in anchors])

    @classmethod
    def of_ranges(cls, ranges: Iterable[RowRange], path: Path) -> Self:
        """Write the ranges to `path` and open it."""
        write(ranges, path)
        return cls([path])

    def __len__(self) -> int:
        return len(self._places)

    def groups(self, numbers: Sequence[int]) -> list[pa.RecordBatch]:
        """These groups, each a record batch of one row, backed by the file."""
        return [self._group(number) for number in numbers]

    def _group(self, number: int) -> pa.RecordBatch:
        reader, row = self._places[number]
        return reader.get_batch(row)
