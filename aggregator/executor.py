"""
Running one piece of work on several shards at once, on the caller's own connections.

So it sees the caller's uncommitted rows, takes part in its atomic block, and opens no connection that the caller's
thread would not have: threads of a pool borrow the caller's wrappers. Every shard is waited for before an error is
raised, so that each connection is left usable.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from typing import Any, TypeVar

from django.db import DatabaseError, InterfaceError, OperationalError

from sharding import cluster_map, conf
from sharding.backends.compilers import sending
from sharding.backends.database_errors import original
from sharding.backends.failures import is_connection_failure
from sharding.errors import ShardsUnavailable

T = TypeVar("T")
Task = Callable[[Any], T]

#: Of all fan-outs of a process together; one alone uses at most SHARDING["MAX_PARALLEL"].
POOL_SIZE = 64

_pool: ThreadPoolExecutor | None = None


@contextmanager
def participating(door: Any, aliases: Sequence[str]) -> Iterator[list[Any]]:
    """
    Yield the caller's connections to the shards; inside, statements over sharded tables may be sent to them.

    Raises:
        ShardsUnavailable: the caller's atomic block is open, and a shard cannot join it.
    """
    # What is known of the cluster is read in the caller's thread, whose connections are used.
    cluster_map.current()
    with ExitStack() as stack:
        connections = [cluster_map.connection_of(alias) for alias in aliases]
        failures: dict[str, Exception] = {}
        for connection in connections:
            try:
                stack.enter_context(sending(connection))
            except (OperationalError, InterfaceError) as error:
                failures[connection.alias] = error
        _raise_unavailable(failures)
        yield connections


def run(connections: Sequence[Any], task: Task[T], *, parallel: bool = True) -> list[T]:
    """
    Return what ``task`` returns for each connection, in their order.

    One connection, and SQLite's, are used in the caller's thread.

    Raises:
        ShardsUnavailable: a shard cannot be reached.
        DatabaseError: a statement failed, with the shard's alias in a note; the first one's by the order given.
    """
    _connect(connections)
    lanes = min(len(connections), conf.current().max_parallel) if parallel else 1
    if lanes > 1 and all(connection.vendor != "sqlite" for connection in connections):
        outcomes = _run_in_parallel(connections, task, lanes)
    else:
        outcomes = [_attempt(task, connection) for connection in connections]
    return [_value(outcome) for outcome in _without_failures(connections, outcomes)]


def unavailable(failures: dict[str, Exception]) -> ShardsUnavailable:
    """Return the error that names the shards which did not answer; failures are {alias: exception}."""
    failures = {alias: original(error) for alias, error in failures.items()}
    names = ", ".join(f"{alias} ({type(error).__name__})" for alias, error in failures.items())
    return ShardsUnavailable(
        f"These shards did not answer: {names}. A part of an answer is no answer, so there is none. "
        f"Repeat the query when they are up; .failures has their errors.",
        failures=failures,
    )


class _Outcome:
    """What a task returned, or the error that it raised."""

    __slots__ = ("error", "value")

    def __init__(self, value: Any = None, error: Exception | None = None) -> None:
        self.value = value
        self.error = error


def _attempt(task: Task[Any], connection: Any) -> _Outcome:
    try:
        return _Outcome(task(connection))
    except Exception as error:
        return _Outcome(error=error)


def _run_in_parallel(connections: Sequence[Any], task: Task[Any], lanes: int) -> list[_Outcome]:
    """Deal the connections to ``lanes`` threads, of which the caller's own is one."""
    outcomes: list[_Outcome] = [_Outcome()] * len(connections)

    def work(lane: int) -> None:
        for turn in range(lane, len(connections), lanes):
            outcomes[turn] = _attempt(task, connections[turn])

    for connection in connections:
        connection.inc_thread_sharing()
    try:
        # A copied context, so that ContextVars (tracing, routing) mean the same in the other threads.
        futures = [_threads().submit(copy_context().run, work, lane) for lane in range(1, lanes)]
        try:
            work(0)
        finally:
            for future in futures:
                future.exception()
    finally:
        for connection in connections:
            connection.dec_thread_sharing()
    return outcomes


def _threads() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(POOL_SIZE, thread_name_prefix="fan-out")
    return _pool


def _forget_threads() -> None:
    # Threads do not survive a fork; the pool of the parent would wait for them for ever.
    global _pool
    _pool = None


os.register_at_fork(after_in_child=_forget_threads)


def _connect(connections: Sequence[Any]) -> None:
    """Open what is not open yet in the caller's thread, where Django's rules for connections hold."""
    failures: dict[str, Exception] = {}
    for connection in connections:
        if connection.connection is None or getattr(connection, "pending", False):
            try:
                # A cursor also begins the transaction that the door puts off.
                connection.cursor().close()
            except (OperationalError, InterfaceError) as error:
                failures[connection.alias] = error
    _raise_unavailable(failures)


def _without_failures(connections: Sequence[Any], outcomes: Sequence[_Outcome]) -> Sequence[_Outcome]:
    failures = {
        connection.alias: outcome.error
        for connection, outcome in zip(connections, outcomes, strict=True)
        if outcome.error is not None and is_connection_failure(outcome.error)
    }
    _raise_unavailable(failures)
    for connection, outcome in zip(connections, outcomes, strict=True):
        if isinstance(outcome.error, DatabaseError):
            outcome.error.add_note(f"on shard {connection.alias!r}")
    return outcomes


def _value(outcome: _Outcome) -> Any:
    if outcome.error is not None:
        raise outcome.error
    return outcome.value


def _raise_unavailable(failures: dict[str, Exception]) -> None:
    if failures:
        raise unavailable(failures) from next(iter(failures.values()))
