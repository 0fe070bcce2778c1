"""
Two-phase commit of one atomic block: prepare everywhere, decide in the control database, commit what is prepared.

Before the decision everything can be rolled back; after it, nothing. The decision is one row that the control database
commits together with its own part of the block, so there is no instant in which it could be half taken.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol
from uuid import UUID

from django.db import DatabaseError, Error, InterfaceError

from sharding.commits import decisions, recovery, sessions
from sharding.commits.at_once import at_once
from sharding.commits.gids import Gid
from sharding.errors import BlockAborted, CommitInDoubt

logger = logging.getLogger("sharding")

#: How often to end a prepared transaction that a resolver is just ending, and seconds in between.
ATTEMPTS = 10
PAUSE = 0.02


class Participant(Protocol):
    """One shard that wrote."""

    alias: str
    connection: Any
    #: Of its transaction, as text: the database can be asked later what became of it.
    transaction_id: str | None

    def roll_back(self) -> None: ...

    def leave(self) -> None: ...


class Control(Protocol):
    """The control database's own part of the block, and where the decision is written."""

    #: The block has sent it nothing yet, so its own part is empty.
    pending: bool

    def cursor(self) -> Any: ...

    def ensure_connection(self) -> None: ...

    def autocommit_cursor(self) -> AbstractContextManager[Any]: ...

    def commit_own_part(self) -> None: ...

    def roll_back_own_part(self) -> None: ...

    def has_open_transaction(self) -> bool: ...


def commit(control: Control, participants: Sequence[Participant], transaction: str, cluster: UUID) -> None:
    """
    Commit the open transactions of all ``participants`` and of the control database, or none of them.

    Raises:
        DatabaseError: a database refused its part; everything is rolled back.
        BlockAborted: a resolver decided first, against it; everything is rolled back.
        CommitInDoubt: the control database was lost while it decided.
    """
    gids = {each.alias: Gid(cluster, transaction, each.alias) for each in participants}
    asked: list[str] = []
    interruption: BaseException | None = None
    try:
        failures = at_once(participants, lambda each: _execute(each, f"PREPARE TRANSACTION {_name(gids, each)}"))
        if failures:
            raise failures[0][1]
        _decide(control, participants, transaction, asked)
    except BaseException as error:
        if not _stands(control, participants, transaction, asked, error):
            if not isinstance(error, Error | BlockAborted):
                # An interruption: a thread may still be about to prepare.
                recovery.finish_later(twice=True)
            _abort(control, participants, gids)
            raise
        interruption = error
    try:
        if interruption is not None:
            logger.warning("The control database was lost after it had committed %s.", transaction)
        _leave(participants)
        _carry_out(participants, gids, transaction)
        _forget(control)
    except BaseException:
        # Interrupted, by the handler of a signal for one. The block is committed all the same.
        recovery.finish_later()
        raise
    if interruption is not None and not isinstance(interruption, Error):
        raise interruption


def _decide(control: Control, participants: Sequence[Participant], transaction: str, asked: list[str]) -> None:
    """Commit the decision; ``asked`` is filled before the question whose answer decides is sent."""
    aliases = [each.alias for each in participants]
    if control.pending:
        control.ensure_connection()
        asked.append(transaction)
        with control.autocommit_cursor() as cursor:
            _insert(cursor, transaction, aliases)
    else:
        with control.cursor() as cursor:
            _insert(cursor, transaction, aliases)
        asked.append(transaction)
        control.commit_own_part()


def _stands(
    control: Control, participants: Sequence[Participant], transaction: str, asked: list[str], error: BaseException
) -> bool:
    """
    Return whether the block is committed although ``error`` was raised before that was known.

    Raises:
        CommitInDoubt: nobody can tell now, and what is prepared stays as it is.
    """
    try:
        if not asked or isinstance(error, BlockAborted) or sessions.is_refusal(error) or control.has_open_transaction():
            return False
        # The question was sent, and the answer did not come. Who inserts the row first decides.
        return recovery.settle(transaction, {each.alias: each.transaction_id for each in participants})
    except BaseException as unknown:
        # Also when the program is interrupted again: it may be committed, so nothing may be rolled back.
        _leave(participants)
        recovery.finish_later()
        raise CommitInDoubt(
            f"The control database was lost while it committed this block ({type(error).__name__}), and does not "
            f"answer now ({type(unknown).__name__}), so it is not known whether the block is stored. All or nothing of "
            f"it is: `manage.py shards recover` finishes it when the control database is back. Look before you repeat "
            f"it.",
            transaction=transaction,
        ) from error


