"""
From the ORDER BY of a compiled query to sort keys: which column of a row, which direction, where NULLs go.

A column that is not selected is added to the SELECT clause as a hidden one. For what Python might not sort as the
database does, the type and the collation are returned.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings
from django.core.exceptions import FieldError
from django.db.models import Aggregate, When
from django.db.models.expressions import Col, ColPairs, OrderBy, Ref, Subquery
from django.db.models.functions import Collate
from django.db.models.sql import Query
from django.db.models.sql.compiler import PositionRef

from aggregator import ranks
from aggregator.lengths import INTERVAL, Length
from aggregator.merge import SortKey
from aggregator.ranks import Kind
from aggregator.refusal import cannot_merge

#: (expression, (sql, params), alias), as Django's compilers keep a SELECT clause.
Selected = tuple[Any, tuple[str, Sequence[Any]], str | None]

#: PostgreSQL types whose order is that of the Python values psycopg makes of them.
EXACT = frozenset(
    {
        "smallint",
        "integer",
        "bigint",
        "numeric",
        "real",
        "double precision",
        "boolean",
        "date",
        "time",
        "timestamp with time zone",
        "uuid",
        "bytea",
    }
)
TEXT = frozenset({"varchar", "text"})
#: Types of which equal values are equal in Python, intervals by their lengths.
EQUAL = EXACT | TEXT | {"inet", INTERVAL}
UNKNOWN = "unknown"
LENGTH = re.compile(r"\s*\([^)]*\)")
#: Types that take what is longer, too, without their length; converted to others, a value might be cut.
UNBOUNDED = re.compile(r"\b(varchar|numeric)\s*\([^)]*\)")
COLLATABLE = re.compile("char|text|name")


@dataclass(slots=True)
class Order:
    """The sort keys of a query's rows, and what they need."""

    keys: list[SortKey] = field(default_factory=list)
    hidden: list[Selected] = field(default_factory=list)
    #: What keys are compared by that Python might not compare as the database does; by their positions.
    kinds: dict[int, Kind] = field(default_factory=dict)
    #: The SQL of each column of a row, the hidden ones last.
    columns: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)

    def place(self, compiler: Any, expression: Any) -> int:
        """Return the column of an expression; where it is not selected, it becomes a hidden one."""
        sql, params = compiler.compile(expression)
        wanted = (sql, tuple(params))
        if wanted not in self.columns:
            self.hidden.append((expression, (sql, params), None))
            self.columns.append(wanted)
        return self.columns.index(wanted)


def order_of(compiler: Any, order_by: Iterable[Any], select: Sequence[Selected]) -> Order:
    """
    Return how rows that are selected by ``select`` are sorted by ``order_by``.

    Raises:
        CannotMerge: nothing is known of the type of one of the expressions.
    """
    order = Order(columns=list(_columns(compiler, select)))
    for ordering in _spelt_out(each[0] for each in order_by):
        position, expression = _position(compiler, ordering, select, order.columns)
        if type_of(compiler, expression) == INTERVAL:
            position, expression = None, Length(expression)
        if position is None:
            position = order.place(compiler, expression)
        kind = kind_of(compiler, expression, EXACT, f"the order of {named(expression)}, whose type is unknown")
        if kind is not None:
            order.kinds[position] = kind
        nulls_first, read = _nulls_first(ordering, compiler), _read(compiler, expression)
        order.keys.append(SortKey(position, ordering.descending, nulls_first, read))
    return order


def _spelt_out(orderings: Iterable[Any]) -> Iterator[Any]:
    """Yield the orderings, one for each column of a composite primary key."""
    for ordering in orderings:
        if not isinstance(ordering.expression, ColPairs):
            yield ordering
            continue
        for column in ordering.expression.get_cols():
            copy = ordering.copy()
            copy.set_source_expressions([column])
            yield copy


def kind_of(compiler: Any, expression: Any, exact: Container[str], construct: str) -> Kind | None:
    """
    Return by what an expression's values are compared; None, if Python compares those of the types ``exact`` alike.

    Raises:
        CannotMerge: nothing is known of the type; ``construct`` says what for it had to be known.
    """
    name, collation = type_of(compiler, expression), collation_of(expression)
    if compiler.connection.vendor == "sqlite":
        # Raw values sort by storage class and then as in Python; only a declared collation can differ.
        return None if collation is None else Kind(ranks.TEXT, collation)
    if name in TEXT:
        return Kind(ranks.TEXT, collation)
    if name in exact:
        return None
    if name == UNKNOWN:
        raise cannot_merge(compiler.query, construct, "Use other fields, or limit the query to one shard key.")
    if name.startswith(INTERVAL):
        # Nothing tells how the driver changed what is in an array.
        what = f"{named(expression)}, an array of intervals"
        raise cannot_merge(compiler.query, what, "Use other fields, or limit the query to one shard key.")
    declared = UNBOUNDED.sub(r"\1", expression.output_field.db_type(compiler.connection))
    # A function of text may give what no collation can be named for.
    named_for = isinstance(expression, (Col, Collate)) or COLLATABLE.search(name)
    return Kind(declared, collation if named_for else None)


