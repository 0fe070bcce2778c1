"""
Calling the compensations of a block that committed only in part: at once, and by `shards recover` what a crash left.

Each is called at least once, in a block of its own, the last registered first. One that fails stays in the log, and
the others are called all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import DEFAULT_DB_ALIAS, Error, connections, transaction

from sharding import conf
from sharding.commits import compensation_log, compensations, parts
from sharding.commits.compensation_log import Entry, Log
from sharding.commits.sessions import session
from sharding.errors import ShardingError

logger = logging.getLogger("sharding")


@dataclass(frozen=True, slots=True)
class Call:
    """A compensation that was called; ``error`` says how it failed."""

    block: str
    path: str
    error: Exception | None = None


@dataclass(slots=True)
class Compensated:
    """What was called, and what is left."""

    calls: list[Call] = field(default_factory=list)
    #: {block: why} of logs that could not be dealt with yet.
    waiting: dict[str, str] = field(default_factory=dict)
    #: {alias: error} of databases that could not be asked for logs.
    failures: dict[str, Exception] = field(default_factory=dict)

    @property
    def failed(self) -> list[Call]:
        return [each for each in self.calls if each.error is not None]

    @property
    def happened(self) -> bool:
        """Return whether there was anything to do."""
        return bool(self.calls or self.waiting or self.failures)

    @property
    def is_complete(self) -> bool:
        return not (self.failed or self.waiting or self.failures)


def compensate(log: Log, committed: Sequence[str], done: Compensated) -> None:
    """
    Call the compensations of a block of which only ``committed`` stands.

    Whatever cannot be called stays in the log, and is noted in ``done``.
    """
    try:
        with session(log.alias) as cursor:
            if log.committed is None:
                compensation_log.note_committed(cursor, log.block, committed)
            for number in compensation_log.numbers(cursor, log.block):
                with compensation_log.entry(cursor, log.block, number) as entry:
                    if entry is None:
                        done.waiting[log.block] = "another process is calling its compensations"
                        return
                    done.calls.append(_called(cursor, log.block, entry))
            if not compensation_log.numbers(cursor, log.block):
                _settled(log)
    except Error as error:
        done.waiting[log.block] = f"{log.alias} does not answer: {_reason(error)}"
        logger.warning("The compensations of %s wait for %s (%s).", log.block, log.alias, type(error).__name__)


def _called(cursor: Any, block: str, entry: Entry) -> Call:
    try:
        with transaction.atomic(using=DEFAULT_DB_ALIAS):
            compensations.call(entry.path, entry.arguments)
    except Exception as error:
        compensation_log.note_failure(cursor, block, entry.number, f"{type(error).__name__}: {error}")
        logger.exception("The compensation %s of %s failed.", entry.path, block)
        return Call(block, entry.path, error)
    compensation_log.delete(cursor, block, entry.number)
    return Call(block, entry.path)


def forget(log: Log) -> None:
    """Delete the log of a block that committed whole, or not at all. `shards recover` does it if this cannot."""
    try:
        with session(log.alias) as cursor:
            compensation_log.delete(cursor, log.block)
    except Error as error:
        logger.warning("The log of %s is left on %s (%s).", log.block, log.alias, type(error).__name__)
        return
    _settled(log)


def _settled(log: Log) -> None:
    for alias in log.writers:
        parts.settled[alias].append(log.block)


def recover() -> Compensated:
    """Deal with every log that is left: call its compensations if the block stands in part, else forget it."""
    done = Compensated()
    marks = _marks()
    logs = _logs(done)
    for log in logs:
        _recover(log, done)
    if not done.failures:
        # A mark without a log belongs to a block that is settled. Those with a log of now are left to the next pass:
        # if some databases forgot theirs and the log stayed, the block would be taken for half committed.
        logged = {log.block for log in logs}
        _sweep({alias: blocks - logged for alias, blocks in marks.items()})
    return done


def _logs(done: Compensated) -> list[Log]:
    found: list[Log] = []
    for alias in compensation_log.places():
        try:
            with session(alias) as cursor:
                found += compensation_log.logs(cursor)
        except Error as error:
            done.failures[alias] = error
    return found


def _recover(log: Log, done: Compensated) -> None:
    if log.committed is not None:
        compensate(log, log.committed, done)
        return
    committed: list[str] = []
    refused: list[str] = []
    unknown: dict[str, str] = {}
    for alias in log.writers:
        try:
            (committed if parts.is_committed(alias, log.block) else refused).append(alias)
        except (Error, ShardingError) as error:
            unknown[alias] = _reason(error)
    if committed and refused:
        compensate(log, committed, done)
    elif unknown:
        done.waiting[log.block] = "; ".join(f"{alias} does not answer: {why}" for alias, why in unknown.items())
    else:
        forget(log)


def _marks() -> dict[str, set[str]]:
    """Return the marks on every database that can be asked; the logs are to be read after them."""
    found: dict[str, set[str]] = {}
    for alias in connections:
        if conf.REPLICA_INFIX in alias or connections[alias].vendor == "unknown":
            continue
        try:
            with session(alias) as cursor:
                found[alias] = parts.committed_blocks(cursor)
        except Error:
            # Its marks stay for the next time; if anybody needs them, that is told where they are missed.
            logger.info("%s could not be asked for the marks of blocks.", alias)
    return found


def _sweep(marks: dict[str, set[str]]) -> None:
    """Delete marks that belong to no log: those of blocks whose process did not live to delete them."""
    for alias, blocks in marks.items():
        if not blocks:
            continue
        try:
            with session(alias) as cursor:
                parts.forget(cursor, sorted(blocks), in_passing=True)
        except Error as error:
            logger.info("The marks of %d blocks stay on %s (%s).", len(blocks), alias, type(error).__name__)


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
