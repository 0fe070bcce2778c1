"""
What the database wrappers do for blocks that lost against another one: say so on the error, and report what commits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sharding import conflicts, retrying

#: Statements that store nothing by themselves, after comments and parentheses. Django sends SQLite its BEGIN.
_READS = re.compile(
    r"(?:\s|\(|/\*.*?\*/)*(?:SELECT|SHOW|SET|RESET|PRAGMA|BEGIN|ROLLBACK|SAVEPOINT|RELEASE)\b",
    re.IGNORECASE | re.DOTALL,
)


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
        raise
    if connection.autocommit and retrying.is_repeating() and not _READS.match(str(sql)):
        retrying.wrote_without_block(connection.alias)
    return result
