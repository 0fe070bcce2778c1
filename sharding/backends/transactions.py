"""
Atomic blocks of the door: they reach every database that the block's statements reach, and no other.

The control database's own connection is opened and its transaction begun only when a statement needs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DEFAULT_DB_ALIAS, DatabaseError, InterfaceError
from django.db.transaction import TransactionManagementError

from sharding import cluster_map, conf
from sharding.backends import ending
from sharding.backends import participants as databases
from sharding.backends.participants import Participant
from sharding.commits import background, waiting
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
)


class DoorTransactions:
    """Mixin of the database wrapper behind `default`."""

    alias: str
    connection: Any
    vendor: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.participants: dict[str, Participant] = {}
        #: Ids of the savepoints open at the door, oldest first.
        self.open_savepoints: list[str] = []
        #: The atomic block is open, and the control database's own transaction is not begun yet.
        self.pending = False
        #: Whether a block of Django's own making may commit one database after the other where it must.
        self.commits_one_by_one = False
        #: What to call if only a part of the block commits, in the order of registration.
        self.compensations: list[Compensation] = []
        #: Whether the control database was only read, and keeps its locks until what others wrote is committed.
        self.ends_last = False
        self._changes = 0

    # Which databases take part

    def enlist(self, alias: str) -> None:
        """
        Let the database of ``alias`` take part in the open atomic block, if there is one.

        Call it in the block's own thread before a statement is sent there.
        """
        door: Any = self
        if not door.in_atomic_block:
            self._abandon_interrupted_block()
            if alias != door.alias and door.connection is not None and not door.autocommit:
                raise TransactionManagementError(
                    f"Autocommit is off on {door.alias!r}, and a shard cannot take part in a transaction that no "
                    f"atomic() block ends. Use transaction.atomic()."
                )
            return
        if door.needs_rollback:
            door.validate_no_broken_transaction()
        if alias == door.alias:
            return
        participant = self.participants.get(alias)
        if participant is None:
            self._refuse_durable(alias)
            participant = Participant(alias, borrowed=self._is_borrowed(), depth=len(self.open_savepoints))
            self.participants[alias] = participant
        if self.open_savepoints:
            participant.establish(self._shared_savepoints())

    def _abandon_interrupted_block(self) -> None:
        if self.participants:
            left, self.participants = self.participants, {}
            databases.abandon(left.values())

    def _refuse_durable(self, alias: str) -> None:
        door: Any = self
        if cluster_map.connection_of(alias).in_atomic_block and any(
            block.durable and not block._from_testcase for block in door.atomic_blocks if not self._is_borrowed()
        ):
            raise RuntimeError(
                f"A durable atomic block cannot write to {alias!r} while that database is inside an atomic block of "
                f"its own, with which it would end. Open transaction.atomic(durable=True) outside of it."
            )

    def join(self, alias: str) -> None:
        """
        Let any database take part in the open atomic block, with the statements that go there past the door.

        Raises:
            TransactionManagementError: its own transaction would not end with the block.
        """
        if alias == self.alias:
            return
        if alias not in self.participants:
            databases.refuse_own_transaction(alias, in_testcase=self._is_borrowed())
        self.enlist(alias)
        participant = self.participants[alias]
        participant.joined = True
        if participant.connection.vendor == "postgresql":
            # Transactions of ours may be prepared there from now on.
            waiting.watch(participant.connection)
            background.begin()

    def _is_borrowed(self) -> bool:
        """Return whether the transactions belong to a TestCase."""
        door: Any = self
        return bool(door.atomic_blocks[0]._from_testcase)

    def _shared_savepoints(self) -> list[str]:
        """Return the open savepoints without those of TestCase, which makes its own on every database."""
        door: Any = self
        if not self._is_borrowed():
            return self.open_savepoints
        own = {
            sid for block, sid in zip(door.atomic_blocks[1:], door.savepoint_ids, strict=False) if block._from_testcase
        }
        return [sid for sid in self.open_savepoints if sid not in own]

    # The control database's own transaction, begun late

    def get_autocommit(self) -> bool:
        door: Any = self
        if self.pending:
            return False
        if door.connection is None and not door.in_atomic_block and self._begins_late():
            return bool(door.settings_dict["AUTOCOMMIT"])
        return bool(super().get_autocommit())  # type: ignore[misc]

    def set_autocommit(self, autocommit: bool, force_begin_transaction_with_broken_autocommit: bool = False) -> None:
        door: Any = self
        if autocommit and self.pending:
            self.pending = False
            door.autocommit = True
            if door.run_commit_hooks_on_set_autocommit_on:
                door.run_and_clear_commit_hooks()
                door.run_commit_hooks_on_set_autocommit_on = False
            return
        opens_block = force_begin_transaction_with_broken_autocommit and not autocommit
        if opens_block:
            self._abandon_interrupted_block()
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
        try:
            yield
        finally:
            self.__dict__.update(kept)

    def _cursor(self, name: str | None = None) -> Any:
        if self.pending:
            self.begin()
        return super()._cursor(name)  # type: ignore[misc]

    # Savepoints

    def _savepoint(self, sid: str) -> None:
        if not self.pending:
            super()._savepoint(sid)  # type: ignore[misc]
        self.open_savepoints.append(sid)
        for participant in self.participants.values():
            if participant.joined:
                participant.establish(self._shared_savepoints())

    def _savepoint_rollback(self, sid: str) -> None:
        self.compensations = [each for each in self.compensations if sid not in each.savepoints]
        place = self.open_savepoints.index(sid) if sid in self.open_savepoints else len(self.open_savepoints)
        for alias, participant in list(self.participants.items()):
            if participant.is_undone_by(place):
                # It takes no further part, and so cannot be a second writer at commit.
                del self.participants[alias]
                participant.roll_back()
            else:
                participant.roll_back_to(sid)
        if not self.pending:
            super()._savepoint_rollback(sid)  # type: ignore[misc]
        if sid in self.open_savepoints:
            del self.open_savepoints[self.open_savepoints.index(sid) + 1 :]

    def _savepoint_commit(self, sid: str) -> None:
        for participant in self.participants.values():
            participant.release(sid)
        if not self.pending:
            super()._savepoint_commit(sid)  # type: ignore[misc]
        if sid in self.open_savepoints:
            del self.open_savepoints[self.open_savepoints.index(sid) :]
        for participant in self.participants.values():
            participant.depth = min(participant.depth, len(self.open_savepoints))
        self._end_in_testcase()

    def _end_in_testcase(self) -> None:
        """Let go, at the end of a block that only a TestCase's is around, of what would end with it elsewhere."""
        door: Any = self
        if door.atomic_blocks and all(block._from_testcase for block in door.atomic_blocks):
            self.participants = {alias: each for alias, each in self.participants.items() if not each.joined}
            self.compensations = []

    # The end of the block

    @contextmanager
    def committing_one_by_one(self) -> Iterator[None]:
        """
        Let a block that Django opens itself (bulk_create, delete) commit even without two-phase commit.

        Its databases then commit one after the other. Inside a block of the application it changes nothing.
        """
        door: Any = self
        before = self.commits_one_by_one
        self.commits_one_by_one = before or not door.in_atomic_block
        try:
            yield
        finally:
            self.commits_one_by_one = before

    def _commit(self) -> None:
        if not self.participants:
            self.compensations = []
            if not self.pending:
                super()._commit()  # type: ignore[misc]
            return
        everyone = list(self.participants.values())
        try:
            ending.commit(self)
        except BaseException:
            door: Any = self
            try:
                if self.participants or self.has_open_transaction():
                    self.roll_back_everything()
            finally:
                databases.abandon(everyone)
            # Django does so itself after errors of a database, but not after ours.
            door.run_on_commit = []
            raise

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

    def _rollback(self) -> None:
        left, self.participants = self.participants, {}
        try:
            databases.roll_back_all(left.values())
        finally:
            if not self.pending:
                super()._rollback()  # type: ignore[misc]

    def roll_back_everything(self) -> None:
        self._rollback()
        door: Any = self
        door.run_on_commit = []
        self.compensations = []

    def close(self) -> None:
        if self.pending:
            # Nothing was sent to the control database yet, so the block on the shards goes on without it.
            self.drop_connection()
            return
        left, self.participants = self.participants, {}
        try:
            databases.roll_back_all(left.values())
        finally:
            super().close()  # type: ignore[misc]
