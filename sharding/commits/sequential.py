"""
Sequential commit of one atomic block: one database after the other, where two-phase commit is not to be had.

What has committed stands, whatever becomes of the others. So all that can fail earlier is done before the first commit,
and the block's compensations are logged there.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from django.db import Error, InterfaceError, OperationalError

from sharding.commits import compensating, compensation_log, parts
from sharding.commits.compensating import Compensated
from sharding.commits.compensation_log import Log
from sharding.commits.compensations import Compensation
from sharding.errors import PartialCommit

logger = logging.getLogger("sharding")


class Part(Protocol):
    """One database's part of the block."""

    alias: str
    connection: Any
    #: Whether it only read, and keeps its locks until what others wrote is committed.
    ends_last: bool

    def commit(self) -> None: ...

    def roll_back(self) -> None: ...


@dataclass(slots=True)
class Partial:
    """A block that ended half way, or may have."""

    committed: list[str]
    failed: str
    error: BaseException
    rolled_back: list[str]
    #: Whether the one that failed may have committed all the same: its answer did not come.
    in_doubt: bool
    log: Log | None

    @property
    def is_certain(self) -> bool:
        """Return whether a part stands and another one does not, whatever became of the one in doubt."""
        return bool(self.committed and self.rolled_back)


def commit(
    readers: Sequence[Part], writers: Sequence[Part], compensations: Sequence[Compensation], block: str
) -> Partial | None:
    """
    Commit the databases that only read, then those that wrote, in this order; return how it ended half way.

    No transaction is open any more when this returns or raises.

    Raises:
        Exception: a database refused before any had committed what it wrote; nothing stands.
        BaseException: the program was interrupted; the compensations are left to `shards recover`.
    """
    late = [each for each in readers if each.ends_last] if writers else []
    left = [*readers, *writers]
    try:
        for each in [each for each in readers if each not in late]:
            left.remove(each)
            each.commit()
        log = _prepared(writers, compensations, block) if len(writers) > 1 else None
    except BaseException:
        roll_back(left)
        raise
    try:
        partial = _commit_in_turn(writers, log)
    except BaseException:
        roll_back(late)
        raise
    if partial is None:
        end_last(late)
        if log is not None:
            compensating.forget(log)
        return None
    roll_back(late)
    nothing_stands = not (partial.committed or partial.in_doubt)
    if nothing_stands and log is not None:
        compensating.forget(log)
    if nothing_stands or len(writers) == 1 or not isinstance(partial.error, Exception):
        raise partial.error
    return partial


def end_last(readers: Sequence[Part]) -> None:
    """End what only read, once what was written stands: their locks are kept until then. Nothing can fail any more."""
    left = list(readers)
    try:
        while left:
            each = left.pop(0)
            try:
                each.commit()
            except Error as error:
                logger.info("%s was lost after it had only been read (%s).", each.alias, type(error).__name__)
    finally:
        roll_back(left)


def _prepared(writers: Sequence[Part], compensations: Sequence[Compensation], block: str) -> Log | None:
    """Do what may still fail, while all can be rolled back; return the log of the compensations, if there are any."""
    for each in writers:
        if each.connection.vendor == "postgresql":
            # Deferred constraints that COMMIT would check.
            with each.connection.cursor() as cursor:
                cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    if not compensations:
        return None
    # The backends import this module, and Django loads them before any model may be imported.
    from sharding.control import CommittedPart
    from sharding.control import Compensation as Logged

    aliases = tuple(each.alias for each in writers)
    log = Log(block, compensation_log.place(aliases), aliases)
    own = writers[0].connection if log.alias == aliases[0] else None
    for each in writers:
        parts.ensure_table(each.connection, CommittedPart)
    if own is not None:
        parts.ensure_table(own, Logged)
    for each in writers:
        parts.write(each.connection, block)
    # The last of all: whoever finds the log finds marks that are committed, rolled back, or waited for.
    compensation_log.write(log, compensations, own)
    return log


