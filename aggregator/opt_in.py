"""
The explicit opt-in: a queryset that asks every shard.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from django.db.models import Manager, Model, QuerySet
from django.db.models.manager import BaseManager

from aggregator import policy
from aggregator.partial_answers import partial_class, whole_class
from sharding import registry

M = TypeVar("M", bound=Model)


def fan_out(
    source: QuerySet[M, Any] | Manager[M],
    *,
    shards: Iterable[str] | None = None,
    timeout: float | None = None,
    on_error: str = policy.RAISE,
    max_parallel: int | None = None,
) -> QuerySet[M, Any]:
    """
    Return a queryset over the rows of ``source`` on every shard; everything can be done with it that a queryset does.

    Of two calls around each other, the outer one counts.

    Args:
        shards: the aliases of those to ask, for an answer over their rows alone.
        timeout: seconds that an answer, or the next rows of a stream, may take; left out, SHARDING["FAN_OUT_TIMEOUT"].
        on_error: with "partial", an answer may lack the rows of shards that do not answer, and names them.
        max_parallel: how many shards are asked at once; left out, SHARDING["MAX_PARALLEL"].

    Raises:
        NotSharded: its model is not sharded.
        TypeError: ``source`` is neither a queryset nor a manager.
        UnknownShard: an alias is no shard of this cluster.
        ValueError: another argument is not what it may be.
    """
    if not isinstance(source, (QuerySet, BaseManager)):
        raise TypeError(f"fan_out() takes a queryset or a manager, such as Order.objects, not {source!r}.")
    registry.get(source.model)
    queryset: Any = source.all()
    # An attribute of the query, since that is what every clone of the queryset carries along.
    queryset.query.fan_out = policy.made(shards, timeout, on_error, max_parallel)
    whole = whole_class(queryset)
    queryset.__class__ = partial_class(whole) if on_error == policy.PARTIAL else whole
    return queryset  # type: ignore[no-any-return]
