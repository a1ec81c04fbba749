"""Events between an entity and an item, of whatever table, as flat rows of one shape."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recspark import schema
from recspark.encodings import Encodings
from recspark.prepare.feature_schema import FeatureSchema, amounts, stored

KIND = "kind"  # int      position of the event's table among the roles; 0 is the target table
PRICE = "price"  # double   per unit; NaN where unknown
QUANTITY = "quantity"  # double   units; NaN where unknown


@dataclass(frozen=True, kw_only=True)
class EventRoles:
    """Which positions of a stage event table's arrays hold what candidates are made from."""

    table: str
    entity_position: int  # in `nodes`
    item_position: int  # in `nodes`
    price_position: int | None = None  # in `amounts`; None: the table has no price
    quantity_position: int | None = None  # in `amounts`; None: the table has no quantity
    amount_positions: tuple[int, ...] = ()  # in `amounts`, of further amounts of the target


def roles(encodings: Encodings) -> tuple[EventRoles, ...]:
    """The event tables that point to both an entity and an item; the target table comes first."""
    target = encodings.target_table
    price, quantity = encodings.target_price_column, encodings.target_quantity_column
    others = [name for name in encodings.events if name != target]
    further = amounts(encodings)
    found = []
    for name in [target, *others]:
        keys = encodings.events[name].foreign_keys
        columns, tables = [c for c, _ in keys], [t for _, t in keys]
        if encodings.entity_table not in tables or encodings.item_table not in tables:
            continue
        is_target = name == target
        entity = columns.index(encodings.target_entity_key) if is_target else -1
        item = columns.index(encodings.target_item_key) if is_target else -1
        numbers = [number.column for number in encodings.events[name].numbers]
        found.append(
            EventRoles(
                table=name,
                entity_position=entity if is_target else tables.index(encodings.entity_table),
                item_position=item if is_target else tables.index(encodings.item_table),
                price_position=_position(numbers, price) if is_target else None,
                quantity_position=_position(numbers, quantity) if is_target else None,
                amount_positions=tuple(map(numbers.index, further)) if is_target else (),
            )
        )
    return tuple(found)


def features(encodings: Encodings) -> FeatureSchema:
    """Which features these tables give."""
    return FeatureSchema.of(encodings, [role.table for role in roles(encodings)[1:]])


def union(events: Mapping[str, DataFrame], event_roles: Sequence[EventRoles]) -> DataFrame:
    """All events as (kind, entity, item, event, time, price, quantity), and further amounts.

    Those of the first role are columns of their own, `FeatureSchema.stored_amounts`, which are
    null for other tables.
    Rows that lack an entity or an item (null or dangling key, node -1) are left out.
    """
    flat = [_flatten(events[r.table], r, kind) for kind, r in enumerate(event_roles)]
    return reduce(lambda left, right: left.unionByName(right, allowMissingColumns=True), flat)


def _flatten(events: DataFrame, role: EventRoles, kind: int) -> DataFrame:
    further = [
        _amount(position).alias(stored(place))
        for place, position in enumerate(role.amount_positions)
    ]
    rows = events.select(
        F.lit(kind).alias(KIND),
        F.col(schema.NODES)[role.entity_position].alias(schema.ENTITY),
        F.col(schema.NODES)[role.item_position].alias(schema.ITEM),
        F.col(schema.EVENT),
        F.col(schema.TIME),
        _amount(role.price_position).alias(PRICE),
        _amount(role.quantity_position).alias(QUANTITY),
        *further,
    )
    return rows.where(
        (F.col(schema.ENTITY) >= 0) & (F.col(schema.ITEM) >= 0) & F.col(schema.TIME).isNotNull()
    )


def _amount(position: int | None) -> Column:
    unknown = F.lit(float("nan"))
    return unknown if position is None else F.coalesce(F.col(schema.AMOUNTS)[position], unknown)


def _position(columns: Sequence[str], column: str | None) -> int | None:
    return None if column is None else columns.index(column)