def _insert(cursor: Any, transaction: str, aliases: list[str]) -> None:
    if not decisions.decide(cursor, transaction, aliases):
        raise _aborted(transaction)


def _carry_out(participants: Sequence[Participant], gids: dict[str, Gid], transaction: str) -> None:
    """Commit what is prepared. The block is committed already: whatever fails here is finished later."""
    failures = at_once(participants, lambda each: _finish(each, f"COMMIT PREPARED {_name(gids, each)}"))
    if not failures:
        decisions.carried_out.append(transaction)
        return
    for each, error in failures:
        logger.warning("%s has yet to commit %s (%s).", each.alias, transaction, type(error).__name__)
        if _is_busy(each.connection):
            each.connection.close()
    recovery.finish_later()
    for _, error in failures:
        # The handler of a signal may raise whatever it likes.
        if not isinstance(error, Error):
            raise error


def _forget(control: Control) -> None:
    """Delete the decisions that are carried out, now and then. Where that fails, the resolver does it."""
    done = decisions.to_forget()
    if not done:
        return
    try:
        if control.pending:
            with control.autocommit_cursor() as cursor:
                decisions.forget(cursor, done)
            return
        with control.cursor() as cursor:
            decisions.forget(cursor, done)
        control.commit_own_part()
    except (DatabaseError, InterfaceError) as error:
        logger.info("%d decisions could not be forgotten yet (%s).", len(done), type(error).__name__)
        control.roll_back_own_part()


def _abort(control: Control, participants: Sequence[Participant], gids: dict[str, Gid]) -> None:
    """Roll everything back, as far as the databases can be reached: what they have prepared is presumed aborted."""
    for each in participants:
        prepared = _is_outside(each.connection)
        lost = sessions.is_lost(each.connection) or _is_busy(each.connection)
        if lost:
            # Its server may still be at PREPARE, and done with it only after the ROLLBACK PREPARED below.
            recovery.finish_later(twice=True)
        try:
            each.roll_back()
            if prepared:
                _finish(each, f"ROLLBACK PREPARED {_name(gids, each)}")
        except Exception as error:
            logger.warning("%s has yet to roll %s back (%s).", each.alias, gids[each.alias], type(error).__name__)
            recovery.finish_later()
    control.roll_back_own_part()


def _is_outside(connection: Any) -> bool:
    """Return whether no transaction is open on the connection any more: PREPARE has ended it, or its loss."""
    raw = connection.connection
    return raw is None or raw.info.transaction_status.name in {"IDLE", "UNKNOWN", "ACTIVE"}


def _is_busy(connection: Any) -> bool:
    """Return whether an interruption has left the answer to PREPARE unread; the rollback closes the connection."""
    raw = connection.connection
    return raw is not None and raw.info.transaction_status.name == "ACTIVE"


def _leave(participants: Sequence[Participant]) -> None:
    for each in participants:
        each.leave()


def _finish(participant: Participant, sql: str) -> None:
    """End a prepared transaction, on a new connection if the one at hand is lost."""
    try:
        _execute_once(participant, sql)
    except (DatabaseError, InterfaceError):
        if not sessions.is_lost(participant.connection):
            raise
        participant.connection.close()
        _execute_once(participant, sql)


def _execute_once(participant: Participant, sql: str) -> None:
    for attempt in range(ATTEMPTS):
        try:
            _execute(participant, sql)
            return
        except DatabaseError as error:
            if sessions.is_finished(error):
                return
            if not sessions.is_being_finished(error) or attempt == ATTEMPTS - 1:
                raise
        # A resolver is at it.
        time.sleep(PAUSE)


def _execute(participant: Participant, sql: str) -> None:
    with participant.connection.cursor() as cursor:
        cursor.execute(sql)


def _name(gids: dict[str, Gid], participant: Participant) -> str:
    return gids[participant.alias].literal


def _aborted(transaction: str) -> BlockAborted:
    return BlockAborted(
        f"This atomic block took so long to commit that it was taken for dead and rolled back everywhere "
        f"(transaction {transaction}). Repeat it.",
        transaction=transaction,
    )
