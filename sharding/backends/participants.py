"""
The physical databases inside one atomic block of the door, each with its own transaction and savepoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.db import DatabaseError, InterfaceError, connections
from django.db.transaction import Atomic, TransactionManagementError

from sharding import cluster_map
from sharding.commits import recovery


class Participant:
    """
    One shard, or another database that was asked to join, inside the door's atomic block.

    Its transaction begins at its first statement, and its savepoints are made when a statement follows them.
    """

    def __init__(self, alias: str, *, borrowed: bool, depth: int) -> None:
        self.alias = alias
        #: How many savepoints of the door were open when it joined: their rollback leaves nothing of its work.
        self.depth = depth
        #: Whether statements reach it past the door, so that its savepoints cannot wait for the next one.
        self.joined = False
        self.connection: Any = cluster_map.connection_of(alias)
        #: The database's own id of its transaction, once it was asked for and if it wrote.
        self.transaction_id: str | None = None
        #: Whether it only read, and keeps its locks until what others wrote is committed.
        self.ends_last = False
        #: Savepoints of the door that exist here too, oldest first: always the first ones of the door's.
        self.savepoints: list[str] = []
        #: How many of its own callbacks waited for the commit at each of them.
        self._callbacks: list[int] = []
        #: Whether its transaction began before the door's block, and goes on after it.
        self.goes_on = not borrowed and (self.connection.in_atomic_block or not self.connection.get_autocommit())
        # In a TestCase the transaction is the test's own; it begins and ends it on every database by itself.
        self._atomic = None if borrowed else Atomic(alias, savepoint=True, durable=False)
        if self._atomic is not None:
            self._atomic.__enter__()
        self._changes = self._total_changes()

    def establish(self, savepoints: Sequence[str]) -> None:
        """Make the door's savepoints that are still missing here."""
        for sid in savepoints[len(self.savepoints) :]:
            self.connection._savepoint(_name(sid))
            self.savepoints.append(sid)
            self._callbacks.append(len(self.connection.run_on_commit))

    def is_undone_by(self, place: int) -> bool:
        """Return whether rolling back to the door's savepoint at ``place`` undoes all that was done here."""
        return self._atomic is not None and self.depth > place

    @property
    def can_be_undone(self) -> bool:
        """Whether all that the block did here can be undone by itself, so that it takes no part any more."""
        return self._atomic is not None and not self.joined

    def roll_back_to(self, sid: str) -> None:
        if sid in self.savepoints:
            # What failed here since then is undone; until then no statement would be let through.
            self.connection.needs_rollback = False
            self.connection._savepoint_rollback(_name(sid))
            place = self.savepoints.index(sid)
            del self.savepoints[place + 1 :], self._callbacks[place + 1 :]
            del self.connection.run_on_commit[self._callbacks[place] :]

    def release(self, sid: str) -> None:
        if sid in self.savepoints:
            self.connection._savepoint_commit(_name(sid))
            place = self.savepoints.index(sid)
            del self.savepoints[place:], self._callbacks[place:]

    def is_broken(self) -> bool:
        """Return whether the database would answer COMMIT with a rollback, without an error."""
        return bool(self.connection.needs_rollback) or is_aborted(self.connection)

    def wrote(self) -> bool:
        """Ask the database whether this transaction changed anything."""
        if self.connection.vendor == "sqlite":
            return self._total_changes() != self._changes
        # Other systems cannot be asked.
        if self.connection.vendor != "postgresql":
            return True
        self.transaction_id, self.ends_last = state_of(self.connection)
        return self.transaction_id is not None

    def can_prepare(self) -> bool:
        """Return whether two-phase commit works there; the server is asked once in a process."""
        return can_prepare(self.connection)

    def take_callbacks(self) -> list[Any]:
        """Return what waits for this database's own commit, which is not the block's, and forget it here."""
        if self._atomic is None or self.goes_on:
            # What waits there waits for the end of the block around this one.
            return []
        taken, self.connection.run_on_commit = self.connection.run_on_commit, []
        return list(taken)

    def keep_callbacks(self, callbacks: list[Any]) -> list[Any]:
        """Let callbacks of the door's block wait for the block around this one, if there is one; return the others."""
        if not self.goes_on:
            return callbacks
        outer = set(self.connection.savepoint_ids)
        self.connection.run_on_commit += [(outer, *rest) for _, *rest in callbacks]
        return []

    def is_inside(self) -> bool:
        return self._atomic is not None and any(each is self._atomic for each in self.connection.atomic_blocks)

    def is_between_blocks(self) -> bool:
        """Return whether the connection is in a state that Django leaves only by an interrupted end of a block."""
        owned = self._atomic is not None and not self.goes_on
        return owned and not self.connection.in_atomic_block and not self.connection.get_autocommit()

    def commit(self) -> None:
        if self._atomic is not None:
            self._atomic.__exit__(None, None, None)

    def leave(self) -> None:
        """Leave the block once PREPARE TRANSACTION has ended the transaction here."""
        try:
            self.commit()
        except (DatabaseError, InterfaceError):
            # The session was lost meanwhile. What it had prepared is safe without it.
            self.connection.close()

    def roll_back(self) -> None:
        if self._atomic is not None:
            self._atomic.__exit__(DatabaseError, DatabaseError("rolled back with its atomic block"), None)

    def _total_changes(self) -> int:
        return total_changes(self.connection)


