"""
Atomic blocks of the door: they reach every database that the block's statements reach, and no other.

The control database's own connection is opened and its transaction begun only when a statement needs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DEFAULT_DB_ALIAS
from django.db.transaction import TransactionManagementError

from sharding import cluster_map, conf
from sharding.backends import participants as databases
from sharding.backends.participants import Participant
from sharding.errors import CrossShardTransaction, PartialCommit

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

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.participants: dict[str, Participant] = {}
        #: Ids of the savepoints open at the door, oldest first.
        self.open_savepoints: list[str] = []
        #: The atomic block is open, and the control database's own transaction is not begun yet.
        self.pending = False
        self._commits_one_by_one = False
        self._changes = 0

    # Which databases take part

    def enlist(self, alias: str) -> None:
        """
        Let the database of ``alias`` take part in the open atomic block, if there is one.

        Call it in the block's own thread before a statement is sent there.
        """
        door: Any = self
        if not door.in_atomic_block:
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
            borrowed = door.atomic_blocks[0]._from_testcase
            participant = Participant(alias, borrowed=borrowed, depth=len(self.open_savepoints))
            self.participants[alias] = participant
        if self.open_savepoints:
            participant.establish(self._shared_savepoints())

    def _shared_savepoints(self) -> list[str]:
        """Return the open savepoints without those of TestCase, which makes its own on every database."""
        door: Any = self
        if not door.atomic_blocks[0]._from_testcase:
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
            self.participants = {}
            self.open_savepoints = []
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

    def _begin(self) -> None:
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
        self.in_atomic_block = False
        try:
            yield
        finally:
            self.__dict__.update(kept)

    def _cursor(self, name: str | None = None) -> Any:
        if self.pending:
            self._begin()
        return super()._cursor(name)  # type: ignore[misc]

    # Savepoints

    def _savepoint(self, sid: str) -> None:
        if not self.pending:
            super()._savepoint(sid)  # type: ignore[misc]
        self.open_savepoints.append(sid)

    def _savepoint_rollback(self, sid: str) -> None:
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

    # The end of the block

    @contextmanager
    def committing_one_by_one(self) -> Iterator[None]:
        """
        Let a block that Django opens itself (bulk_create, delete) commit one database after the other.

        Inside a block of the application it changes nothing.
        """
        door: Any = self
        before = self._commits_one_by_one
        self._commits_one_by_one = before or not door.in_atomic_block
        try:
            yield
        finally:
            self._commits_one_by_one = before

    def _commit(self) -> None:
        if not self.participants:
            if not self.pending:
                super()._commit()  # type: ignore[misc]
            return
        self._refuse_broken()
        writers = self._writers()
        if len(writers) > 1 and not self._commits_one_by_one:
            self._roll_back_everything()
            raise CrossShardTransaction(
                f"This atomic block wrote to {', '.join(writers)}, and was rolled back on all of them: commits over "
                f"several databases are not atomic yet. Write to one database per block.",
                aliases=writers,
            )
        self._commit_in_turn(writers)

    def _refuse_broken(self) -> None:
        door: Any = self
        broken = [alias for alias, each in self.participants.items() if each.is_broken()]
        if not self.pending and databases.is_aborted(door):
            broken.append(self.alias)
        if broken:
            self._roll_back_everything()
            raise TransactionManagementError(
                f"A statement on {', '.join(broken)} failed inside this atomic block and its error was swallowed, so "
                f"the whole block was rolled back. Put such a statement into an atomic() block of its own."
            )

    def _writers(self) -> list[str]:
        """Return the aliases that wrote, the control database last; a single participant need not be asked."""
        door: Any = self
        if self.pending and len(self.participants) == 1:
            return list(self.participants)
        writers = sorted(alias for alias, each in self.participants.items() if each.wrote())
        if not self.pending and self._wrote(door):
            writers.append(self.alias)
        return writers

    def _wrote(self, door: Any) -> bool:
        if door.vendor == "sqlite":
            return databases.total_changes(door) != self._changes
        return databases.has_transaction_id(door)

    def _commit_in_turn(self, writers: list[str]) -> None:
        """Commit the databases that wrote, then those that only read; after a failure the rest is rolled back."""
        left = dict(self.participants)
        order = [*writers, *(alias for alias in (*left, self.alias) if alias not in writers)]
        committed: list[str] = []
        self.participants = {}
        for alias in order:
            participant = left.pop(alias, None)
            try:
                if participant is not None:
                    participant.commit()
                elif not self.pending:
                    super()._commit()  # type: ignore[misc]
            except Exception as error:
                self.participants = left
                self._roll_back_everything()
                done = [each for each in committed if each in writers]
                if not done:
                    raise
                raise PartialCommit(
                    f"{', '.join(done)} committed, but {alias} did not ({type(error).__name__}): the write is only "
                    f"partly done. Repeat the part of {alias}, which was rolled back.",
                    committed=done,
                    failed={alias: error},
                ) from error
            committed.append(alias)

    def _rollback(self) -> None:
        left, self.participants = self.participants, {}
        try:
            databases.roll_back_all(left.values())
        finally:
            if not self.pending:
                super()._rollback()  # type: ignore[misc]

    def _roll_back_everything(self) -> None:
        self._rollback()
        door: Any = self
        door.run_on_commit = []

    def close(self) -> None:
        if self.pending:
            # Nothing was sent to the control database yet, so the block on the shards goes on without it.
            raw, self.connection = self.connection, None
            if raw is not None:
                raw.close()
            return
        left, self.participants = self.participants, {}
        try:
            databases.roll_back_all(left.values())
        finally:
            super().close()  # type: ignore[misc]
