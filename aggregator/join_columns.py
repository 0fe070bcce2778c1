"""
The columns that join() compares: which ones ``on`` names, whether they can be compared, and as what.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import FieldDoesNotExist, FieldError, ValidationError
from django.db import models
from django.db.models import Model

On = str | tuple[str, str] | Mapping[str, str]

#: In this order, since a moment's field is also a day's.
KINDS: tuple[tuple[str, tuple[type[Any], ...]], ...] = (
    ("integer", (models.IntegerField,)),
    ("decimal", (models.DecimalField,)),
    ("text", (models.CharField, models.TextField)),
    ("UUID", (models.UUIDField,)),
    ("datetime", (models.DateTimeField,)),
    ("date", (models.DateField,)),
    ("time", (models.TimeField,)),
    ("duration", (models.DurationField,)),
    ("boolean", (models.BooleanField,)),
    ("IP address", (models.GenericIPAddressField,)),
)
#: Different kinds with values that are the same.
ALIKE = ({"integer", "decimal"}, {"text", "integer"}, {"text", "UUID"})


@dataclass(frozen=True, slots=True)
class Pair:
    """A column of the left side and the one of the right side that it is compared with."""

    left: Any
    right: Any

    def converted(self, value: Any) -> Any:
        """Return the value of the right column that equals one of the left column; None where none does."""
        if value is None:
            return None
        try:
            found = _target(self.right).to_python(value)
            # What does not come back the same was rounded, or written otherwise.
            back = _target(self.left).to_python(found)
        except (ValidationError, OverflowError):
            return None
        if back != value or (isinstance(found, int) and not -(2**63) <= found < 2**63):
            return None
        return found


def pairs(on: On, left: type[Model], right: type[Model]) -> list[Pair]:
    """
    Return the columns that ``on`` names.

    Raises:
        TypeError: it has none of the three forms.
        FieldError: a model has no such column, or two of them cannot be compared.
    """
    found = [Pair(_column(left, one), _column(right, other)) for one, other in _names(on)]
    for pair in found:
        _check_kinds(pair)
    return found


def _names(on: Any) -> Iterator[tuple[str, str]]:
    if isinstance(on, str):
        on = (on, on)
    names = list(on.items()) if isinstance(on, Mapping) else [on]
    for each in names:
        if not isinstance(each, tuple) or len(each) != 2 or not all(isinstance(name, str) for name in each):
            raise _unreadable(on)
        yield each
    if not names:
        raise _unreadable(on)


def _unreadable(on: Any) -> TypeError:
    return TypeError(
        f"on must be the name of a field of both sides, a tuple of the left one's and the right one's, or a mapping of "
        f"left ones to right ones, not {on!r}."
    )


def _column(model: type[Model], name: str) -> Any:
    field: Any
    try:
        field = model._meta.pk if name == "pk" else model._meta.get_field(name)
    except FieldDoesNotExist:
        field = None
    if not getattr(field, "concrete", False):
        names = ", ".join(each.name for each in model._meta.concrete_fields)
        raise FieldError(f"join() compares columns, and {model._meta.label} has no column {name!r}. It has {names}.")
    return field


def _check_kinds(pair: Pair) -> None:
    left, right = _kind(pair.left), _kind(pair.right)
    if None in (left, right) or (left != right and {left, right} not in ALIKE):
        raise FieldError(
            f"join() cannot compare {_told(pair.left)} with {_told(pair.right)}. Join by two integers, texts, UUIDs, "
            f"decimals, dates or the like; integers also equal decimals and text, and UUIDs text."
        )


def _told(field: Any) -> str:
    return f"{field.model._meta.label}.{field.name} ({type(field).__name__})"


def _kind(field: Any) -> str | None:
    return next((name for name, classes in KINDS if isinstance(_target(field), classes)), None)


def _target(field: Any) -> Any:
    while isinstance(field, models.ForeignKey):
        field = field.target_field
    return field
