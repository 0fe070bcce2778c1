"""
UPDATE and DELETE of rows that lie on several shards: one statement for each, one after the other, in one atomic block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import InterfaceError, OperationalError, transaction

from aggregator import executor, policy
from aggregator.asking import Asking
from aggregator.resolving import Resolving
from sharding import cluster_map
from sharding.backends.database_errors import original
from sharding.backends.hook import FanOutRequest
from sharding.backends.settlement import Settlement


def write_compiler(request: FanOutRequest) -> Any:
    """Return what executes a write on every shard of a request; on one shard, Django's own compiler."""
    # Each shard would number and rank its own rows alone.
    is_by_window = request.merged and request.query.where.contains_over_clause
    if request.refused is not None or is_by_window:
        return Resolving(request)
    is_alone = len(request.aliases) == 1 and policy.of(request.query).is_plain
    return request.native() if is_alone else Writing(request)


class Writing:
    """Stands for Django's compiler of an UPDATE or a DELETE."""

    def __init__(self, request: FanOutRequest) -> None:
        self.request = request
        self.query = request.query
        self.connection = request.door
        self._settlement = Settlement(request.door.alias)

    def as_sql(self, *args: Any, **kwargs: Any) -> Any:
        """Return the statement of the first shard; the others get the same."""
        return self._native(self.request.aliases[0]).as_sql(*args, **kwargs)

    def execute_sql(self, result_type: Any) -> int:
        """Return the number of rows that were written, on all shards together."""
        counts = self._each(lambda alias: self._native(alias).execute_sql(result_type) or 0)
        return sum(counts)

    def execute_returning_sql(self, returning_fields: Any) -> list[Any]:
        """Return the rows that an UPDATE gives back, of all shards (Django 6)."""
        found = self._each(lambda alias: self._native(alias).execute_returning_sql(returning_fields))
        return [row for rows in found for row in rows]

    def _native(self, alias: str) -> Any:
        # Compiling changes a query that has joins, so that each shard needs its own.
        compiler = self.request.native(alias, self.query.clone())
        compiler.settlement = self._settlement
        return compiler

    def _each(self, write: Callable[[str], Any]) -> list[Any]:
        door = self.request.door
        # Where no two-phase commit is to be had, a write by itself may still commit in turn.
        with door.committing_one_by_one(), transaction.atomic(using=door.alias, savepoint=False):
            self._settlement = Settlement(door.alias)
            asking = Asking(policy.of(self.query))
            counts = [self._attempt(write, alias, asking) for alias in self.request.aliases]
            self._settlement.settle()
            return counts

    def _attempt(self, write: Callable[[str], Any], alias: str, asking: Asking) -> Any:
        connection = cluster_map.connection_of(alias)
        if asking.deadline is not None:
            # The limit is one of the shard's transaction, which must have begun.
            self._enlist(connection, asking)
        return executor.step(asking, connection, lambda: write(alias))

    def _enlist(self, connection: Any, asking: Asking) -> None:
        alias = connection.alias
        try:
            with asking.watching([connection]):
                self.request.door.enlist(alias)
                connection.cursor().close()
        except (OperationalError, InterfaceError) as error:
            asking.lose({alias: original(error)}, {alias} if asking.is_late() else set())
