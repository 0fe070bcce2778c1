"""
The control database's own transaction inside a block of the door: begun late, when a statement needs it, and ended when
the block's commit says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DEFAULT_DB_ALIAS, DatabaseError, InterfaceError

from sharding import cluster_map, conf
from sharding.backends import participants as databases
from sharding.backends.participants import Participant
from sharding.commits.compensations import Compensation

#: What Django's connect() resets, although an atomic block may be open at the door before it has a connection.
BLOCK_STATE = (
    "in_atomic_block",
    "savepoint_ids",
    "atomic_blocks",
    "needs_rollback",
    "run_on_commit",
    "commit_on_exit",
    "rollback_exc",
    "has_block",
)


class OwnTransaction:
    """Mixin of the database wrapper, below DoorTransactions."""

    alias: str
    connection: Any
    vendor: str
    participants: dict[str, Participant]
    open_savepoints: list[str]
    compensations: list[Compensation]
    roll_back_everything: Any
    abandon_interrupted_block: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: It was an atomic block that took autocommit away, or last did so.
        self.has_block = False
        #: The atomic block is open, and the control database's own transaction is not begun yet.
        self.pending = False
        #: Whether the control database was only read, and keeps its locks until what others wrote is committed.
        self.ends_last = False
        self._changes = 0

    # Its beginning

    def get_autocommit(self) -> bool:
        door: Any = self
        if self.has_block and not door.in_atomic_block and not door.autocommit:
            # The end of a block was interrupted. The next one would take itself for nested, and never commit.
            self.set_autocommit(True)
        if self.pending:
            return False
        if door.connection is None and not door.in_atomic_block and self._begins_late():
            return bool(door.settings_dict["AUTOCOMMIT"])
        return bool(super().get_autocommit())  # type: ignore[misc]

    def set_autocommit(self, autocommit: bool, force_begin_transaction_with_broken_autocommit: bool = False) -> None:
        door: Any = self
        opens_block = force_begin_transaction_with_broken_autocommit and not autocommit
        if not autocommit:
            self.has_block = opens_block
        elif self.has_block and (self.participants or self.has_open_transaction()):
            # The end of the block was interrupted before it was committed or rolled back.
            self.roll_back_everything()
        if autocommit and self.pending:
            self.pending = False
            door.autocommit = True
            if door.run_commit_hooks_on_set_autocommit_on:
                door.run_and_clear_commit_hooks()
                door.run_commit_hooks_on_set_autocommit_on = False
            return
        if opens_block:
            self.abandon_interrupted_block()
            if self.alias == DEFAULT_DB_ALIAS:
                # A process that does all its work inside of blocks has no other moment for it.
                cluster_map.renew()
            self.open_savepoints = []
            self.compensations = []
            if self._begins_late():
                door.validate_no_atomic_block()
                door.autocommit = False
                self.pending = True
                return
        super().set_autocommit(autocommit, force_begin_transaction_with_broken_autocommit)  # type: ignore[misc]
        if opens_block:
            self._changes = databases.total_changes(door)

    def _begins_late(self) -> bool:
        if self.alias != DEFAULT_DB_ALIAS:
            return False
        known = cluster_map.known()
        if known is None:
            return bool(conf.current().shards)
        # A cluster of one behaves as Django's own backend, statement for statement.
        return known.aliases != (DEFAULT_DB_ALIAS,)

    def begin(self) -> None:
        """Open the connection if needed, begin, and catch up with the savepoints of the block."""
        door: Any = self
        with self._keeping_block_state():
            self.pending = False
            try:
                super().set_autocommit(False, True)  # type: ignore[misc]
            except BaseException:
                self.pending = True
                raise
        self._changes = databases.total_changes(door)
        for sid in self.open_savepoints:
            super()._savepoint(sid)  # type: ignore[misc]

    def connect(self) -> None:
        if not self.pending:
            super().connect()  # type: ignore[misc]
            return
        with self._keeping_block_state():
            self.pending = False
            try:
                super().connect()  # type: ignore[misc]
            finally:
                self.pending = True
        # The block is open at the door, whatever the new connection says.
        self.autocommit = False

    @contextmanager
    def _keeping_block_state(self) -> Iterator[None]:
        kept = {name: getattr(self, name) for name in BLOCK_STATE if hasattr(self, name)}
        # A health check may close the lost session of the control database, which is no end of the block.
        kept["participants"], self.participants = self.participants, {}
        self.in_atomic_block = False
        self.has_block = False
        try:
            yield
        finally:
            self.__dict__.update(kept)

    def _cursor(self, name: str | None = None) -> Any:
        if self.pending:
            self.begin()
        return super()._cursor(name)  # type: ignore[misc]

    # Its end

    @contextmanager
    def autocommit_cursor(self) -> Iterator[Any]:
        """Yield a cursor whose statements commit by themselves, at the end of a block that sent nothing here."""
        door: Any = self
        # A health check may have to open another connection.
        with self._keeping_block_state():
            door.ensure_connection()
            self.pending = False
            try:
                with door.cursor() as cursor:
                    yield cursor
            finally:
                self.pending = True

    def commit_own_part(self) -> None:
        """Commit the control database's own part of the block, if it has begun."""
        if not self.pending:
            super()._commit()  # type: ignore[misc]

    def roll_back_own_part(self) -> None:
        """Roll the control database's own part back; a lost connection has done so by itself."""
        try:
            if not self.pending:
                super()._rollback()  # type: ignore[misc]
        except (DatabaseError, InterfaceError):
            self.drop_connection()

    def has_lost_connection(self) -> bool:
        raw = self.connection
        # An interruption may have left an answer unread.
        return bool(raw is None or raw.closed or raw.info.transaction_status.name == "ACTIVE")

    def has_open_transaction(self) -> bool:
        """Return whether the control database's own part is known to be neither committed nor rolled back."""
        raw: Any = self.connection
        if raw is None or self.vendor == "sqlite":
            return raw is not None and bool(raw.in_transaction)
        return raw.info.transaction_status.name in {"INTRANS", "INERROR"}

    def drop_connection(self) -> None:
        """Forget a lost connection in the middle of the block, whose end must not open another."""
        door: Any = self
        # A pool of connections has to be told.
        door._close()
        self.connection = None
        self.pending = True

    def wrote(self) -> bool:
        """Ask the control database whether the block changed anything there."""
        door: Any = self
        self.ends_last = False
        if self.pending:
            return False
        if door.vendor == "sqlite":
            return databases.total_changes(door) != self._changes
        number, self.ends_last = databases.state_of(door)
        return number is not None
