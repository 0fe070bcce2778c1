"""
No block over several databases waits for a lock for ever.

Two blocks that lock rows of two servers in opposite order wait for each other, and neither server sees more than one
of them waiting. So as soon as a second database joins a block, the servers of all are told to give up after
LOCK_TIMEOUT. A block on one server is left to that server, which finds its deadlocks by itself.
"""

from __future__ import annotations

from typing import Any

from sharding import conf


class BoundedBlocks:
    """Mixin of the database wrapper, above DoorTransactions."""

    alias: str
    pending: bool
    participants: dict[str, Any]
    open_savepoints: list[str]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Whether the open transaction is a part of a block over several databases, as far as that is known.
        self.spans_databases = False
        #: The databases that were told, with the savepoints they had then: rolling back to one undoes SET LOCAL.
        self._told: dict[str, list[str]] = {}

    def set_autocommit(self, autocommit: bool, force_begin_transaction_with_broken_autocommit: bool = False) -> None:
        if force_begin_transaction_with_broken_autocommit and not autocommit:
            # A block opens.
            self.spans_databases = False
            self._told = {}
        super().set_autocommit(autocommit, force_begin_transaction_with_broken_autocommit)  # type: ignore[misc]

    def enlist(self, alias: str) -> None:
        super().enlist(alias)  # type: ignore[misc]
        if self.participants:
            self._bound_locks()

    def _cursor(self, name: str | None = None) -> Any:
        cursor = super()._cursor(name)  # type: ignore[misc]
        if self.participants:
            self._bound_locks()
        return cursor

    def _savepoint_rollback(self, sid: str) -> None:
        super()._savepoint_rollback(sid)  # type: ignore[misc]
        # A database that took part since then, and takes none any more, had this savepoint too.
        self._told = {alias: savepoints for alias, savepoints in self._told.items() if sid not in savepoints}

    def join_several(self, lock_timeout: float | None) -> None:
        """Tell the database that its transaction is a part of a block over several. SQLite waits by its own rules."""
        self.spans_databases = True

    def _bound_locks(self) -> None:
        if self.pending and len(self.participants) == 1:
            return
        if self._told.keys() >= self.participants.keys() and (self.pending or self.alias in self._told):
            return
        door: Any = self
        if not door.in_atomic_block or door.atomic_blocks[0]._from_testcase:
            # The transactions of a TestCase are the test's own, and last longer than the block.
            return
        seconds = conf.current().lock_timeout
        for alias, participant in self.participants.items():
            self._tell(alias, participant.connection, participant.savepoints, seconds)
        if not self.pending:
            self._tell(self.alias, door, self.open_savepoints, seconds)

    def _tell(self, alias: str, connection: Any, savepoints: list[str], seconds: float | None) -> None:
        if alias in self._told or _has_failed(connection):
            return
        try:
            _join_several(connection, seconds)
        except Exception as error:
            error.add_note(f"This was met on {alias!r}, when the atomic block came to span several databases.")
            raise
        self._told[alias] = list(savepoints)


def _join_several(connection: Any, seconds: float | None) -> None:
    if hasattr(connection, "join_several"):
        connection.join_several(seconds)
    elif connection.vendor == "postgresql":
        # It joined by name, with another ENGINE than ours. SQLite must do without psycopg.
        from sharding.backends.postgresql.sessions import limit_waiting

        limit_waiting(connection, seconds)


def _has_failed(connection: Any) -> bool:
    """Return whether the transaction takes no more statements: its block can only be rolled back."""
    raw = connection.connection
    return raw is None or (connection.vendor == "postgresql" and raw.info.transaction_status.name == "INERROR")
