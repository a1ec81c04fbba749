"""TIFU-KNN (Hu et al. 2020, arXiv 2006.00556): own frequency mixed with that of similar entities.

A basket is what an entity bought on one day; baskets are counted back from the newest, in groups
of `group_size`. The vector of an entity adds up its baskets, each weighed by `within` to the power
of its place in the group times `across` to the power of the place of the group, divided by the
number of baskets; 2^(-age / half_life) makes old baskets count less still. Scores are
alpha * own vector + (1 - alpha) * mean of the `num_neighbours` nearest vectors, by cosine.
Neighbours come from a hash sample of entities of a fixed size, which every worker holds, so that
nothing there grows with the number of entities.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy import sparse

from recspark import schema
from recspark.evaluate.histories import AGE_DAYS, Array, Purchases, Rows, Scores, decays

ROWS_AT_ONCE = 128  # seeds whose similarities to all of the sample are held at once


class Vector(NamedTuple):
    """How the vector of an entity is made."""

    group_size: int  # baskets per group
    within: float  # weight of a basket against the next newer one of its group, in (0, 1]
    across: float  # weight of a group against the next newer one, in (0, 1]
    half_life: float | None = None  # days; None: no decay by age


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The vectors, and how they are mixed."""

    vector: Vector
    num_neighbours: int
    alpha: float  # share of the own vector, in [0, 1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """What the entities that may be neighbours bought up to one anchor."""

    entities: Array  # int64, ascending
    purchases: Purchases  # owners are places in `entities`


@dataclass(frozen=True, kw_only=True, eq=False)
class NearestUsers:
    """Choices with the same vector stand together, as do those with the same neighbours."""

    choices: tuple[Choice, ...]
    samples: Mapping[int, Sample]  # by anchor, in us

    def score(self, rows: Rows) -> Iterator[Scores]:
        """Own items and those of the neighbours."""
        sample = self.samples.get(rows.anchor)
        if sample is None:  # nobody bought anything before the anchor
            nothing = np.zeros(0, dtype=np.int64)
            for _ in self.choices:
                yield Scores(owners=nothing, items=nothing, values=nothing)
            return
        highest = [p.items.max(initial=-1) for p in (rows.purchases, sample.purchases)]
        num_items = int(max(highest)) + 1
        vector, num_neighbours = None, None
        for choice in self.choices:
            if choice.vector != vector:
                vector, num_neighbours = choice.vector, None
                own = rows.purchases.vectors(_weights(rows.purchases, vector), num_items)
                theirs = sample.purchases.vectors(_weights(sample.purchases, vector), num_items)
                most = max(c.num_neighbours for c in self.choices if c.vector == vector)
                nearest = _nearest(own, theirs, rows.entities, sample.entities, most)
            if choice.num_neighbours != num_neighbours:
                num_neighbours = choice.num_neighbours
                mean = _mean_of(nearest[:, :num_neighbours], len(sample.entities)) @ theirs
            mixed = (choice.alpha * own + (1 - choice.alpha) * mean).tocsr()
            owners = np.repeat(np.arange(mixed.shape[0]), np.diff(mixed.indptr))
            yield Scores(owners=owners, items=mixed.indices.astype(np.int64), values=mixed.data)


def collect(sampled: DataFrame) -> dict[int, Sample]:
    """The sample of each anchor, as of `purchases.sample`, whose size is fixed, on the driver."""
    anchor = F.unix_micros(schema.ANCHOR_TIME).alias("anchor")
    table = sampled.select(anchor, schema.ENTITY, schema.ITEM, AGE_DAYS).toArrow()
    anchors = table["anchor"].to_numpy()
    return {int(one): _sample(table.filter(pa.array(anchors == one))) for one in np.unique(anchors)}


def _sample(table: pa.Table) -> Sample:
    entities, owners = np.unique(table[schema.ENTITY].to_numpy(), return_inverse=True)
    items, ages = table[schema.ITEM].to_numpy(), table[AGE_DAYS].to_numpy().astype(np.int64)
    purchases = Purchases.sort(len(entities), owners, items, ages, np.zeros_like(items))
    return Sample(entities=entities, purchases=purchases)


def _weights(purchases: Purchases, vector: Vector) -> Array:
    """The weight of each purchase in the vector of its owner, float64."""
    width = int(purchases.ages.max(initial=0)) + 1
    baskets, basket = np.unique(purchases.owners * width + purchases.ages, return_inverse=True)
    counts = np.bincount(baskets // width, minlength=purchases.num_owners)
    starts = np.cumsum(counts) - counts
    owner = baskets // width
    place = np.arange(len(baskets)) - starts[owner]  # 0: the newest
    group, within = np.divmod(place, vector.group_size)
    weight: Array = vector.within**within * vector.across**group / counts[owner]
    weights: Array = weight[basket] * decays(purchases.ages, vector.half_life)
    return weights


def _unit_length(vectors: sparse.csr_matrix) -> sparse.csr_matrix:
    lengths = np.sqrt(np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel())
    return sparse.diags(1 / np.maximum(lengths, 1e-300)) @ vectors


def _nearest(
    own: sparse.csr_matrix,
    theirs: sparse.csr_matrix,
    entities: Array,
    sampled: Array,
    num_neighbours: int,
) -> Array:
    """Places in the sample of those nearest by cosine, nearest first, (seeds, at most neighbours).

    Ties by entity; -1 where no more has an item in common. Nobody is its own neighbour.
    """
    left, right = _unit_length(own).tocsr(), _unit_length(theirs).T.tocsr()
    width = min(num_neighbours, len(sampled))
    found = np.full((len(entities), width), -1)
    itself = np.minimum(np.searchsorted(sampled, entities), len(sampled) - 1)
    for start in range(0, len(entities), ROWS_AT_ONCE):
        stop = min(start + ROWS_AT_ONCE, len(entities))
        cosines = (left[start:stop] @ right).toarray()
        here = np.flatnonzero(sampled[itself[start:stop]] == entities[start:stop])
        cosines[here, itself[start:stop][here]] = 0.0
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :width]
        shared = np.take_along_axis(cosines, order, axis=1) > 0
        found[start:stop] = np.where(shared, order, -1)
    return found


def _mean_of(nearest: Array, num_sampled: int) -> sparse.csr_matrix:
    """The matrix that takes the mean of the neighbours, (seeds, sample); zero without any."""
    rows, places = np.nonzero(nearest >= 0)
    counts = np.maximum((nearest >= 0).sum(axis=1), 1)
    cells = (1 / counts[rows], (rows, nearest[rows, places]))
    matrix = sparse.csr_matrix(cells, shape=(len(nearest), num_sampled))
    matrix.sort_indices()
    return matrix
