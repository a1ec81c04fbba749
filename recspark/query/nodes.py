"""The nodes of a predictive query: frozen, and impossible ones refused as they are built.

`str` of a node is its canonical text; parsing that text gives an equal node. What a node needs to
know of the declared tables is checked in `recspark.query.meaning`.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date

from recspark.query.window import Window

Value = str | int | float | bool | date

COMPARATORS = ("=", "!=", "<", "<=", ">", ">=")


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the query's text, both counted from 1."""

    line: int
    column: int

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}"


@dataclass(frozen=True, slots=True)
class ColumnName:
    """A column with its table; `at` is where the text names it and takes no part in equality."""

    table: str
    column: str
    at: Position | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{_quoted(self.table)}.{_quoted(self.column)}"


@dataclass(frozen=True, slots=True)
class ListDistinct:
    """The distinct rows that a foreign key of an event table points to within a window."""

    column: ColumnName
    window: Window

    def __str__(self) -> str:
        return f"LIST_DISTINCT({self.column}, {self.window})"


@dataclass(frozen=True, slots=True)
class TopK:
    """The task of naming the `k` most likely rows, best first."""

    k: int

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"RANK TOP {self.k} recommends nothing; ask for at least 1.")

    def __str__(self) -> str:
        return f"RANK TOP {self.k}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A column beside a value. Never true of a null, nor is its negation, as in SQL."""

    column: ColumnName
    operator: str  # one of COMPARATORS
    value: Value

    def __post_init__(self) -> None:
        assert self.operator in COMPARATORS, self.operator
        _check_value(self.value)
        if isinstance(self.value, bool) and self.operator not in ("=", "!="):
            raise ValueError(
                f"TRUE and FALSE have no order, found '{self.operator}'; compare with = or !=."
            )

    def __str__(self) -> str:
        return f"{self.column} {self.operator} {_literal(self.value)}"


@dataclass(frozen=True, slots=True)
class In:
    """A column's value is one of several of one kind."""

    column: ColumnName
    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        for value in self.values:
            _check_value(value)
        kinds = sorted({kind_of(value) for value in self.values})
        if len(kinds) != 1:
            raise ValueError(f"IN mixes {' and '.join(kinds)}; give values of one kind.")

    def __str__(self) -> str:
        return f"{self.column} IN ({', '.join(_literal(value) for value in self.values)})"


@dataclass(frozen=True, slots=True)
class Like:
    """A text column matches a pattern, where `%` is any text and `_` any one character."""

    column: ColumnName
    pattern: str

    def __str__(self) -> str:
        return f"{self.column} LIKE {_literal(self.pattern)}"


@dataclass(frozen=True, slots=True)
class IsNull:
    """A column has no value."""

    column: ColumnName

    def __str__(self) -> str:
        return f"{self.column} IS NULL"


@dataclass(frozen=True, slots=True)
class Not:
    """The condition is false; a comparison with a null is neither true nor false."""

    operand: "Condition"

    def __str__(self) -> str:
        return f"NOT {_grouped(self.operand)}"


@dataclass(frozen=True, slots=True)
class And:
    """Every one of at least two conditions holds."""

    operands: tuple["Condition", ...]

    def __str__(self) -> str:
        return " AND ".join(_grouped(operand) for operand in self.operands)


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of at least two conditions holds."""

    operands: tuple["Condition", ...]

    def __str__(self) -> str:
        return " OR ".join(_grouped(operand) for operand in self.operands)


Predicate = Comparison | In | Like | IsNull
Condition = Predicate | Not | And | Or


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A whole query, bound to the declared tables by `recspark.query.meaning.bind`."""

    target: ListDistinct
    ranking: TopK
    entity: ColumnName  # the entity table's primary key
    where: Condition | None  # on columns of the entity table; None: every row
    item_table: str  # the table that the target column points to
    target_entity_key: str  # the target table's foreign key to the entity table

    @property
    def target_table(self) -> str:
        """The event table whose rows are predicted."""
        return self.target.column.table

    @property
    def target_item_key(self) -> str:
        """The target table's foreign key to the items."""
        return self.target.column.column

    @property
    def entity_table(self) -> str:
        """The table of the rows that are recommended to."""
        return self.entity.table

    @property
    def window(self) -> Window:
        """The label window after each anchor."""
        return self.target.window

    @property
    def k(self) -> int:
        """How many items are recommended to each entity, at least 1."""
        return self.ranking.k

    def __str__(self) -> str:
        text = f"PREDICT {self.target} {self.ranking} FOR EACH {self.entity}"
        return text if self.where is None else f"{text} WHERE {self.where}"


def predicates(condition: Condition | None) -> Iterator[Predicate]:
    """Every comparison in a condition, from left to right."""
    match condition:
        case None:
            return
        case Not(operand):
            yield from predicates(operand)
        case And(operands) | Or(operands):
            for operand in operands:
                yield from predicates(operand)
        case _:
            yield condition


def kind_of(value: Value) -> str:
    """What a literal is: boolean, number, text or date."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "date"


def _check_value(value: Value) -> None:
    """Refuse numbers that no column can hold."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("the number is too large for a double; write a smaller one.")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"the number {value} is too large for a bigint; write a smaller one.")


def _literal(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return f"DATE '{value.isoformat()}'" if isinstance(value, date) else repr(value)


def _grouped(condition: Condition) -> str:
    return f"({condition})" if isinstance(condition, And | Or) else str(condition)


def _quoted(name: str) -> str:
    """A name as the grammar reads it; NOT is the one keyword that may stand where a table may."""
    plain = re.fullmatch(r"[^\W\d]\w*", name) and name.upper() != "NOT"
    return name if plain else f"`{name}`"
