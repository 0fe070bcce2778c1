"""
The physical databases inside one atomic block of the door, each with its own transaction and savepoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.db import DatabaseError
from django.db.transaction import Atomic

from sharding import cluster_map


class Participant:
    """
    One shard inside the door's atomic block.

    Its transaction begins at its first statement, and its savepoints are made when a statement follows them.
    """

    def __init__(self, alias: str, *, borrowed: bool, depth: int) -> None:
        self.alias = alias
        #: How many savepoints of the door were open when it joined: their rollback leaves nothing of its work.
        self.depth = depth
        self.connection: Any = cluster_map.connection_of(alias)
        #: Savepoints of the door that exist here too, oldest first: always the first ones of the door's.
        self.savepoints: list[str] = []
        # In a TestCase the transaction is the test's own; it begins and ends it on every database by itself.
        self._atomic = None if borrowed else Atomic(alias, savepoint=True, durable=False)
        if self._atomic is not None:
            self._atomic.__enter__()
        self._changes = self._total_changes()

    def establish(self, savepoints: Sequence[str]) -> None:
        """Make the door's savepoints that are still missing here."""
        for sid in savepoints[len(self.savepoints) :]:
            self.connection._savepoint(sid)
            self.savepoints.append(sid)

    def is_undone_by(self, place: int) -> bool:
        """Return whether rolling back to the door's savepoint at ``place`` undoes all that was done here."""
        return self._atomic is not None and self.depth > place

    def roll_back_to(self, sid: str) -> None:
        if sid in self.savepoints:
            self.connection._savepoint_rollback(sid)
            del self.savepoints[self.savepoints.index(sid) + 1 :]

    def release(self, sid: str) -> None:
        if sid in self.savepoints:
            self.connection._savepoint_commit(sid)
            del self.savepoints[self.savepoints.index(sid) :]

    def is_broken(self) -> bool:
        """Return whether the database would answer COMMIT with a rollback, without an error."""
        return bool(self.connection.needs_rollback) or is_aborted(self.connection)

    def wrote(self) -> bool:
        """Ask the database whether this transaction changed anything."""
        if self.connection.vendor == "sqlite":
            return self._total_changes() != self._changes
        return has_transaction_id(self.connection)

    def commit(self) -> None:
        if self._atomic is not None:
            self._atomic.__exit__(None, None, None)

    def roll_back(self) -> None:
        if self._atomic is not None:
            self._atomic.__exit__(DatabaseError, DatabaseError("rolled back with its atomic block"), None)

    def _total_changes(self) -> int:
        return total_changes(self.connection)


def roll_back_all(participants: Iterable[Participant]) -> None:
    """Roll back every participant; one that fails has lost its connection, and with it its transaction."""
    failure: BaseException | None = None
    for participant in participants:
        try:
            participant.roll_back()
        except Exception as error:
            failure = failure or error
    if failure is not None:
        raise failure


def is_aborted(connection: Any) -> bool:
    """Return whether a PostgreSQL transaction has failed and only a rollback can end it."""
    raw = connection.connection
    if connection.vendor != "postgresql" or raw is None:
        return False
    return bool(raw.info.transaction_status.name == "INERROR")


def has_transaction_id(connection: Any) -> bool:
    """Ask PostgreSQL whether the open transaction has been given an id, which it is at its first write."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")
        return bool(cursor.fetchone()[0])


def total_changes(connection: Any) -> int:
    raw = connection.connection
    return raw.total_changes if connection.vendor == "sqlite" and raw is not None else 0