def _name(sid: str) -> str:
    # The database's own connection counts its savepoints by itself, and MySQL keeps only one of a name.
    return f"door_{sid}"


def refuse_own_transaction(alias: str, *, in_testcase: bool) -> None:
    """Raise TransactionManagementError if a database is in a transaction that does not end with the door's block."""
    connection: Any = connections[alias]
    if in_testcase and connection.in_atomic_block and connection.atomic_blocks[-1]._from_testcase:
        return
    if connection.in_atomic_block:
        raise TransactionManagementError(
            f"{alias!r} is inside an atomic block of its own already, which ends after sharding.atomic() and may still "
            f"roll back. Open sharding.atomic() around it instead."
        )
    if not connection.get_autocommit():
        raise TransactionManagementError(
            f"Autocommit is off on {alias!r}, so its transaction does not end with sharding.atomic(). Turn it on."
        )


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


def abandon(participants: Iterable[Participant]) -> None:
    """
    Take those out of a block that has ended which an interruption has kept inside.

    Otherwise the next block would be nested there in one that nobody ends, and what it writes would be lost.
    """
    for each in participants:
        if each.is_inside():
            # What it has prepared is not touched.
            recovery.finish_later(twice=True)
            try:
                each.roll_back()
            except Exception:
                each.connection.close()
        elif each.is_between_blocks():
            each.connection.close()


#: Whether max_prepared_transactions is more than 0, by alias.
_prepares: dict[str, bool] = {}


def can_prepare(connection: Any) -> bool:
    """Return whether a database can prepare transactions."""
    if connection.vendor != "postgresql":
        return False
    if connection.alias not in _prepares:
        with connection.cursor() as cursor:
            cursor.execute("SHOW max_prepared_transactions")
            _prepares[connection.alias] = int(cursor.fetchone()[0]) > 0
    return _prepares[connection.alias]


def is_aborted(connection: Any) -> bool:
    """Return whether a PostgreSQL transaction has failed and only a rollback can end it."""
    raw = connection.connection
    if connection.vendor != "postgresql" or raw is None:
        return False
    return bool(raw.info.transaction_status.name == "INERROR")


def state_of(connection: Any) -> tuple[str | None, bool]:
    """
    Ask PostgreSQL for the id of the open transaction, and whether it may end after those that wrote.

    It is given an id at its first write. Without one it may still hold advisory locks and notifications, which end with
    it; a serializable one must end before the others commit, because it may fail.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_xact_id_if_assigned()::text, current_setting('transaction_isolation')")
        number, isolation = cursor.fetchone()
    return number, number is None and isolation != "serializable"


def total_changes(connection: Any) -> int:
    raw = connection.connection
    return raw.total_changes if connection.vendor == "sqlite" and raw is not None else 0
