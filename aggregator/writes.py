"""
UPDATE and DELETE of rows that lie on several shards: one statement for each, one after the other.

Inside an atomic block every shard takes part in it, and its commit decides. Outside, each statement commits by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aggregator import executor
from sharding.backends.hook import FanOutRequest
from sharding.errors import PartialCommit


def write_compiler(request: FanOutRequest) -> Any:
    """Return what executes a write on every shard of a request; on one shard, Django's own compiler."""
    return request.native() if len(request.aliases) == 1 else Writing(request)


class Writing:
    """Stands for Django's compiler of an UPDATE or a DELETE."""

    def __init__(self, request: FanOutRequest) -> None:
        self.request = request
        self.query = request.query
        self.connection = request.door

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
        return self.request.native(alias, self.query.clone())

    def _each(self, write: Callable[[str], Any]) -> list[Any]:
        results: list[Any] = []
        committed: list[str] = []
        for alias in self.request.aliases:
            try:
                result = write(alias)
            except Exception as error:
                failure = self._failed(alias, error, committed)
                if failure is error:
                    raise
                raise failure from error
            results.append(result)
            if result and not self.request.door.in_atomic_block:
                committed.append(alias)
        return results

    def _failed(self, alias: str, error: Exception, committed: list[str]) -> Exception:
        if committed:
            return PartialCommit(
                f"{', '.join(committed)} committed, but {alias} did not ({type(error).__name__}): the write is only "
                f"partly done. Repeat it, or write inside an atomic block.",
                committed=committed,
                failed={alias: error},
            )
        if executor.is_connection_failure(error):
            return executor.unavailable({alias: error})
        error.add_note(f"on shard {alias!r}")
        return error
