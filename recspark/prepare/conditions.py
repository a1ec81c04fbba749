"""The WHERE of a query as a Spark column."""

from functools import reduce

from pyspark.sql import Column
from pyspark.sql import functions as F

from recspark.query.nodes import (
    And,
    ColumnName,
    Comparison,
    Condition,
    In,
    IsNull,
    Like,
    Not,
    Or,
    Value,
)


def to_column(condition: Condition) -> Column:
    """A boolean column over the entity table's own columns; null where SQL says unknown.

    `recspark.query.meaning.check_columns` must have passed: it sees to it that no comparison
    needs a cast, which would fail on the first value that cannot be cast.
    """
    match condition:
        case Comparison(column, operator, value):
            return _compare(_column(column), operator, value)
        case In(column, values):
            return _column(column).isin(*values)
        case Like(column, pattern):
            return _column(column).like(pattern)
        case IsNull(column):
            return _column(column).isNull()
        case Not(operand):
            return ~to_column(operand)
        case And(operands):
            return reduce(lambda left, right: left & right, map(to_column, operands))
        case Or(operands):
            return reduce(lambda left, right: left | right, map(to_column, operands))


def _column(name: ColumnName) -> Column:
    return F.col(f"`{name.column}`")  # quoted: a name may hold dots or blanks


def _compare(column: Column, operator: str, value: Value) -> Column:
    match operator:
        case "=":
            return column == F.lit(value)
        case "!=":
            return column != F.lit(value)
        case "<":
            return column < F.lit(value)
        case "<=":
            return column <= F.lit(value)
        case ">":
            return column > F.lit(value)
    assert operator == ">=", operator
    return column >= F.lit(value)
