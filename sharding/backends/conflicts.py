"""
What the database wrappers do for blocks that lost against another one: say so on the error, and report what commits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.signals import connection_created

from sharding import conflicts, retrying
from sharding.backends import not_migrated, refusals

#: Statements that store nothing by themselves, after comments and parentheses. Django sends SQLite its BEGIN.
_READS = re.compile(
    r"(?:\s|\(|/\*.*?\*/)*(?:SELECT|SHOW|SET|RESET|PRAGMA|BEGIN|ROLLBACK|SAVEPOINT|RELEASE)\b",
    re.IGNORECASE | re.DOTALL,
)


def _only_reads(sql: str) -> bool:
    # Without parameters, PostgreSQL takes several statements at a time.
    return _READS.match(sql) is not None and ";" not in sql.rstrip("; \n")


class TellingConflicts:
    """Mixin of the database wrapper, above DoorTransactions."""

    alias: str
    pending: bool
    participants: dict[str, Any]
    spans_databases: bool
    execute_wrappers: list[Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute_wrappers.append(_tell)

    def _commit(self) -> None:
        if self.pending and not self.participants:
            # Nothing was sent anywhere.
            super()._commit()  # type: ignore[misc]
            return
        with retrying.ending(self.alias):
            try:
                super()._commit()  # type: ignore[misc]
            except Exception as error:
                conflicts.explain(error, spans_databases=self.spans_databases)
                raise


def _tell(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
    """Execute a statement: an execute wrapper."""
    connection = context["connection"]
    try:
        result = execute(sql, params, many, context)
    except Exception as error:
        if connection.in_atomic_block:
            conflicts.explain(error, spans_databases=connection.spans_databases)
        refused = refusals.explained(error, connection.alias)
        if refused is not None:
            raise refused from error.__cause__
        unmigrated = not_migrated.explained(error, sql, connection)
        if unmigrated is not None:
            raise unmigrated from error.__cause__
        raise
    if connection.autocommit and retrying.is_repeating() and not _only_reads(str(sql)):
        retrying.wrote_without_block(connection.alias)
    return result


def watch_other_engine(sender: Any, connection: Any, **kwargs: Any) -> None:
    """Note what is written on a database whose ENGINE is none of ours, when it has got a connection."""
    if not isinstance(connection, TellingConflicts) and _tell_other not in connection.execute_wrappers:
        connection.execute_wrappers.append(_tell_other)


def _tell_other(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
    result = execute(sql, params, many, context)
    connection = context["connection"]
    if retrying.is_repeating() and not _only_reads(str(sql)):
        door: Any = connections[DEFAULT_DB_ALIAS]
        # Nobody tells how a block over there ends, unless it ends with the door's.
        if connection.alias not in getattr(door, "participants", ()):
            retrying.wrote_without_block(connection.alias)
    return result


connection_created.connect(watch_other_engine)
