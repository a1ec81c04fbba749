"""What of a shop's tables decides which features its pairs and items have."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from recspark.encodings import Encodings, TableEncoding


@dataclass(frozen=True, kw_only=True)
class FeatureSchema:
    """Names from a shop's tables, each in the order of its columns in the stage tables."""

    other_tables: tuple[str, ...] = ()  # event tables beside the target's: kinds 1, 2, ...
    item_traits: tuple[str, ...] = ()  # category columns of the items, then their foreign keys
    entity_traits: tuple[str, ...] = ()  # the same of the entities
    amounts: tuple[str, ...] = ()  # numeric columns of the target but price and quantity

    @classmethod
    def of(cls, encodings: Encodings, other_tables: Sequence[str]) -> Self:
        """Of fitted tables; `other_tables` are those of `interactions.roles` after the first."""
        return cls(
            other_tables=tuple(other_tables),
            item_traits=_traits(encodings.nodes[encodings.item_table]),
            entity_traits=_traits(encodings.nodes[encodings.entity_table]),
            amounts=amounts(encodings),
        )

    def stored_amounts(self) -> dict[str, str]:
        """Name of each further amount among features to its column in `interactions.union`."""
        return {of_amount(column): stored(place) for place, column in enumerate(self.amounts)}


def _traits(table: TableEncoding) -> tuple[str, ...]:
    """The columns of `schema.TRAITS`."""
    categories = (category.column for category in table.categories)
    return (*categories, *(column for column, _ in table.foreign_keys))


def amounts(encodings: Encodings) -> tuple[str, ...]:
    """The numeric columns of the target table but its price and quantity."""
    known = (encodings.target_price_column, encodings.target_quantity_column)
    numbers = (number.column for number in encodings.events[encodings.target_table].numbers)
    return tuple(column for column in numbers if column not in known)


def of_amount(column: str) -> str:
    """The name of a further amount among features, where no other begins like it."""
    return f"amount_{column}"


def stored(place: int) -> str:
    """The column of a further amount in Spark, whose union by name refuses dots and backticks."""
    return f"amount_{place}"
