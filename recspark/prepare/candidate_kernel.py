"""Candidates and their features for whole partitions of entities, in one vectorised pass.

Runs on Spark workers; needs numpy, scipy and pyarrow only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recspark import schema, windows
from recspark.prepare import (
    customer_class_files,
    habits,
    item_due_rate_files,
    item_state_files,
    nearest_users,
    pair_features,
    pair_history,
    retrieval,
    tastes,
)
from recspark.prepare.arrow_rows import (
    DAY,
    Array,
    Columns,
    column,
    gather,
    lists,
    matrix,
    packed,
    timestamps,
    unpacked,
)
from recspark.prepare.feature_schema import FeatureSchema
from recspark.prepare.item_state_files import ItemStates
from recspark.prepare.item_trends import trend_names
from recspark.prepare.pair_history import History

SEED_ROW = -1  # the `kind` of a row that is a seed, not an event
FOUND_BY = ("all", *retrieval.SOURCES)  # what `hits` counts
_SEEDS_AT_ONCE = 512  # 100 candidates of 110 features each are 23 MB


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a worker has to know: all of it small."""

    horizon_days: float
    per_seed: int
    history_per_entity: int
    features: FeatureSchema
    state_files: tuple[str, ...]  # Parquet files of the item states
    pool_files: tuple[str, ...]  # Parquet files of the entity pool
    class_files: tuple[str, ...]  # Parquet files of the customers' classes
    due_rate_files: tuple[str, ...]  # Parquet files of the items' due rates


def run(batches: Iterator[pa.RecordBatch], plan: Plan) -> Iterator[pa.RecordBatch]:
    """Kernel over a partition of events and seeds by entity: CANDIDATES without run_date."""
    table = gather(batches)
    if table is None:
        return
    seeds = table.filter(pc.equal(table["kind"], SEED_ROW)).sort_by(
        [(name, "ascending") for name in (schema.TIME, schema.ENTITY, schema.SPLIT)]
    )
    events = _sorted_events(table.filter(pc.not_equal(table["kind"], SEED_ROW)), plan.features)
    anchors = column(seeds, schema.TIME)
    for anchor in np.unique(anchors):
        states = item_state_files.load(plan.state_files, int(anchor))
        opens, closes = np.searchsorted(anchors, [anchor, anchor + 1])
        for start in range(opens, closes, _SEEDS_AT_ONCE):
            block = seeds.slice(start, min(_SEEDS_AT_ONCE, closes - start))
            yield _candidates(block, events, int(anchor), states, plan)


def _sorted_events(table: pa.Table, features: FeatureSchema) -> Columns:
    """Event columns ordered by (entity, time, event, item)."""
    names = ("kind", schema.ENTITY, schema.ITEM, schema.EVENT, schema.TIME, "price", "quantity")
    rows = {name: column(table, name) for name in names}
    for name, stored in features.stored_amounts().items():
        rows[name] = column(table, stored, missing=np.nan)
    keys = (schema.ITEM, schema.EVENT, schema.TIME, schema.ENTITY)
    order = np.lexsort(tuple(rows[name] for name in keys))
    return {name: values[order] for name, values in rows.items()}


def _candidates(
    seeds: pa.Table, events: Columns, anchor: int, states: ItemStates, plan: Plan
) -> pa.RecordBatch:
    num_seeds, num_items = len(seeds), len(states.nodes)
    width = min(plan.per_seed, num_items)
    if width:
        block = _block(seeds, events, anchor, states, plan)
        items = states.nodes[block.retrieved.items.ravel()]
        values = pair_features.features(block).ravel()
        owned = block.retrieved.because.ravel()
        because = np.where(owned >= 0, states.nodes[owned], -1)
    else:
        items, because = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        values = np.empty(0, dtype=np.float32)
    num_features = len(pair_features.pair_names(plan.features))
    lengths = np.full(num_seeds, width)
    return pa.RecordBatch.from_arrays(
        [
            seeds[schema.SPLIT].combine_chunks(),
            timestamps(np.full(num_seeds, anchor)),
            seeds[schema.ENTITY].combine_chunks(),
            lists(items, lengths, pa.int64()),
            packed(values, lengths * num_features),
            lists(_is_label(seeds, items, width), lengths, pa.bool_()),
            lists(because, lengths, pa.int64()),
        ],
        names=[
            schema.SPLIT,
            schema.ANCHOR_TIME,
            schema.ENTITY,
            schema.ITEMS,
            schema.FEATURES,
            schema.IS_LABEL,
            schema.BECAUSE,
        ],
    )


