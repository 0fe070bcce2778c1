"""
One piece of work for each of several connections, in threads of a pool that borrow the caller's connections.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from threading import Event, get_ident
from typing import Any, TypeVar

from aggregator import deadline

T = TypeVar("T")

#: Of all fan-outs of a process together; one alone uses at most SHARDING["MAX_PARALLEL"].
POOL_SIZE = 64
#: Seconds after which it is looked whether a signal came to another thread: the main one is not woken by it.
INTERVAL = 0.1

_pool: ThreadPoolExecutor | None = None


def deal(connections: Sequence[Any], attempt: Callable[[Any], T], lanes: int) -> list[T]:
    """
    Return what ``attempt`` returns for each connection, in their order, dealt to ``lanes`` threads, of which the
    caller's own is one.

    Every connection is waited for. It is no failure of a shard when ``attempt`` raises, but the end of the whole:
    SystemExit, for one.
    """
    outcomes: list[Any] = [None] * len(connections)
    interrupted = Event()

    def work(lane: int) -> None:
        for turn in range(lane, len(connections), lanes):
            if interrupted.is_set():
                return
            outcomes[turn] = attempt(connections[turn])

    for connection in connections:
        connection.inc_thread_sharing()
    try:
        # A copied context, so that ContextVars (tracing, routing) mean the same in the other threads.
        futures = [_threads().submit(copy_context().run, work, lane) for lane in range(1, lanes)]
        for turn, connection in enumerate(connections):
            if turn % lanes:
                connection.in_flight = _settling(futures[turn % lanes - 1])
        try:
            work(0)
            for lane, future in enumerate(futures, start=1):
                # What no thread has had time for, since other fan-outs keep them busy.
                if future.cancel():
                    work(lane)
            errors = [_error_of(future) for future in futures if not future.cancelled()]
        except BaseException:
            interrupted.set()
            for future in futures:
                _end(future, connections)
            raise
    finally:
        for connection in connections:
            connection.in_flight = None
            connection.dec_thread_sharing()
    for error in errors:
        if error is not None:
            raise error
    return outcomes


def _error_of(future: Future[None]) -> BaseException | None:
    """Wait for a lane, and return what it raised; a signal that came to another thread is noticed meanwhile."""
    while True:
        with suppress(TimeoutError):
            return future.exception(INTERVAL)


def _end(future: Future[None], connections: Sequence[Any]) -> None:
    """Let a lane end soon, whatever its servers are at."""
    while not (future.cancel() or future.done()):
        deadline.cancel(connections)
        with suppress(TimeoutError):
            future.exception(INTERVAL)


def _settling(future: Future[None]) -> Callable[[], None]:
    """Return what lets this thread use the connections of a lane, since an execute wrapper may want to."""
    caller = get_ident()

    def settle() -> None:
        # A lane does not wait for itself, and what has not begun goes on when this is done.
        if get_ident() == caller and not future.cancel():
            future.exception()

    return settle


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
