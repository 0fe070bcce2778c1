"""
Running one statement, or one piece of work, on several shards at once, on the caller's own connections.

So it sees the caller's uncommitted rows, takes part in its atomic block, and opens no connection that the caller's
thread would not have: where threads of a pool are needed, they borrow the caller's wrappers. Every shard is waited for
before an error is raised, so that each connection is left usable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.db import DatabaseError, InterfaceError, OperationalError

from aggregator import multiplexing, threads
from aggregator.asking import Asking, close_if_lost, unavailable
from aggregator.policy import WHOLE, Policy
from sharding import cluster_map
from sharding.backends import refusals
from sharding.backends.compilers import sending
from sharding.backends.database_errors import original
from sharding.errors import BucketRefused, EpochChanged

__all__ = ["again", "asking_now", "participating", "run", "step", "unavailable"]

T = TypeVar("T")
Task = Callable[[Any], T]

_asking: ContextVar[Asking | None] = ContextVar("asking", default=None)


@dataclass(frozen=True, slots=True)
class Executing(Generic[T]):
    """
    The task of executing one statement: its value is what ``read`` returns for the executed cursor.

    It takes no threads where the driver lets one thread do with several servers.
    """

    sql: str
    params: Any
    read: Callable[[Any], T]

    def __call__(self, connection: Any) -> T:
        cursor = connection.cursor()
        cursor.execute(self.sql, self.params)
        return self.read(cursor)


@contextmanager
def participating(
    door: Any, aliases: Sequence[str], policy: Policy = WHOLE, *, anywhere: bool = True
) -> Iterator[list[Any]]:
    """
    Yield the caller's connections to the shards; inside, statements over sharded tables may be sent to them.

    What is run inside keeps to the policy: all of it together has one deadline, and where shards may be missing, those
    that turn out to be are taken from the list. Unless the question can be finished ``anywhere``, what a single one is
    asked for is asked of no other.

    Raises:
        ShardsUnavailable: a shard cannot join the caller's atomic block, or be asked who it is.
    """
    # What is known of the cluster is read in the caller's thread, whose connections are used.
    cluster_map.current()
    asking = Asking(policy, [cluster_map.connection_of(alias) for alias in aliases], anywhere=anywhere)
    outer = _asking.get()
    if outer is not None and outer.policy == policy:
        # The inner query of an aggregate: a part of the same question.
        asking.deadline = outer.deadline
    with ExitStack() as stack:
        failures: dict[str, Exception] = {}
        with asking.watching(asking.connections):
            for connection in asking.connections:
                try:
                    stack.enter_context(sending(connection, door))
                except (OperationalError, InterfaceError) as error:
                    failures[connection.alias] = original(error)
                    if door.in_atomic_block:
                        # The block is lost, and with it the others' part in it.
                        break
        asking.lose(failures, set(failures) if asking.is_late() else set())
        token = _asking.set(asking)
        try:
            yield asking.connections
        finally:
            _asking.reset(token)


def asking_now() -> Asking:
    """Return the question that is being asked, or one that waits for everybody."""
    return _asking.get() or Asking(WHOLE)


@contextmanager
def again(asking: Asking) -> Iterator[None]:
    """Let what is run inside belong to a question whose rows are a stream: with as much time as the first ones had."""
    token = _asking.set(asking.again())
    try:
        yield
    finally:
        _asking.reset(token)


def run(connections: Sequence[Any], task: Task[T], *, parallel: bool = True) -> list[T]:
    """
    Return what ``task`` returns for each connection, in their order; without those of shards that may be missing, and
    are. A single connection that is missing stands for any of the shards: another is asked.

    One connection, and SQLite's, are used in the caller's thread.

    Raises:
        ShardsUnavailable: a shard cannot be reached.
        FanOutTimeout: a shard did not answer before the deadline.
        EpochChanged: a shard shows other buckets than the map says.
        DatabaseError: a statement failed, with the shard's alias in a note; the first one's by the order given.
    """
    asking = asking_now()
    while True:
        values: list[T] = _run_once(asking, asking.present(connections), task, parallel)
        if values or not connections:
            return values


def step(asking: Asking, connection: Any, task: Callable[[], T]) -> T | None:
    """
    Return what ``task`` returns, which is the next thing that a question wants of one shard; None if that shard fails,
    and may be missing. Raises what run() raises.
    """
    with asking.watching([connection]) as cut:
        outcome = _attempt(lambda connection: task(), connection, asking)
    answers: list[T] = _answers(asking, [connection], [outcome], cut)
    return answers[0] if answers else None


def _run_once(asking: Asking, connections: Sequence[Any], task: Task[T], parallel: bool) -> list[T]:
    with asking.watching(connections) as cut:
        _connect(connections, asking)
        connections = asking.present(connections)
        lanes = min(len(connections), asking.policy.lanes) if parallel else 1
        if lanes > 1 and isinstance(task, Executing) and _is_for_one_thread(connections, asking):
            outcomes = _execute(connections, task, lanes)
        elif lanes > 1 and all(connection.vendor != "sqlite" for connection in connections):
            outcomes = threads.deal(connections, lambda connection: _attempt(task, connection, asking), lanes)
        else:
            outcomes = [_attempt(task, connection, asking) for connection in connections]
    return _answers(asking, connections, outcomes, cut)


class _Outcome:
    """What a task returned, or the error that it raised."""

    __slots__ = ("error", "late", "value")

    def __init__(self, value: Any = None, error: Exception | None = None, *, late: bool = False) -> None:
        self.value = value
        self.error = error
        self.late = late


def _attempt(task: Task[Any], connection: Any, asking: Asking) -> _Outcome:
    try:
        with asking.limiting(connection):
            return _Outcome(task(connection))
    except Exception as error:
        # The first rows of a server-side cursor are fetched without an execute wrapper.
        meant = refusals.explained(error, connection.alias) or original(error)
        return _Outcome(error=meant, late=asking.is_late())


def _is_for_one_thread(connections: Sequence[Any], asking: Asking) -> bool:
    # To keep a deadline, each lane sends more than the statement, and may have to connect.
    return asking.deadline is None and all(map(multiplexing.is_possible, connections))


def _execute(connections: Sequence[Any], task: Executing[Any], at_once: int) -> list[_Outcome]:
    answers = multiplexing.execute(connections, (task.sql, task.params), task.read, at_once)
    return [_Outcome(value, None if error is None else original(error)) for value, error in answers]


def _connect(connections: Sequence[Any], asking: Asking) -> None:
    """Open what is not open yet in the caller's thread, where Django's rules for connections hold."""
    failures: dict[str, Exception] = {}
    for connection in connections:
        pending = getattr(connection, "pending", False)
        if pending or (connection.connection is None and not _opens_in_its_lane(connection, asking)):
            try:
                # A cursor also begins the transaction that the door puts off.
                connection.cursor().close()
            except (OperationalError, InterfaceError) as error:
                failures[connection.alias] = original(error)
    asking.lose(failures, set(failures) if asking.is_late() else set())


def _opens_in_its_lane(connection: Any, asking: Asking) -> bool:
    """Return whether a connection is opened beside the others, since one alone could use up all the time there is."""
    if asking.deadline is None or connection.vendor != "postgresql" or connection.in_atomic_block:
        return False
    connection.settle_name()
    return True


def _answers(asking: Asking, connections: Sequence[Any], outcomes: Sequence[_Outcome], cut: set[str]) -> list[Any]:
    failures: dict[str, Exception] = {}
    late: set[str] = set()
    answers = []
    wrong: Exception | None = None
    for connection, outcome in zip(connections, outcomes, strict=True):
        alias, error = connection.alias, outcome.error
        outcome.late = outcome.late or alias in cut
        if error is None:
            answers.append(outcome.value)
            continue
        close_if_lost(connection)
        if asking.is_shards_fault(error, late=outcome.late):
            failures[alias] = error
            late |= {alias} if outcome.late else set()
        else:
            if isinstance(error, DatabaseError) and not isinstance(error, (BucketRefused, EpochChanged)):
                error.add_note(f"on shard {alias!r}")
            wrong = wrong or error
    if len(connections) > 1:
        if asking.missing is not None and asking.given.intersection(failures):
            # Half of what it has would be in the answer.
            raise unavailable(failures)
        asking.given.update(connection.alias for connection in connections if connection.alias not in failures)
    if wrong is not None and (asking.missing is not None or not failures):
        raise wrong
    asking.lose(failures, late)
    return answers