def _block(
    seeds: pa.Table, events: Columns, anchor: int, states: ItemStates, plan: Plan
) -> pair_features.Block:
    rows, seed = _rows_of(column(seeds, schema.ENTITY), events[schema.ENTITY])
    seen = windows.is_visible(events[schema.TIME][rows], anchor)
    rows, seed = rows[seen], seed[seen]
    by_kind = [
        _history(len(seeds), rows[mine], seed[mine], events, anchor, states, plan.features)
        for mine in (events["kind"][rows] == k for k in range(len(plan.features.other_tables) + 1))
    ]
    names = trend_names(plan.features)
    trend = {name: states.trend[:, place] for place, name in enumerate(names)}
    history = by_kind[0]
    pairs = pair_history.pairs(history, plan.horizon_days)
    pool = nearest_users.load(plan.pool_files, plan.state_files, anchor)
    return pair_features.Block(
        history=history,
        pairs=pairs,
        users=pair_history.seed_columns(history, plan.horizon_days) | habits.habits(history, trend),
        trend=trend,
        due_rates=item_due_rate_files.load(plan.due_rate_files, anchor),
        classes=customer_class_files.load(
            plan.class_files, plan.state_files, anchor, plan.features
        ),
        log_demand_N=tastes.log_demand(trend["log_decayed_first_buyers_30"], pool.owner_share_N),
        columns_SW=matrix(seeds, schema.TRAITS).astype(np.int64),
        retrieved=retrieval.retrieve(
            history,
            pairs,
            states,
            trend,
            column(seeds, schema.ENTITY),
            pool,
            horizon_days=plan.horizon_days,
            per_seed=plan.per_seed,
            history_per_entity=plan.history_per_entity,
        ),
        others=dict(zip(plan.features.other_tables, by_kind[1:], strict=True)),
        features=plan.features,
        horizon_days=plan.horizon_days,
    )


def _rows_of(entities: Array, owners: Array) -> tuple[Array, Array]:
    """Event rows of each seed's entity, and the seed each belongs to; owners are ascending."""
    starts = np.searchsorted(owners, entities, side="left")
    lengths = np.searchsorted(owners, entities, side="right") - starts
    seed = np.repeat(np.arange(len(entities)), lengths)
    within = np.arange(len(seed)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return starts[seed] + within, seed


def _history(
    num_seeds: int,
    rows: Array,
    seed: Array,
    events: Columns,
    anchor: int,
    states: ItemStates,
    features: FeatureSchema,
) -> History:
    item = events[schema.ITEM][rows]
    return History(
        num_seeds=num_seeds,
        num_items=len(states.nodes),
        seed=seed,
        item=states.position(item),
        key=item,
        age=(anchor - events[schema.TIME][rows]) / DAY,
        price=events["price"][rows],
        quantity=events["quantity"][rows],
        amounts={name: events[name][rows] for name in features.stored_amounts()},
    )


def _is_label(seeds: pa.Table, items: Array, width: int) -> Array:
    """Boolean (S * C,): whether the candidate is among the seed's labels."""
    labels = seeds[schema.LABELS].combine_chunks()
    lengths = labels.fill_null([]).value_lengths().to_numpy()
    flat = labels.flatten().to_numpy()
    # One integer per (seed, item); `top` is above every node of either side.
    top = max(int(flat.max(initial=0)), int(items.max(initial=0))) + 1
    owned = np.repeat(np.arange(len(seeds)), lengths) * top + flat
    return np.isin(np.repeat(np.arange(len(seeds)), width) * top + items, owned)


def hits(batches: Iterator[pa.RecordBatch], names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Kernel over candidates: split, and in `FOUND_BY` how many labels each source retrieved.

    `names` are those of the features.
    """
    places = [names.index(name) for name in pair_features.SOURCE_RANKS]
    for batch in batches:
        is_label = batch.column(schema.IS_LABEL)
        owner = np.repeat(np.arange(batch.num_rows), is_label.value_lengths().to_numpy())
        label = is_label.flatten().to_numpy(zero_copy_only=False)
        ranks = unpacked(batch.column(schema.FEATURES)).reshape(len(label), len(names))[:, places]
        found = [label, *(label[:, None] & ~np.isnan(ranks)).T]
        counts = [np.bincount(owner[one], minlength=batch.num_rows) for one in found]
        yield pa.RecordBatch.from_arrays(
            [batch.column(schema.SPLIT), *(pa.array(count, pa.int64()) for count in counts)],
            names=[schema.SPLIT, *FOUND_BY],
        )
