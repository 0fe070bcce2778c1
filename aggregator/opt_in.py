"""
The explicit opt-in: a queryset that asks every shard.
"""

from __future__ import annotations

from typing import Any, TypeVar

from django.db.models import Manager, Model, QuerySet
from django.db.models.manager import BaseManager

from sharding import registry

M = TypeVar("M", bound=Model)


def fan_out(source: QuerySet[M, Any] | Manager[M]) -> QuerySet[M, Any]:
    """
    Return a queryset over the rows of ``source`` on every shard; everything can be done with it that a queryset does.

    Raises:
        NotSharded: its model is not sharded.
        TypeError: ``source`` is neither a queryset nor a manager.
    """
    if not isinstance(source, (QuerySet, BaseManager)):
        raise TypeError(f"fan_out() takes a queryset or a manager, such as Order.objects, not {source!r}.")
    registry.get(source.model)
    queryset: Any = source.all()
    # An attribute of the query, since that is what every clone of the queryset carries along.
    queryset.query.fan_out = True
    return queryset  # type: ignore[no-any-return]
