"""Scores every entity's candidates, layer by layer, in partitions on Spark.

First the vectors of the nodes that hop 1 can reach, each (node, anchor) once; then the entities
from those, the scores of their candidates, and the best K, filled up from all items on sale where
there are fewer (InferTurbo, arXiv:2307.00228, describes the layer-wise idea). No subgraph is
expanded per seed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

from recspark import files, schema, settings
from recspark.encodings import Encodings
from recspark.ranges import RowRange
from recspark.recommend import reasons

if TYPE_CHECKING:
    from pyspark.core.broadcast import Broadcast

    from recspark.gnn.catalogue import Catalogue
    from recspark.gnn.items import ItemVectors
    from recspark.gnn.model import Network


@dataclass(frozen=True, kw_only=True, eq=False)
class Served:
    """A trained model and where workers find the tables it reads; broadcast once per scoring.

    It equals itself alone, so that a worker knows the one that it has loaded.
    """

    state: bytes  # parameters as torch.save wrote them
    encodings: str  # `Encodings` as JSON
    model: settings.Model
    node_files: Mapping[str, tuple[str, ...]]  # node table -> files; not the entity table
    item_state_files: tuple[str, ...]


def node_vectors(
    spark: SparkSession, rows: Sequence[RowRange], served: "Broadcast[Served]"
) -> DataFrame:
    """`schema.NODE_VECTORS` without run date and split, for every node of `node_subgraphs`.

    `rows` are the ranges of its files; workers read them straight from storage.
    """
    spark_schema = _without_partitions(schema.NODE_VECTORS)
    arrow = to_arrow_schema(spark_schema, timezone="UTC")

    def kernel(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        scorer = _loaded(served.value)
        for row in _read_ranges(batches):
            yield scorer.node_vectors(row).cast(arrow)

    return _spread(spark, rows).mapInArrow(kernel, spark_schema)


def top_k(
    spark: SparkSession,
    rows: Sequence[RowRange],
    vector_files: tuple[str, ...],
    served: "Broadcast[Served]",
    k: int,
) -> DataFrame:
    """`schema.SCORED` without run date and split: the K best items on sale of every seed.

    `rows` are ranges of the files of `subgraphs`; workers read them straight from storage.
    """
    spark_schema = _without_partitions(schema.SCORED)
    arrow = to_arrow_schema(spark_schema, timezone="UTC")

    def kernel(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        scorer = _loaded(served.value)
        for row in _read_ranges(batches):
            yield scorer.top_k(row, vector_files, k).cast(arrow)

    return _spread(spark, rows).mapInArrow(kernel, spark_schema)


def _spread(spark: SparkSession, rows: Sequence[RowRange]) -> DataFrame:
    """One partition per range."""
    table = pa.table(
        {
            "number": pa.array(range(len(rows)), pa.int32()),
            "path": pa.array([one.path for one in rows], pa.string()),
            "first_row": pa.array([one.first_row for one in rows], pa.int64()),
            "num_rows": pa.array([one.num_rows for one in rows], pa.int64()),
        }
    )
    return spark.createDataFrame(table).repartitionById(max(len(rows), 1), F.col("number"))


def _read_ranges(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The rows of the ranges that Spark handed to this task, one at a time."""
    from recspark.gnn.batches import COLUMNS

    for batch in batches:
        for one in batch.to_pylist():
            del one["number"]
            for read in files.read_rows(RowRange(**one), COLUMNS):
                for row in range(read.num_rows):
                    yield read.slice(row, 1)


def _without_partitions(ddl: str) -> StructType:
    """The columns that are in the files: those without the partition columns."""
    every = cast(StructType, StructType.fromDDL(ddl))
    partitions = (schema.RUN_DATE, schema.SPLIT)
    return StructType([field for field in every.fields if field.name not in partitions])


@lru_cache(maxsize=1)
def _loaded(served: Served) -> "Scorer":
    """A worker's model. Workers run many tasks, and to load it takes as long as a small one."""
    return Scorer(served)