def _read(compiler: Any, expression: Any) -> Callable[[datetime], datetime] | None:
    """Return how moments are compared that the driver shows by a clock which goes back once a year."""
    connection = compiler.connection
    if connection.vendor == "sqlite" or connection.timezone_name == "UTC":
        return None
    if not type_of(compiler, expression).startswith("timestamp"):
        return None
    # With time zones, what comes without one is no moment: TruncHour(), for example.
    zone = None if settings.USE_TZ else ZoneInfo(connection.timezone_name)

    def moment(value: datetime) -> datetime:
        local = value if zone is None else value.replace(tzinfo=zone)
        return local if local.tzinfo is None else local.astimezone(UTC)

    return moment


def is_sortable(compiler: Any, expression: Any) -> bool:
    """Return whether Python sorts the expression's values as the database does, whatever the collations are."""
    if compiler.connection.vendor == "sqlite":
        return collation_of(expression) is None
    return type_of(compiler, expression) in EXACT | {INTERVAL}


def type_of(compiler: Any, expression: Any) -> str:
    """Return the database type of an expression without its length, "unknown" when Django knows none."""
    try:
        output = expression.output_field
    except (FieldError, AttributeError):
        return UNKNOWN
    kind = output.db_type(compiler.connection)
    return UNKNOWN if kind is None else _without_length(str(kind))


@cache
def _without_length(kind: str) -> str:
    return LENGTH.sub("", kind).strip()


def collation_of(expression: Any) -> str | None:
    """Return the collation by which an expression is sorted; None stands for the database's own."""
    if isinstance(expression, Collate):
        collate: Any = expression
        return str(collate.collation)
    target: Any = getattr(expression, "target", None)
    while getattr(target, "remote_field", None) is not None:
        target = target.target_field
    own: str | None = getattr(target, "db_collation", None)
    if own is not None:
        return own
    found = (collation_of(source) for source in _giving_text(expression) if source is not None)
    return next((collation for collation in found if collation is not None), None)


def _giving_text(expression: Any) -> Iterable[Any]:
    """Return the expressions from which an expression has its text, and the text its collation."""
    if isinstance(expression, (Subquery, Query)):
        # Django 6 resolves a subquery to its query.
        query: Any = getattr(expression, "query", expression)
        return [each for part in (query, *query.combined_queries) for each in _selected(part)]
    if isinstance(expression, When):
        return [expression.result]
    if isinstance(expression, Aggregate):
        # Without the filter and the order.
        return expression.source_expressions
    return expression.get_source_expressions() if hasattr(expression, "get_source_expressions") else []


def _selected(query: Any) -> list[Any]:
    return [*query.select, *query.annotation_select.values()]


def named(expression: Any) -> str:
    """Return an expression as an error message names it."""
    target = getattr(expression, "target", None)
    return target.name if target is not None else f"{type(expression).__name__}()"


def columns_of(expression: Any) -> list[Any]:
    """Return what an expression of the SELECT clause is a column of each: a composite primary key is several."""
    # DISTINCT selects what is ordered by.
    inner: Any = expression.expression if isinstance(expression, OrderBy) else expression
    return list(inner.get_cols()) if isinstance(inner, ColPairs) else [inner]


def width(select: Sequence[Selected]) -> int:
    """Return how many columns a SELECT clause has."""
    return sum(len(columns_of(expression)) for expression, _, _ in select)


def _columns(compiler: Any, select: Sequence[Selected]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield the SQL of each column."""
    for expression, compiled, _ in select:
        columns = [expression] if type(expression) is Col else columns_of(expression)
        for sql, params in [compiled] if len(columns) == 1 else map(compiler.compile, columns):
            yield sql, tuple(params)


def _position(
    compiler: Any, ordering: OrderBy, select: Sequence[Selected], columns: list[tuple[str, tuple[Any, ...]]]
) -> tuple[int | None, Any]:
    """Return the column of an ORDER BY expression (None: not selected) and the expression itself."""
    expression: Any = ordering.expression
    if isinstance(expression, Ref):
        reference: Any = expression
        if isinstance(expression, PositionRef):
            # The database counts columns, whatever Django has counted.
            position = reference.ordinal - 1
        else:
            index = next(turn for turn, (_, _, alias) in enumerate(select) if alias == reference.refs)
            position = width(select[:index])
        return position, [column for each, _, _ in select for column in columns_of(each)][position]
    sql, params = compiler.compile(expression)
    wanted = (sql, tuple(params))
    return (columns.index(wanted) if wanted in columns else None), expression


def _nulls_first(ordering: OrderBy, compiler: Any) -> bool:
    if ordering.nulls_first or ordering.nulls_last:
        return bool(ordering.nulls_first)
    largest: bool = compiler.connection.features.nulls_order_largest
    return largest == ordering.descending
