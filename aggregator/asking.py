"""
One question that several shards are asked: until when, and who may be missing from its answer.

It lasts for several statements (the rows, then the ranks of their text, say), which share its deadline.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import Any

from django.db import OperationalError

from aggregator import deadline
from aggregator.deadline import Watch
from aggregator.policy import Policy
from sharding.backends.failures import is_connection_failure
from sharding.errors import BucketRefused, EpochChanged, FanOutTimeout, ShardsUnavailable

logger = logging.getLogger("aggregator")

#: Seconds that remain, when some shards are given up at the deadline, for a further statement over what others gave.
FINISHING = 1.0
#: Seconds by which the clocks of a server and of this process may disagree about a deadline.
TOLERANCE = 0.05


class Asking:
    """What is known of a question while it is asked."""

    def __init__(self, policy: Policy, connections: Sequence[Any] = (), *, anywhere: bool = True) -> None:
        self.policy = policy
        self.missing = None if policy.record is None else policy.record.missing
        #: Those of the shards that are asked, without those that turned out to be missing.
        self.connections = [each for each in connections if not self.missing or each.alias not in self.missing]
        #: The aliases of those that have given their part, each beside the others'.
        self.given: set[str] = set()
        #: Whether any of them can finish what all have given.
        self.anywhere = anywhere
        self.deadline = self._deadline()

    def _deadline(self) -> float | None:
        seconds, record = self.policy.seconds, self.policy.record
        if seconds is None:
            return None
        if record is None:
            return time.monotonic() + seconds
        if record.deadline is None:
            record.deadline = time.monotonic() + seconds
        return record.deadline

    def again(self) -> Asking:
        """Return the same question for the next rows of a stream, which have as much time as the first."""
        made = Asking(self.policy)
        made.connections = self.connections
        seconds = self.policy.seconds
        made.deadline = None if seconds is None else time.monotonic() + seconds
        return made

    # Time

    def seconds_left(self) -> float:
        """
        Return how long a statement may take.

        Raises:
            TimeoutError: there is no time left for it.
        """
        left = (self.deadline or 0.0) - time.monotonic()
        if self.missing and left <= TOLERANCE:
            # What the others have given is finished, or it would be lost as well.
            return FINISHING
        if left <= 0:
            raise TimeoutError("The time was over before it was asked.")
        return left

    def is_late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline - TOLERANCE

    @contextmanager
    def watching(self, connections: Sequence[Any]) -> Iterator[set[str]]:
        """
        Yield the set to which the aliases are added of those connections that had to be shut down.

        What was sent on them already is waited for: the query may be asked inside an execute wrapper of another one.
        """
        for connection in connections:
            if connection.in_flight is not None:
                connection.in_flight()
        try:
            with self._watch(connections) as cut:
                yield cut
        except BaseException:
            # An interruption may have left them in the middle of a statement.
            for connection in connections:
                close_if_lost(connection)
            raise

    @contextmanager
    def _watch(self, connections: Sequence[Any]) -> Iterator[set[str]]:
        if self.deadline is None:
            yield set()
            return
        until = self.deadline
        if self.missing and self.is_late():
            until = time.monotonic() + FINISHING
        for connection in connections:
            connection.connect_within = until - time.monotonic()
        try:
            with Watch(connections, until) as watch:
                yield watch.cut
        finally:
            for connection in connections:
                connection.connect_within = None
            for connection in connections:
                close_if_lost(connection)

    @contextmanager
    def limiting(self, connection: Any) -> Iterator[None]:
        """Connect, and let the server keep the deadline for the statements inside."""
        if self.deadline is None:
            yield
            return
        seconds = self.seconds_left()
        connection.ensure_connection()
        with deadline.limited(connection, seconds):
            yield

    # Who is asked, and who is missing

    def present(self, connections: Sequence[Any]) -> list[Any]:
        """
        Return the connections to shards that are not missing.

        A single one that is missing is asked for all shards together, and any other can answer as well.

        Raises:
            ShardsUnavailable: none can.
        """
        missing = self.missing or {}
        found = [each for each in connections if each.alias not in missing]
        others = [each for each in self.connections if each.alias not in missing] if self.anywhere else []
        if connections and not found and not others:
            raise unavailable(missing)
        return found or others[:1]

    def is_shards_fault(self, error: BaseException | None, *, late: bool) -> bool:
        """Return whether it is the shard that failed to answer, rather than the statement that is wrong."""
        if error is None or isinstance(error, TimeoutError):
            return error is not None
        if isinstance(error, (BucketRefused, EpochChanged)):
            return False
        if is_connection_failure(error) or (late and isinstance(error, OperationalError)):
            return True
        # By PEP 249 an OperationalError is not the programmer's; but SQLite has no other for a missing table.
        has_state = getattr(error.__cause__, "sqlstate", None) is not None
        return self.missing is not None and isinstance(error, OperationalError) and has_state

    def lose(self, failures: Mapping[str, Exception], late: Set[str] = frozenset()) -> None:
        """
        Go on without shards that failed, if the question says so.

        Raises:
            ShardsUnavailable: it does not, or nobody would be left.
        """
        if not failures:
            return
        if self.missing is None or self._spoils_block(failures):
            raise self._unavailable(failures, late) from next(iter(failures.values()))
        self.missing.update(failures)
        self.connections[:] = [each for each in self.connections if each.alias not in self.missing]
        if not self.connections:
            raise self._unavailable(self.missing, late) from next(iter(failures.values()))
        logger.warning("An answer is given without the rows of %s.", _named(failures))

    def _spoils_block(self, failures: Mapping[str, Exception]) -> bool:
        """Return whether a shard that failed took part in a block, other than that of a TestCase."""
        blocks = [block for each in self.connections if each.alias in failures for block in each.atomic_blocks]
        return not all(block._from_testcase for block in blocks)

    def _unavailable(self, failures: Mapping[str, Exception], late: Set[str]) -> ShardsUnavailable:
        in_block = any(each.alias in failures and each.in_atomic_block for each in self.connections)
        if late >= failures.keys() and self.policy.seconds is not None:
            return timed_out(failures, self.policy.seconds, in_block=in_block)
        return unavailable(failures, in_block=in_block)


def close_if_lost(connection: Any) -> None:
    """Close a connection that no statement can use again, so that the next one outside of a block opens another."""
    raw = connection.connection
    if raw is None or connection.vendor != "postgresql":
        return
    if raw.closed or raw.info.transaction_status.name in {"ACTIVE", "UNKNOWN"}:
        if connection.in_atomic_block and connection.is_door:
            # Closing it would roll back the shards' parts, too, which is for the end of the block.
            connection.needs_rollback = True
        else:
            connection.close()


#: As in one database, where a statement has failed.
SPENT = " Nothing more can be done in the atomic block around the query: leave it, and begin another."


def unavailable(failures: Mapping[str, Exception], *, in_block: bool = False) -> ShardsUnavailable:
    """Return the error that names the shards which did not answer; failures are {alias: exception}."""
    return ShardsUnavailable(
        f"These shards did not answer: {_named(failures)}. A part of an answer is no answer, so there is none. "
        f"Repeat the query when they are up; .failures has their errors.{SPENT if in_block else ''}",
        failures=dict(failures),
    )


def timed_out(failures: Mapping[str, Exception], seconds: float, *, in_block: bool = False) -> FanOutTimeout:
    """Return the error that names the shards which did not answer in time."""
    return FanOutTimeout(
        f"These shards did not answer within {seconds:g} seconds: {', '.join(failures)}. A part of an answer is no "
        f'answer, so there is none. Give them more time by timeout=, or do without them by on_error="partial".'
        f"{SPENT if in_block else ''}",
        failures=dict(failures),
        timeout=seconds,
    )


def _named(failures: Mapping[str, Exception]) -> str:
    return ", ".join(f"{alias} ({type(error).__name__})" for alias, error in failures.items())
