"""
The rows beyond a row, as conditions that the database compares by its own rules: collations, NaN, NULLs, time zones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import Any

from django.db.models import BooleanField, F, Func, Q, TextField
from django.db.models.expressions import Col, Expression

from aggregator.page_keys import Key, is_nullable


class KeyText(Func):
    """The value of a key in a form that loses nothing: PostgreSQL's own text, and SQLite's raw value."""

    output_field = TextField()

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, template="(%(expressions)s)::text", **context)

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        # As an expression it has no declared type, by which the driver would convert it.
        return self.as_sql(compiler, connection, template="+(%(expressions)s)", **context)


class KeyValue(Expression):
    """What KeyText gave, as a parameter that nothing converts: PostgreSQL reads it as the type it is compared with."""

    output_field = TextField()

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def resolve_expression(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def get_group_by_cols(self) -> list[Any]:
        # Compared with an aggregate, in HAVING, it is nothing that rows are grouped by.
        return []

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        return "%s", [self.value]


class Comparison(Func):
    """Keys compared with values of theirs; several of them as a row, for which one range of an index is enough."""

    output_field = BooleanField()

    def __init__(self, *expressions: Any, sign: str) -> None:
        super().__init__(*expressions)
        self.sign = sign

    def resolve_expression(self, *args: Any, **kwargs: Any) -> Any:
        # Most of the time of a page is Python's, so that it shows what is resolved twice.
        if all(isinstance(each, (Col, KeyValue)) for each in self.source_expressions):
            return self
        return super().resolve_expression(*args, **kwargs)

    def as_sql(self, compiler: Any, connection: Any, *args: Any, **context: Any) -> Any:
        compiled = [compiler.compile(each) for each in self.source_expressions]
        half = len(compiled) // 2
        sides = [", ".join(f"({sql})" for sql, _ in side) for side in (compiled[:half], compiled[half:])]
        if half > 1:
            sides = [f"({side})" for side in sides]
        return f"{sides[0]} {self.sign} {sides[1]}", [param for _, params in compiled for param in params]


@dataclass(frozen=True, slots=True)
class Sorted:
    """One key as the rows of a page are sorted by it; ``alias`` is the annotation that holds its expression."""

    alias: str
    #: The column that the annotation is, or a reference to it, which takes longer to resolve.
    expression: Any
    descending: bool
    nulls_first: bool
    nullable: bool

    @property
    def sign(self) -> str:
        return "<" if self.descending else ">"

    def is_null(self, truth: bool = True) -> Q:
        return Q(**{f"{self.alias}__isnull": truth})


def sorted_by(query: Any, keys: Sequence[Key], *, nulls_largest: bool, back: bool) -> list[Sorted]:
    """Return how the rows of pages are sorted by the keys, which are annotations of the query."""
    found = []
    for place, key in enumerate(keys):
        nulls_first = (nulls_largest == key.descending) if key.nulls_first is None else key.nulls_first
        alias = alias_of(place)
        column = query.annotations[alias]
        expression = column if isinstance(column, Col) else F(alias)
        nullable = is_nullable(query, alias)
        found.append(Sorted(alias, expression, key.descending != back, nulls_first != back, nullable))
    return found


def alias_of(place: int) -> str:
    return f"_page_key_{place}"


def text_of(place: int) -> str:
    return f"_page_text_{place}"


def beyond(keys: Sequence[Sorted], values: Sequence[Any]) -> list[Q]:
    """
    Return the rows beyond the one whose keys have these values, in parts that come one after the other.

    NULLs of the first key are a part of their own, so that they keep no index from being used for the others.
    """
    first = keys[0]
    if values[0] is None:
        rest = first.is_null() & _after(keys[1:], values[1:])
        return [rest, first.is_null(False)] if first.nulls_first else [rest]
    parts = [_not_null(keys, values)]
    if first.nullable and not first.nulls_first:
        parts.append(first.is_null())
    return parts


def _not_null(keys: Sequence[Sorted], values: Sequence[Any]) -> Q:
    """Return the rows beyond whose first key is not NULL."""
    alike = 1
    while alike < len(keys) and keys[alike].descending == keys[0].descending and not keys[alike].nullable:
        alike += 1
    if alike == len(keys):
        return _compared(keys, values, keys[0].sign)
    # Implied by the rest, and what an index can be used for.
    bound = _compared(keys[:alike], values[:alike], f"{keys[0].sign}=")
    return bound & _after(keys, values, null_too=False)


def _after(keys: Sequence[Sorted], values: Sequence[Any], *, null_too: bool = True) -> Q:
    """Return the rows which are greater in one key, and equal in all keys before it."""
    found = Q()
    equal: list[Q] = []
    for key, value in zip(keys, values, strict=True):
        if value is None:
            if key.nulls_first:
                found |= reduce(and_, equal, Q()) & key.is_null(False)
            equal.append(key.is_null())
            continue
        greater = _compared([key], [value], key.sign)
        if key.nullable and not key.nulls_first and (null_too or equal):
            greater |= key.is_null()
        found |= reduce(and_, equal, Q()) & greater
        equal.append(_compared([key], [value], "="))
    return found


def _compared(keys: Sequence[Sorted], values: Sequence[Any], sign: str) -> Q:
    return Q(Comparison(*(key.expression for key in keys), *map(KeyValue, values), sign=sign))
