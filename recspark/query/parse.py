"""Text of a predictive query to its nodes, or one sentence that says where it went wrong."""

from collections.abc import Callable, Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from lark import Lark, Token, Transformer, v_args
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken, VisitError

from recspark.query import meaning, nodes
from recspark.query.window import Window
from recspark.settings import Table, nearest

AGGREGATIONS = {"LIST_DISTINCT": nodes.ListDistinct}

_Node = TypeVar("_Node")

# What the reader of an error calls a terminal; a keyword is called by its own name.
_TERMINALS = {
    "AGGREGATION": "LIST_DISTINCT",
    "UNIT": "days, weeks or months",
    "TABLE": "a table name",
    "COLUMN": "a column name",
    "COMPARATOR": "a comparison such as =",
    "NUMBER": "a number",
    "STRING": "a text in 'quotes'",
    "LPAR": "'('",
    "RPAR": "')'",
    "COMMA": "','",
    "DOT": "'.'",
    "$END": "the end of the query",
}
_LITERALS = {"NUMBER", "STRING", "_TRUE", "_FALSE", "_DATE"}


def parse(text: str, tables: Mapping[str, Table]) -> nodes.Query:
    """Read a query and bind it to the declared tables.

    Raises:
        ValueError: one sentence with line and column, what was found, and what was expected or
            the nearest known name.
    """
    try:
        tree = _grammar().parse(text)
    except UnexpectedInput as error:
        raise ValueError(_sentence(error, text)) from None
    try:
        parts = _ToNodes().transform(tree)
    except VisitError as error:
        raise error.orig_exc from None
    target, ranking, entity, where = parts
    return meaning.bind(target, ranking, entity, where, tables)


@cache
def _grammar() -> Lark:
    rules = Path(__file__).with_name("grammar.lark").read_text(encoding="utf-8")
    return Lark(rules, start="query", parser="lalr", maybe_placeholders=True)


@v_args(inline=True)
class _ToNodes(Transformer[Token, Any]):
    """One method per rule of the grammar; each takes its children and returns a node."""

    def query(self, *parts: Any) -> tuple[Any, ...]:
        return parts

    def aggregation(
        self, name: Token, column: nodes.ColumnName, start: Token, end: Token, unit: Token
    ) -> nodes.ListDistinct:
        kind = AGGREGATIONS.get(name.upper())
        if kind is None:
            raise _fault(name, f"unknown aggregation '{name}'{nearest(name.upper(), AGGREGATIONS)}")
        bounds = _whole(start, "the window's start"), _whole(end, "the window's end")
        at = unit if unit.lower() not in Window.DAYS else start
        return kind(column, _placed(at, Window, *bounds, unit.lower()))

    def ranking(self, k: Token) -> nodes.TopK:
        return _placed(k, nodes.TopK, _whole(k, "the K of RANK TOP"))

    def column(self, table: Token, column: Token) -> nodes.ColumnName:
        return nodes.ColumnName(table.strip("`"), column.strip("`"), at=_position(table))

    def disjunction(self, *operands: nodes.Condition) -> nodes.Or:
        return nodes.Or(operands)

    def conjunction(self, *operands: nodes.Condition) -> nodes.And:
        return nodes.And(operands)

    def negated(self, operand: nodes.Condition) -> nodes.Not:
        return nodes.Not(operand)

    def comparison(
        self, column: nodes.ColumnName, operator: Token, value: nodes.Value
    ) -> nodes.Comparison:
        symbol = "!=" if operator == "<>" else str(operator)
        return _placed(operator, nodes.Comparison, column, symbol, value)

    def is_in(self, column: nodes.ColumnName, *values: nodes.Value) -> nodes.In:
        return _placed(column.at, nodes.In, column, values)

    def is_not_in(self, column: nodes.ColumnName, *values: nodes.Value) -> nodes.Not:
        return nodes.Not(self.is_in(column, *values))

    def like(self, column: nodes.ColumnName, pattern: Token) -> nodes.Like:
        return nodes.Like(column, self.text(pattern))

    def not_like(self, column: nodes.ColumnName, pattern: Token) -> nodes.Not:
        return nodes.Not(self.like(column, pattern))

    def is_null(self, column: nodes.ColumnName) -> nodes.IsNull:
        return nodes.IsNull(column)

    def is_not_null(self, column: nodes.ColumnName) -> nodes.Not:
        return nodes.Not(nodes.IsNull(column))

    def number(self, digits: Token) -> int | float:
        return int(digits) if digits.lstrip("+-").isdigit() else float(digits)

    def text(self, quoted: Token) -> str:
        return quoted[1:-1].replace("''", "'")

    def true(self) -> bool:
        return True

    def false(self) -> bool:
        return False

    def date(self, quoted: Token) -> date:
        try:
            return date.fromisoformat(quoted[1:-1])
        except ValueError:
            raise _fault(quoted, f"{quoted} is not a date like '2024-01-31'.") from None


def _whole(digits: Token, what: str) -> int:
    if not digits.lstrip("+-").isdigit():
        raise _fault(digits, f"{what} must be a whole number, found {digits}.")
    return int(digits)


def _placed(at: Token | nodes.Position | None, build: Callable[..., _Node], *parts: Any) -> _Node:
    """Build a node; when it refuses its parts, say where they stand."""
    try:
        return build(*parts)
    except ValueError as refusal:
        raise _fault(at, str(refusal)) from None


def _position(token: Token) -> nodes.Position:
    assert token.line is not None
    assert token.column is not None
    return nodes.Position(token.line, token.column)


def _fault(at: Token | nodes.Position | None, message: str) -> ValueError:
    place = _position(at) if isinstance(at, Token) else at
    return ValueError(f"query, {place}: {message}")


def _sentence(error: UnexpectedInput, text: str) -> str:
    """What the parser met and what could have stood there."""
    if isinstance(error, UnexpectedToken) and error.token.type != "$END":
        position, found = _position(error.token), f"'{error.token}'"
        if error.token.upper() == "NULL":
            found += " (a null is met with IS NULL)"
    elif isinstance(error, UnexpectedCharacters):
        position, found = nodes.Position(error.line, error.column), f"'{error.char}'"
        if error.char in "'`":
            return str(_fault(position, f"the quote {error.char} is never closed; close it."))
        if error.char == '"':
            found += " (texts stand in 'single quotes')"
    else:
        written = text.rstrip().splitlines() or [""]
        position = nodes.Position(len(written), len(written[-1]) + 1)
        found = "the end of the query"
    return str(_fault(position, f"expected {_expected(text)}, found {found}."))


def _expected(text: str) -> str:
    """In words, everything that may follow the part of the text that is well-formed."""
    parser = _grammar().parse_interactive(text)
    try:
        parser.exhaust_lexer()
    except UnexpectedInput:
        pass  # the parser now stands before the first fault, which is the one being told
    accepted: set[str] = parser.accepts()  # type: ignore[no-untyped-call]  # lark's gap
    words = []
    if accepted >= _LITERALS:
        accepted -= _LITERALS
        words = ["a value (a number, 'text', TRUE, FALSE or DATE '2024-01-31')"]
    ordered = sorted(accepted, key=lambda name: (name == "$END", name))
    words += [_TERMINALS.get(name, name.lstrip("_")) for name in ordered]
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
