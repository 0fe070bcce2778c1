"""
Atomic blocks of the door: they reach every database that the block's statements reach, and no other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db.transaction import TransactionManagementError

from sharding import cluster_map
from sharding.backends import ending
from sharding.backends import participants as databases
from sharding.backends.own_transaction import OwnTransaction
from sharding.backends.participants import Participant
from sharding.commits import background, waiting
from sharding.commits.compensations import Compensation


class DoorTransactions(OwnTransaction):
    """Mixin of the database wrapper behind `default`."""

    alias: str
    connection: Any
    vendor: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.participants: dict[str, Participant] = {}
        #: Ids of the savepoints open at the door, oldest first.
        self.open_savepoints: list[str] = []
        #: Whether a block of Django's own making may commit one database after the other where it must.
        self.commits_one_by_one = False
        #: What to call if only a part of the block commits, in the order of registration.
        self.compensations: list[Compensation] = []

    # Which databases take part

    def enlist(self, alias: str) -> None:
        """
        Let the database of ``alias`` take part in the open atomic block, if there is one.

        Call it in the block's own thread before a statement is sent there.
        """
        door: Any = self
        if not door.in_atomic_block:
            self.abandon_interrupted_block()
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
            participant = Participant(alias, borrowed=self.is_borrowed(), depth=len(self.open_savepoints))
            self.participants[alias] = participant
        if self.open_savepoints:
            participant.establish(self._shared_savepoints())

    def abandon_interrupted_block(self) -> None:
        if self.participants:
            left, self.participants = self.participants, {}
            databases.abandon(left.values())

    def _refuse_durable(self, alias: str) -> None:
        door: Any = self
        if cluster_map.connection_of(alias).in_atomic_block and any(
            block.durable and not block._from_testcase for block in door.atomic_blocks if not self.is_borrowed()
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
            databases.refuse_own_transaction(alias, in_testcase=self.is_borrowed())
        self.enlist(alias)
        participant = self.participants[alias]
        participant.joined = True
        if participant.connection.vendor == "postgresql":
            # Transactions of ours may be prepared there from now on.
            waiting.watch(participant.connection)
            background.begin()

    def is_borrowed(self) -> bool:
        """Return whether the transactions belong to a TestCase."""
        door: Any = self
        return bool(door.atomic_blocks[0]._from_testcase)

    def _shared_savepoints(self) -> list[str]:
        """Return the open savepoints without those of TestCase, which makes its own on every database."""
        door: Any = self
        if not self.is_borrowed():
            return self.open_savepoints
        own = {
            sid for block, sid in zip(door.atomic_blocks[1:], door.savepoint_ids, strict=False) if block._from_testcase
        }
        return [sid for sid in self.open_savepoints if sid not in own]

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
