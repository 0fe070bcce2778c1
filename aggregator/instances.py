"""
What attach() and join() work on: querysets of instances, and the values of their columns as they were loaded.
"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import FieldError
from django.db.models import Manager, Model, QuerySet
from django.db.models.manager import BaseManager
from django.db.models.query import ModelIterable


def queryset_of(source: QuerySet[Any, Any] | Manager[Any], asker: str) -> Any:
    """
    Return a queryset of its own for a queryset or a manager; ``asker`` is the function that was given it.

    Raises:
        TypeError: it is neither, or a queryset of values.
    """
    if not isinstance(source, (QuerySet, BaseManager)):
        raise TypeError(f"{asker}() takes a queryset or a manager, such as Order.objects, not {source!r}.")
    # Twice, since a manager of prefetched rows gives away the queryset that holds them.
    queryset: Any = source.all().all()
    if not issubclass(queryset._iterable_class, ModelIterable):
        raise TypeError(f"{asker}() works on instances. Give it a queryset without values() or values_list().")
    return queryset


def value_of(instance: Model, field: Any, asker: str) -> Any:
    """
    Return what the column of a field holds.

    Raises:
        FieldError: it was not loaded, and to load it would take a query for each row.
    """
    if field.attname not in instance.__dict__:
        raise FieldError(
            f"{asker}() needs the column {field.attname!r} of {instance._meta.label}, which was not loaded. "
            f"Name it in only(), or take it out of defer()."
        )
    return getattr(instance, field.attname)
