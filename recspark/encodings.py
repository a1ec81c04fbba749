"""How raw columns become numbers, and the shape of the graph that the network is built for.

Fitted once per training run on what training anchors may see, saved with the model as JSON, and
applied unchanged at scoring. Imports neither Spark nor torch.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict

MISSING_CODE = 0  # category code of a null
UNKNOWN_CODE = 1  # category code of a value that training did not see
NUM_SPECIAL_CODES = 2


# Parts of a pair's features that can be the reason of a recommendation.
OWN, TOGETHER, SIMILAR = "own", "together", "similar"
NEW, PRICE, POPULAR, TASTE = "new", "price", "popular", "taste"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Number(_Frozen):
    """A numeric column: `(signed_log1p(value) - center) / scale`; NaN where missing."""

    column: str
    center: float
    scale: float  # > 0


class Category(_Frozen):
    """A category column: value `values[i]` has code i + 2."""

    column: str
    values: tuple[str, ...]


class TableEncoding(_Frozen):
    """The columns of one source table that are read as features, in the order of the arrays."""

    numbers: tuple[Number, ...] = ()
    categories: tuple[Category, ...] = ()
    times: tuple[str, ...] = ()  # timestamp columns, kept as days since 1970
    texts: tuple[str, ...] = ()  # hashed together into `text_buckets` buckets
    foreign_keys: tuple[tuple[str, str], ...] = ()  # (column, table it points to)

    @property
    def category_sizes(self) -> tuple[int, ...]:
        """Number of codes per category column, the two special ones included."""
        return tuple(len(c.values) + NUM_SPECIAL_CODES for c in self.categories)


class Encodings(_Frozen):
    """Everything that is fitted before training, and the shape of the graph it makes."""

    entity_table: str
    item_table: str
    target_table: str  # event table of the query's target
    target_entity_key: str  # its foreign key to the entity table
    target_item_key: str  # its foreign key to the item table
    target_price_column: str | None  # its numeric column of prices per unit, if it has one
    target_quantity_column: str | None  # its numeric column of units, if it has one
    nodes: dict[str, TableEncoding]  # node tables; foreign_keys are their parents
    events: dict[str, TableEncoding]  # event tables
    item_keys: tuple[Any, ...] = ()  # primary keys with an id embedding; key i has code i + 1
    text_buckets: int
    trend_names: tuple[str, ...] = ()
    pair_names: tuple[str, ...] = ()
    trend_knots: tuple[tuple[float, ...], ...] = ()  # per trend column its quantiles, ascending
    pair_knots: tuple[tuple[float, ...], ...] = ()  # per pair feature its quantiles, ascending
    pair_groups: dict[str, tuple[str, ...]] = {}  # groups that can be left out -> pair features
    # What may be a reason -> pair feature -> its value where it is none; None: missing.
    pair_parts: dict[str, dict[str, float | None]] = {}

    def hop_1(self) -> tuple[str, ...]:
        """Relations ("event_table.foreign_key") whose events hang on an entity."""
        return self._relations_to({self.entity_table})

    def hop_2(self) -> tuple[str, ...]:
        """Relations whose events hang on a node that hop 1 reaches."""
        return self._relations_to(set(self.reached_tables()))

    def reached_tables(self) -> tuple[str, ...]:
        """Node tables, other than the entities', that events of hop 1 point to."""
        of_hop_1 = {relation.partition(".")[0] for relation in self.hop_1()}
        pointed_to = {to for name in of_hop_1 for _, to in self.events[name].foreign_keys}
        return tuple(t for t in self.nodes if t in pointed_to and t != self.entity_table)

    def target_of(self, relation: str) -> str:
        """The node table that a relation's foreign key points to."""
        table, _, column = relation.partition(".")
        return dict(self.events[table].foreign_keys)[column]

    def _relations_to(self, tables: set[str]) -> tuple[str, ...]:
        return tuple(
            f"{name}.{column}"
            for name, table in self.events.items()
            for column, to in table.foreign_keys
            if to in tables
        )