def _commit_in_turn(writers: Sequence[Part], log: Log | None) -> Partial | None:
    for place, each in enumerate(writers):
        before = each.connection.connection
        try:
            each.commit()
        except BaseException as error:
            fate = _fate(each, before, error, log)
            if each.connection.connection is before and _is_closed(each.connection, before):
                # Otherwise the next statement would meet the lost session.
                each.connection.close()
            if fate:
                logger.warning("%s was lost after it had committed its part of %s.", each.alias, log and log.block)
                continue
            rest = writers[place + 1 :]
            roll_back(rest)
            if not isinstance(error, Exception):
                # Nobody knows in which state the interruption has left it.
                each.connection.close()
            return Partial(
                committed=[done.alias for done in writers[:place]],
                failed=each.alias,
                error=error,
                rolled_back=[*([] if fate is None else [each.alias]), *(other.alias for other in rest)],
                in_doubt=fate is None,
                log=log,
            )
    return None


def _fate(part: Part, before: Any, error: BaseException, log: Log | None) -> bool | None:
    """Return whether a database has committed although COMMIT raised ``error``; None when nobody knows."""
    if not _may_have_committed(part.connection, before, error):
        return False
    if log is None or not isinstance(error, Exception):
        return None
    try:
        return parts.is_committed(part.alias, log.block)
    except Error as unknown:
        logger.warning("%s does not say whether it has committed (%s).", part.alias, type(unknown).__name__)
        return None


def _may_have_committed(connection: Any, before: Any, error: BaseException) -> bool:
    if not isinstance(error, Exception):
        return True
    if connection.vendor == "sqlite":
        return False
    if connection.vendor == "postgresql":
        # Django may have another connection by now. A server that lives has told that it did not commit.
        return _is_closed(connection, before)
    return isinstance(error, OperationalError | InterfaceError)


def _is_closed(connection: Any, raw: Any) -> bool:
    return connection.vendor == "postgresql" and (raw is None or bool(raw.closed))


def roll_back(left: Sequence[Part]) -> None:
    """Roll back what is open, whatever becomes of each."""
    for each in left:
        try:
            each.roll_back()
        except Exception as error:
            # A session that is lost has rolled back by itself.
            logger.info("%s was rolled back with its session (%s).", each.alias, type(error).__name__)


def error_of(partial: Partial, compensated: Compensated | None) -> PartialCommit:
    """
    Return the error that names what stands, what does not, and what became of the compensations.

    Args:
        compensated: None where no compensation was called.
    """
    return PartialCommit(
        f"{_what_stands(partial)} {_what_is_left(partial, compensated)}",
        committed=partial.committed,
        failed={partial.failed: partial.error},
        rolled_back=partial.rolled_back,
        in_doubt=[partial.failed] if partial.in_doubt else [],
        compensated=compensated is not None and compensated.is_complete,
    )


def _what_stands(partial: Partial) -> str:
    committed, why = ", ".join(partial.committed), type(partial.error).__name__
    if not partial.in_doubt:
        return f"{committed} committed, but {partial.failed} did not ({why}): the write is only partly done."
    lost = f"he connection to {partial.failed} was lost during its commit ({why}), so it may have committed or not."
    return f"{committed} committed, but t{lost}" if committed else f"T{lost}"


def _what_is_left(partial: Partial, compensated: Compensated | None) -> str:
    rolled_back = ", ".join(partial.rolled_back)
    if partial.log is None and not partial.in_doubt:
        return f"Repeat the part of {rolled_back}, which was rolled back."
    rest = f"{rolled_back} {'was' if len(partial.rolled_back) == 1 else 'were'} rolled back. " if rolled_back else ""
    if partial.log is None:
        return f"{rest}Look there before you repeat the write."
    if compensated is None:
        return (
            f"{rest}`manage.py shards recover` finds out, and calls the block's compensations if only a part of it "
            f"stands."
        )
    if compensated.is_complete:
        return f"{rest}The block's compensations were called."
    number = len(compensated.failed)
    failed = f"{number} of {len(compensated.calls)} failed" if number else "; ".join(compensated.waiting.values())
    return f"{rest}The block's compensations are left to `manage.py shards recover`: {failed}."
