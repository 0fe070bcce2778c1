"""
Pages by cursors: a page begins after the last row of the one before, wherever that is by then.

Unlike pages by number, they skip and repeat no row when rows are written meanwhile, and the hundredth costs what the
first one does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.core import signing
from django.core.exceptions import FieldDoesNotExist, FieldError, ValidationError
from django.db.models import Model, Q, QuerySet
from django.db.models.query import ModelIterable

from sharding.errors import InvalidCursor

M = TypeVar("M", bound=Model)

SALT = "aggregator.pagination"
FORWARD, BACK = "f", "b"


@dataclass(frozen=True, slots=True)
class KeysetPage(Generic[M]):
    """The rows of one page, in order, and the cursors of the pages beside it; None where there is none."""

    items: list[M]
    next_cursor: str | None
    previous_cursor: str | None
    #: {alias: why the rows of this shard are not among them}; only fan_out(on_error="partial") lets a shard be missing.
    missing: Mapping[str, Exception] = dataclasses.field(default_factory=dict)

    def __iter__(self) -> Iterator[M]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, slots=True)
class _Key:
    """One field that pages are ordered by."""

    name: str
    field: Any
    descending: bool


class KeysetPaginator(Generic[M]):
    """
    Pages of a queryset of instances, fanned out or not.

    The order is that of ``ordering``, else of the queryset; the primary key is added to it, so that it is total.
    """

    def __init__(self, queryset: QuerySet[M], per_page: int, *, ordering: Sequence[str] | None = None) -> None:
        if per_page < 1:
            raise ValueError(f"per_page must be at least 1, not {per_page!r}.")
        if queryset.query.is_sliced:
            raise ValueError("KeysetPaginator makes the slices itself. Give it a queryset that is not sliced.")
        iterable: Any = queryset._iterable_class
        if not issubclass(iterable, ModelIterable):
            raise ValueError("KeysetPaginator pages instances. Give it a queryset without values() or values_list().")
        if _repeats_rows(queryset.query):
            raise ValueError(
                "KeysetPaginator cannot tell apart the rows that a join to several rows repeats, and would skip some. "
                "Add distinct() to the queryset, or filter by Exists()."
            )
        self.per_page = per_page
        names: Any = ordering if ordering is not None else queryset.query.order_by or queryset.model._meta.ordering
        self._keys = _keys(queryset.model, names)
        self._queryset = queryset.order_by()
        # A cursor fits only the order that it was made for.
        self._shape = [queryset.model._meta.label_lower, *(f"{'-' * key.descending}{key.name}" for key in self._keys)]

    def page(self, cursor: str | None = None) -> KeysetPage[M]:
        """
        Return the page that a cursor names; without one, the first.

        Raises:
            InvalidCursor: this paginator, with this order, did not make the cursor.
        """
        if cursor is None:
            return self._page(FORWARD, None)
        direction, values = self._read(cursor)
        return self._page(direction, values)

    def _page(self, direction: str, values: list[Any] | None) -> KeysetPage[M]:
        queryset = self._queryset
        back = direction == BACK
        if values is not None:
            queryset = queryset.filter(self._beyond(values, back=back))
        terms = [f"{'-' * (key.descending != back)}{key.name}" for key in self._keys]
        # One row more tells whether there is another page.
        found = queryset.order_by(*terms)[: self.per_page + 1]
        rows = list(found)
        more = len(rows) > self.per_page
        items = rows[: self.per_page]
        if back:
            items.reverse()
        has_next, has_previous = (True, more) if back else (more, values is not None)
        return KeysetPage(
            items,
            self._write(FORWARD, items[-1]) if has_next and items else None,
            self._write(BACK, items[0]) if has_previous and items else None,
            getattr(found, "missing", {}),
        )

    def _beyond(self, values: list[Any], *, back: bool) -> Q:
        """Return the condition of the rows beyond a row: greater in one field, and equal in all fields before it."""
        found = Q()
        equal: dict[str, Any] = {}
        for key, value in zip(self._keys, values, strict=True):
            lookup = "lt" if key.descending != back else "gt"
            found |= Q(**equal, **{f"{key.name}__{lookup}": value})
            equal[key.name] = value
        first = self._keys[0]
        # Implied by the rest, and what a database can use an index for.
        bound = "lte" if first.descending != back else "gte"
        return Q(**{f"{first.name}__{bound}": values[0]}) & found

    def _write(self, direction: str, instance: M) -> str:
        values = [key.field.value_to_string(instance) for key in self._keys]
        return signing.dumps([direction, *self._shape, *values], salt=SALT)

    def _read(self, cursor: str) -> tuple[str, list[Any]]:
        try:
            direction, *found = signing.loads(cursor, salt=SALT)
        except (signing.BadSignature, ValueError, TypeError, AttributeError) as error:
            raise _invalid(cursor) from error
        shape, values = found[: len(self._shape)], found[len(self._shape) :]
        if shape != self._shape or len(values) != len(self._keys):
            raise _invalid(cursor)
        try:
            return direction, [key.field.to_python(value) for key, value in zip(self._keys, values, strict=True)]
        except ValidationError as error:
            raise _invalid(cursor) from error


def _repeats_rows(query: Any) -> bool:
    """Return whether a row may come once for each of the rows that it is joined to."""
    if query.distinct or query.group_by is not None:
        return False
    used = [join for alias, join in query.alias_map.items() if query.alias_refcount[alias]]
    fields = [getattr(join, "join_field", None) for join in used]
    return any(field.one_to_many or field.many_to_many for field in fields if field is not None)


def _keys(model: type[Model], names: Sequence[Any]) -> list[_Key]:
    keys = [_key(model, each) for name in names for each in _spelt_out(model, name)]
    present = {key.name for key in keys}
    # The last key's direction, so that an index on both serves.
    descending = keys[-1].descending if keys else False
    for field in model._meta.pk_fields:
        if field.attname not in present:
            keys.append(_Key(field.attname, field, descending))
    return keys


def _spelt_out(model: type[Model], name: Any) -> list[Any]:
    """Return the fields that "pk" or "-pk" stands for; any other name stands for itself."""
    if name not in ("pk", "-pk"):
        return [name]
    sign = name.removesuffix("pk")
    return [f"{sign}{field.name}" for field in model._meta.pk_fields]


def _key(model: type[Model], name: Any) -> _Key:
    label = model._meta.label
    if not isinstance(name, str) or name == "?":
        raise FieldError(f"KeysetPaginator orders {label} by names of fields, not by {name!r}.")
    plain = name.removeprefix("-").removeprefix("+")
    try:
        field: Any = model._meta.get_field(plain)
    except FieldDoesNotExist:
        raise FieldError(f"KeysetPaginator cannot order {label} by {name!r}: it is no field of its own.") from None
    if not getattr(field, "concrete", False) or field.null:
        raise FieldError(
            f"KeysetPaginator cannot order {label} by {name!r}, which may be NULL: nothing is greater or smaller "
            f"than NULL. Order by fields with null=False."
        )
    return _Key(field.attname, field, name.startswith("-"))


def _invalid(cursor: str) -> InvalidCursor:
    return InvalidCursor(
        f"The cursor {cursor!r} was not made for these pages. Start again at the first page.", cursor=cursor
    )
