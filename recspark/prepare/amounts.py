"""Which numeric columns of the target table are the price per unit and the number of units."""

import logging
import re
from collections.abc import Sequence

from recspark.settings import Table

log = logging.getLogger(__name__)

_PRICE, _QUANTITY = {"price"}, {"quantity", "qty", "units"}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def price_column(name: str, declared: Table, numbers: Sequence[str]) -> str | None:
    """The column of prices of table `name`, whose numeric columns are `numbers`; None: it has none.

    One that the settings do not name is the only one whose name has the word price. The log tells.
    """
    return _found(name, "price", declared.price_column, numbers, _PRICE)


def quantity_column(name: str, declared: Table, numbers: Sequence[str]) -> str | None:
    """As `price_column`, with the words quantity, qty and units."""
    return _found(name, "quantity", declared.quantity_column, numbers, _QUANTITY)


def _found(
    name: str, role: str, named: str | None, numbers: Sequence[str], words: set[str]
) -> str | None:
    if named is not None:
        return named
    alike = [column for column in numbers if words & _words(column)]
    if len(alike) != 1:
        return None
    log.info(
        "tables.%s: '%s' is read as the %s of a row; %s_column names another",
        name, alike[0], role, role,
    )  # fmt: skip
    return alike[0]


def _words(column: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(column)}
