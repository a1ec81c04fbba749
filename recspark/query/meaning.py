"""What a well-formed query means: its names against the declared tables and their columns."""

from collections.abc import Iterable, Mapping

from recspark.query.nodes import (
    ColumnName,
    Comparison,
    Condition,
    In,
    Like,
    ListDistinct,
    Predicate,
    Query,
    TopK,
    kind_of,
    predicates,
)
from recspark.settings import Table, nearest


def bind(
    target: ListDistinct,
    ranking: TopK,
    entity: ColumnName,
    where: Condition | None,
    tables: Mapping[str, Table],
) -> Query:
    """Find the keys that a query speaks of among the declared tables.

    Raises:
        ValueError: a table or key that is not declared, a target that is not a foreign key of an
            event table, an entity that is not a primary key or that the target table does not
            reach over exactly one foreign key, a condition on another table than the entities'.
    """
    item_table = _item_table(target.column, tables)
    _check_entity(entity, tables)
    keys = tables[target.column.table].foreign_keys
    to_entity = [column for column, table in keys.items() if table == entity.table]
    if not to_entity:
        raise _fault(
            entity,
            f"'{target.column.table}' has no foreign key to '{entity.table}', only to "
            f"{', '.join(keys.values())}; predict a table that points to both.",
        )
    if len(to_entity) > 1:
        raise _fault(
            entity,
            f"'{target.column.table}' points to '{entity.table}' over {' and '.join(to_entity)}; "
            f"declare only the foreign key of the one who acts.",
        )
    if item_table == entity.table:
        raise _fault(
            target.column,
            f"'{target.column}' points to '{entity.table}', the table of FOR EACH; "
            f"predict a foreign key to another table.",
        )
    for predicate in predicates(where):
        if predicate.column.table != entity.table:
            raise _fault(
                predicate.column,
                f"WHERE speaks of '{predicate.column}'; only columns of '{entity.table}' "
                f"can be used there.",
            )
    return Query(
        target=target,
        ranking=ranking,
        entity=entity,
        where=where,
        item_table=item_table,
        target_entity_key=to_entity[0],
    )


def check_columns(query: Query, columns: Mapping[str, Mapping[str, str]]) -> None:
    """Check the condition against the columns that the tables really have.

    Args:
        query: the query.
        columns: table name to column name to Spark's simple type name.

    Raises:
        ValueError: a column that does not exist, or one whose type cannot be compared with the
            value beside it.
    """
    present = columns[query.entity_table]
    for predicate in predicates(query.where):
        name = predicate.column
        if name.column not in present:
            raise _fault(
                name,
                f"no column '{name.column}' in '{name.table}'{nearest(name.column, present)}",
            )
        compared = _compared_kind(predicate)
        found = _column_kind(present[name.column])
        if compared is not None and compared != found:
            raise _fault(
                name,
                f"'{name}' is {present[name.column]} and cannot be compared with a {compared}; "
                f"{_way_out(found)}.",
            )


def _item_table(column: ColumnName, tables: Mapping[str, Table]) -> str:
    """The table that the target column points to."""
    table = _declared(column, tables)
    pointed_to = {to for other in tables.values() for to in other.foreign_keys.values()}
    if column.table in pointed_to or table.time_column is None or not table.foreign_keys:
        events = [
            name
            for name, other in tables.items()
            if other.time_column and other.foreign_keys and name not in pointed_to
        ]
        raise _fault(
            column,
            f"'{column.table}' is not an event table; event tables are "
            f"{', '.join(events) or 'none'}.",
        )
    if column.column not in table.foreign_keys:
        raise _fault(
            column,
            f"'{column.column}' is not a foreign key of '{column.table}'"
            f"{nearest(column.column, table.foreign_keys)}",
        )
    return table.foreign_keys[column.column]


def _check_entity(entity: ColumnName, tables: Mapping[str, Table]) -> None:
    primary_key = _declared(entity, tables).primary_key
    if primary_key is None:
        raise _fault(entity, f"'{entity.table}' has no primary_key; declare one in the settings.")
    if entity.column != primary_key:
        raise _fault(
            entity,
            f"FOR EACH needs the primary key of '{entity.table}', found '{entity.column}'"
            f"{nearest(entity.column, [primary_key])}",
        )


def _declared(column: ColumnName, tables: Mapping[str, Table]) -> Table:
    if column.table not in tables:
        raise _fault(column, f"unknown table '{column.table}'{nearest(column.table, tables)}")
    return tables[column.table]


def _compared_kind(predicate: Predicate) -> str | None:
    """The kind of literal beside the column; None when any column will do."""
    match predicate:
        case Comparison(value=value):
            return kind_of(value)
        case In(values=values):
            return kind_of(values[0])
        case Like():
            return "text"
    return None


def _column_kind(spark_type: str) -> str:
    """The kind of literal that a column of this type can be compared with; else the type itself."""
    name = spark_type.partition("(")[0]
    kinds: dict[str, Iterable[str]] = {
        "boolean": ("boolean",),
        "number": ("tinyint", "smallint", "int", "bigint", "float", "double", "decimal"),
        "text": ("string", "char", "varchar"),
        "date": ("date", "timestamp", "timestamp_ntz"),
    }
    return next((kind for kind, names in kinds.items() if name in names), spark_type)


def _way_out(kind: str) -> str:
    examples = {
        "boolean": "write TRUE or FALSE",
        "number": "write a number",
        "text": "write a text in 'quotes'",
        "date": "write DATE '2024-01-31'",
    }
    return examples.get(kind, "only IS NULL can be asked of such a column")


def _fault(column: ColumnName, message: str) -> ValueError:
    place = f"query, {column.at}" if column.at is not None else "query"
    return ValueError(f"{place}: {message}")
