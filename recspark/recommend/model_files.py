"""The catalogue that travels with a model: items and their states at the anchors of its run.

With it a logged model scores subgraph rows anywhere; production scoring reads current tables.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from recspark import files
from recspark.encodings import Encodings

if TYPE_CHECKING:
    from recspark.gnn.catalogue import Catalogue

ITEM_STATES_FILE = "item_states.parquet"


def write_catalogue(
    folder: Path, node_files: Mapping[str, Sequence[str]], item_state_files: Sequence[str]
) -> None:
    """Copy the node tables (not the entities') and the item states into `folder`, a file each."""
    from recspark.gnn import catalogue

    folder.mkdir(parents=True)
    for table, paths in node_files.items():
        pq.write_table(files.read(paths, catalogue.NODE_COLUMNS), _node_file(folder, table))
    states = files.read(item_state_files, catalogue.ITEM_STATE_COLUMNS)
    pq.write_table(states, folder / ITEM_STATES_FILE)


def read_catalogue(folder: Path, encodings: Encodings) -> "Catalogue":
    """What `write_catalogue` wrote."""
    from recspark.gnn import catalogue

    nodes = {
        table: pq.read_table(_node_file(folder, table))
        for table in encodings.nodes
        if table != encodings.entity_table
    }
    states = pq.read_table(folder / ITEM_STATES_FILE)
    return catalogue.Catalogue.from_arrow(nodes, states, encodings)


def _node_file(folder: Path, table: str) -> Path:
    return folder / f"nodes_{table}.parquet"
