"""
From an ordering, as order_by() takes it, to the keys of pages: expressions, directions, and where NULLs go.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.core.exceptions import FieldError
from django.db.models import F, QuerySet
from django.db.models.expressions import Col, OrderBy
from django.db.models.functions import Random
from django.db.models.sql.constants import INNER
from django.db.models.sql.datastructures import BaseTable

ADDRESS = re.compile(r" at 0x[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Key:
    """One expression that pages are ordered by."""

    expression: Any
    descending: bool = False
    #: None: where the database puts them.
    nulls_first: bool | None = None

    @property
    def name(self) -> str:
        """Return what tells this key from others, the same in every process."""
        nulls = {None: "", True: " nulls first", False: " nulls last"}[self.nulls_first]
        return f"{'-' * self.descending}{ADDRESS.sub('', repr(self.expression))}{nulls}"

    @property
    def field(self) -> str | None:
        name: str | None = getattr(self.expression, "name", None) if isinstance(self.expression, F) else None
        return name


def keys_of(queryset: QuerySet[Any], ordering: Sequence[Any]) -> list[Key]:
    """
    Return the keys of an ordering, with the primary key after them, so that they order the rows totally.

    Raises:
        FieldError: it is no order that comes again, or names no field.
    """
    keys = [key for item in ordering for key in _keys(queryset, item)]
    present = {key.field for key in keys}
    # The last key's direction, so that an index on both serves.
    descending = keys[-1].descending if keys else False
    for field in queryset.model._meta.pk_fields:
        if not present & {field.name, field.attname}:
            keys.append(Key(F(field.attname), descending))
    return keys


def is_nullable(query: Any, alias: str) -> bool:
    """Return whether the key that an annotation holds may be NULL, as far as is known."""
    column = query.annotations[alias]
    if not isinstance(column, Col):
        return True
    join = query.alias_map.get(column.alias)
    always = isinstance(join, BaseTable) or getattr(join, "join_type", None) == INNER
    return bool(column.target.null or not always)


def type_of(expression: Any) -> str:
    """Return the kind of field that an expression gives, or nothing where Django cannot tell."""
    try:
        return str(expression.output_field.get_internal_type())
    except FieldError:
        return ""


def _keys(queryset: QuerySet[Any], item: Any) -> Iterator[Key]:
    label = queryset.model._meta.label
    if isinstance(item, str):
        name = item.removeprefix("-").removeprefix("+")
        yield from _named(queryset, Key(F(name), item.startswith("-")), name, item)
        return
    if not hasattr(item, "resolve_expression"):
        raise FieldError(f"KeysetPaginator orders {label} by names of fields and expressions, not by {item!r}.")
    order = item if isinstance(item, OrderBy) else OrderBy(item)
    explicit = True if order.nulls_first else False if order.nulls_last else None
    key = Key(order.expression, bool(order.descending), explicit)
    if isinstance(order.expression, F):
        yield from _named(queryset, key, str(key.field), item)
        return
    if any(isinstance(each, Random) for each in _tree(order.expression)):
        raise _random(label, item)
    yield key


def _named(queryset: QuerySet[Any], key: Key, name: str, item: Any) -> Iterator[Key]:
    """Yield what a name stands for: an annotation, a field, a primary key of several, or a related model's order."""
    query: Any = queryset.query
    options: Any = queryset.model._meta
    if name == "?":
        raise _random(options.label, item)
    if name in query.annotations:
        yield key
        return
    if name == "pk":
        for field in options.pk_fields:
            yield replace(key, expression=F(field.attname))
        return
    try:
        _, field, _, transforms = query.names_to_path(name.split("__"), options)
    except FieldError as error:
        message = f"KeysetPaginator cannot order {options.label} by {item!r}: it names no field or annotation."
        raise FieldError(message) from error
    related: Any = field.related_model if field.is_relation else None
    by_id = related is None or transforms or getattr(field, "attname", None) == name.split("__")[-1]
    if by_id or not related._meta.ordering:
        yield replace(key, expression=F(name))
        return
    for each in related._meta.ordering:
        if not isinstance(each, str):
            raise FieldError(
                f"KeysetPaginator cannot order {options.label} by {item!r}, since {related._meta.label} is ordered by "
                f"the expression {each!r}. Name fields of it, such as '{name}__pk'."
            )
        sign = "-" if each.startswith("-") != key.descending else ""
        yield from _keys(queryset, f"{sign}{name}__{each.lstrip('-+')}")


def _tree(expression: Any) -> Iterator[Any]:
    yield expression
    for each in expression.get_source_expressions() if hasattr(expression, "get_source_expressions") else ():
        yield from _tree(each)


def _random(label: str, item: Any) -> FieldError:
    return FieldError(
        f"KeysetPaginator cannot order {label} by {item!r}: a random order is another one on every page. Order by "
        f"fields or expressions of them."
    )
