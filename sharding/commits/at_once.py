"""
One statement on several of the caller's connections at the same time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Protocol, TypeVar


class HasConnection(Protocol):
    connection: Any


P = TypeVar("P", bound=HasConnection)

#: Of all commits of a process together.
POOL_SIZE = 32

_pool: ThreadPoolExecutor | None = None


def at_once(participants: Sequence[P], act: Callable[[P], None]) -> list[tuple[P, BaseException]]:
    """
    Call ``act`` for every participant, the first one in the caller's thread; return those that failed, and why.

    Every one is waited for, whatever becomes of the others.
    """
    if not participants:
        return []
    first, *others = participants
    for each in others:
        each.connection.inc_thread_sharing()
    futures: list[Future[None]] = []
    outcomes: list[BaseException | None] = []
    try:
        for each in others:
            futures.append(_begun(act, each))
        try:
            act(first)
            outcomes.append(None)
        except BaseException as error:
            outcomes.append(error)
    finally:
        outcomes.extend(map(_outcome, futures))
        for each in others:
            each.connection.dec_thread_sharing()
    return [(each, error) for each, error in zip(participants, outcomes, strict=True) if error is not None]


def _begun(act: Callable[[P], None], participant: P) -> Future[None]:
    try:
        return _threads().submit(copy_context().run, act, participant)
    except RuntimeError:
        # No thread is to be had: there are too many, or the main thread has ended. So it is done here, before the rest.
        done: Future[None] = Future()
        try:
            act(participant)
            done.set_result(None)
        except BaseException as error:
            done.set_exception(error)
        return done


def _outcome(future: Future[None]) -> BaseException | None:
    interruption: BaseException | None = None
    while True:
        try:
            return future.exception() or interruption
        except BaseException as error:
            # KeyboardInterrupt, or what the handler of another signal raises (Celery's soft time limit, for one).
            # The other thread goes on using the connection: nothing else may before it is through.
            interruption = error


def _threads() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(POOL_SIZE, thread_name_prefix="commit")
    return _pool


def _forget_threads() -> None:
    # Threads do not survive a fork; the pool of the parent would wait for them for ever.
    global _pool
    _pool = None


os.register_at_fork(after_in_child=_forget_threads)
