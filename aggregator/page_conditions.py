"""
The rows beyond a row, as conditions that the database compares by its own rules: collations, NaN, NULLs, time zones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from django.db.models import BooleanField, Func, Model, QuerySet, TextField
from django.db.models.lookups import IsNull
from django.db.models.sql.where import AND, OR, WhereNode

from aggregator.page_keys import Key, is_nullable

M = TypeVar("M", bound=Model)


class KeyText(Func):
    """The value of a key in a form that loses nothing: PostgreSQL's own text, and SQLite's raw value."""

    output_field = TextField()

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, template="(%(expressions)s)::text", **context)

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        # As an expression it has no declared type, by which the driver would convert it.
        return self.as_sql(compiler, connection, template="+(%(expressions)s)", **context)


class Comparison(Func):
    """
    Keys compared with values of theirs; several of them as a row, for which one range of an index is enough.

    The values are what KeyText gave, as parameters that nothing converts: PostgreSQL reads them as the type of the key.
    """

    output_field = BooleanField()

    def __init__(self, *keys: Any, values: Sequence[Any], sign: str) -> None:
        super().__init__(*keys)
        self.values = tuple(values)
        self.sign = sign

    def as_sql(self, compiler: Any, connection: Any, *args: Any, **context: Any) -> Any:
        keys = [compiler.compile(each) for each in self.source_expressions]
        sides = [", ".join(f"({sql})" for sql, _ in keys), ", ".join(["(%s)"] * len(keys))]
        if len(keys) > 1:
            sides = [f"({side})" for side in sides]
        return f"{sides[0]} {self.sign} {sides[1]}", [*(each for _, params in keys for each in params), *self.values]


@dataclass(frozen=True, slots=True)
class Sorted:
    """One key as the rows of a page are sorted by it."""

    #: As the query has resolved it.
    expression: Any
    descending: bool
    nulls_first: bool
    nullable: bool

    @property
    def sign(self) -> str:
        return "<" if self.descending else ">"

    def is_null(self, truth: bool = True) -> Any:
        return IsNull(self.expression, truth)


def sorted_by(query: Any, keys: Sequence[Key], *, nulls_largest: bool, back: bool) -> list[Sorted]:
    """Return how the rows of pages are sorted by the keys, which are annotations of the query."""
    found = []
    for place, key in enumerate(keys):
        nulls_first = (nulls_largest == key.descending) if key.nulls_first is None else key.nulls_first
        alias = alias_of(place)
        nullable = is_nullable(query, alias)
        found.append(Sorted(query.annotations[alias], key.descending != back, nulls_first != back, nullable))
    return found


def alias_of(place: int) -> str:
    return f"_page_key_{place}"


def text_of(place: int) -> str:
    return f"_page_text_{place}"


def narrowed(queryset: QuerySet[M], condition: Any) -> QuerySet[M]:
    """Return the rows for which a condition of beyond() holds; None lets them all be."""
    # As filter() would, which resolves once more what is resolved: for a page, that is a part of the time that counts.
    found = queryset.all()
    if condition is not None:
        found.query.where.add(condition, AND)
    return found


def beyond(keys: Sequence[Sorted], values: Sequence[Any]) -> list[Any]:
    """
    Return the rows beyond the one whose keys have these values, in parts that come one after the other.

    NULLs of the first key are a part of their own, so that they keep no index from being used for the others.
    """
    first = keys[0]
    if values[0] is None:
        rest = _all([first.is_null(), _after(keys[1:], values[1:])])
        return [rest, first.is_null(False)] if first.nulls_first else [rest]
    parts = [_not_null(keys, values)]
    if first.nullable and not first.nulls_first:
        parts.append(first.is_null())
    return parts


def _not_null(keys: Sequence[Sorted], values: Sequence[Any]) -> Any:
    """Return the rows beyond whose first key is not NULL."""
    alike = 1
    while alike < len(keys) and keys[alike].descending == keys[0].descending and not keys[alike].nullable:
        alike += 1
    if alike == len(keys):
        return _compared(keys, values, keys[0].sign)
    # Implied by the rest, and what an index can be used for.
    bound = _compared(keys[:alike], values[:alike], f"{keys[0].sign}=")
    return _all([bound, _after(keys, values, null_too=False)])


def _after(keys: Sequence[Sorted], values: Sequence[Any], *, null_too: bool = True) -> Any:
    """Return the rows which are greater in one key, and equal in all keys before it."""
    found: list[Any] = []
    equal: list[Any] = []
    for key, value in zip(keys, values, strict=True):
        if value is None:
            if key.nulls_first:
                found.append(_all([*equal, key.is_null(False)]))
            equal.append(key.is_null())
            continue
        greater: Any = _compared([key], [value], key.sign)
        if key.nullable and not key.nulls_first and (null_too or equal):
            greater = _any([greater, key.is_null()])
        found.append(_all([*equal, greater]))
        equal.append(_compared([key], [value], "="))
    return _any(found)


def _compared(keys: Sequence[Sorted], values: Sequence[Any], sign: str) -> Comparison:
    return Comparison(*(key.expression for key in keys), values=values, sign=sign)


def _all(conditions: list[Any]) -> WhereNode:
    return WhereNode(conditions, connector=AND)


def _any(conditions: list[Any]) -> WhereNode:
    return WhereNode(conditions, connector=OR)