class Scorer:
    """One worker's model, catalogue and vectors, loaded when first needed."""

    def __init__(self, served: Served) -> None:
        import torch

        from recspark.gnn.serving import load

        torch.set_num_threads(1)  # a Spark task has one core
        self.encodings = Encodings.model_validate_json(served.encodings)
        self.network: Network = load(served.state, self.encodings, served.model)
        self.catalogue: Catalogue = _catalogue(served, self.encodings)
        self._items: dict[float, ItemVectors] = {}
        self._vectors: dict[tuple[datetime, tuple[str, ...]], Any] = {}

    def node_vectors(self, row: pa.RecordBatch) -> pa.RecordBatch:
        """The vectors of the hop-1 nodes of one row of `node_subgraphs`."""
        import torch

        from recspark.gnn import batches

        batch = batches.read([row], self.encodings)
        if batch.anchor_days not in self._items:
            with torch.no_grad():
                self._items = {
                    batch.anchor_days: self.network.graph.items(self.catalogue, batch.anchor_days)
                }
        items = self._items[batch.anchor_days]
        with torch.no_grad():
            contexts = self.network.graph.contexts(batch, self.catalogue, items)
        lists = pc.list_flatten(row.column(schema.NODES))
        inner = lists.filter(pc.equal(pc.struct_field(lists, "hop"), 1))
        (table,) = pc.struct_field(inner, "table").to_pylist()
        nodes = batch.nodes[1, table].nodes_N
        is_item = table == self.encodings.item_table
        size = len(nodes)
        return pa.record_batch(
            {
                schema.ANCHOR_TIME: _repeated(row.column(schema.ANCHOR_TIME), size),
                "table": pa.array([table] * size),
                schema.NODE: nodes.numpy(),
                "context": _lists(contexts[table].numpy()),
                "tower": _lists(items.tower_JD[nodes].numpy()) if is_item else pa.nulls(size),
                "prior": items.prior_J[nodes].numpy() if is_item else pa.nulls(size),
            }
        )

    def top_k(self, row: pa.RecordBatch, vector_files: tuple[str, ...], k: int) -> pa.RecordBatch:
        """The best items of the seeds of one row of `subgraphs` that carries hop 1 only."""
        import torch

        from recspark.gnn import batches, ranking

        anchor = row.column(schema.ANCHOR_TIME)[0].as_py().replace(tzinfo=None)
        vectors = self._vectors_at(anchor, vector_files)
        batch = batches.read([row], self.encodings)
        with torch.no_grad():
            contexts = vectors.contexts_of(batch)
            entity_BD = self.network.graph.entities(batch, contexts)
            outputs = self.network.score(batch, entity_BD, vectors.items)
        available = self.catalogue.available(batch.anchor_days)
        items_BK, scores_BK = ranking.top_k(outputs, batch, available, k)
        items, scores = items_BK.numpy(), strictly_decreasing(scores_BK.numpy().astype(np.float64))
        return pa.record_batch(
            {
                schema.ANCHOR_TIME: _repeated(row.column(schema.ANCHOR_TIME), batch.num_seeds),
                schema.ENTITY: batch.nodes[0, self.encodings.entity_table].nodes_N.numpy(),
                schema.ITEMS: _lists(items),
                "scores": _lists(scores),
                "reasons": _lists(reasons.of(batch, items, self.encodings, self.network.pair_head)),
            }
        )

    def _vectors_at(self, anchor: datetime, paths: tuple[str, ...]) -> Any:
        from recspark.gnn.vectors import NodeVectors

        if (anchor, paths) not in self._vectors:
            wanted = ["table", schema.NODE, "context", "tower", "prior"]
            rows = files.read(paths, wanted, anchor)
            vectors = NodeVectors.from_arrow(rows, self.encodings.item_table)
            self._vectors = {(anchor, paths): vectors}
        return self._vectors[anchor, paths]


def _catalogue(served: Served, encodings: Encodings) -> "Catalogue":
    from recspark.gnn import catalogue

    nodes = {
        name: files.read(paths, catalogue.NODE_COLUMNS) for name, paths in served.node_files.items()
    }
    states = files.read(served.item_state_files, catalogue.ITEM_STATE_COLUMNS)
    return catalogue.Catalogue.from_arrow(nodes, states, encodings)


def strictly_decreasing(scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Scores (B, K) where each is below the one before it: equal ones move down by one float."""
    apart = scores.copy()
    for rank in range(1, apart.shape[1]):
        below = np.nextafter(apart[:, rank - 1], -np.inf)
        apart[:, rank] = np.minimum(apart[:, rank], below)
    return apart


def _repeated(column: pa.Array, size: int) -> pa.Array:
    return column.take(pa.array(np.zeros(size, np.int64)))


def _lists(values: np.ndarray[Any, Any]) -> pa.Array:
    """A matrix (B, K) as B lists."""
    offsets = np.arange(0, values.size + 1, values.shape[1], dtype=np.int32)
    if not values.size:
        offsets = np.zeros(len(values) + 1, np.int32)
    return pa.ListArray.from_arrays(offsets, values.ravel())
