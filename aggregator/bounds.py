"""
What a policy means before and beside the merging: a query that one shard answers alone keeps to it as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import cache
from typing import Any

from django.db.models.sql.constants import MULTI

from aggregator import executor, policy
from aggregator.asking import Asking
from aggregator.policy import Policy
from sharding import cluster_map
from sharding.backends.hook import FanOutRequest


def reachable(request: FanOutRequest) -> FanOutRequest:
    """
    Return the request without the shards that nobody can connect to, where they may be missing.

    They must be known before anything is compiled, which may ask a connection for its server's version.

    Raises:
        ShardsUnavailable: nobody can connect to any of them.
    """
    asked = policy.of(request.query)
    if asked.record is None or all(cluster_map.connection_of(alias).connection for alias in request.aliases):
        return request
    with executor.participating(request.door, request.aliases, asked) as connections:
        executor.run(connections, lambda connection: connection.ensure_connection())
        return replace(request, aliases=tuple(connection.alias for connection in connections))


def bounded(request: FanOutRequest, compiler: Any) -> Any:
    """Return a compiler of a request to one shard such that its statement keeps to the policy, unchanged."""
    asked = policy.of(request.query)
    if not asked.is_plain:
        native: Any = type(compiler)
        compiler.__class__ = _bounded(native)
        compiler.policy = asked
    return compiler


class Bounded:
    """Mixin of Django's compiler for one shard."""

    connection: Any
    policy: Policy

    def execute_sql(self, result_type: Any = MULTI, chunked_fetch: bool = False, *args: Any, **kwargs: Any) -> Any:
        native = super().execute_sql  # type: ignore[misc]
        with executor.participating(self.connection.door, [self.connection.alias], self.policy) as connections:
            result = executor.run(connections, lambda connection: native(result_type, chunked_fetch, *args, **kwargs))[
                0
            ]
            if result_type == MULTI and chunked_fetch and not isinstance(result, list):
                return _in_time(executor.asking_now(), self.connection, result)
            return result


def _in_time(asking: Asking, connection: Any, chunks: Any) -> Iterator[Any]:
    """Yield the chunks, each of which has as much time as the first."""
    end = object()
    with closing(chunks):
        while (chunk := executor.step(asking.again(), connection, lambda: next(chunks, end))) is not end:
            yield chunk


@cache
def _bounded(native: Any) -> Any:
    return type(f"Bounded{native.__name__}", (Bounded, native), {})
