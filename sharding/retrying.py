"""
Repeating a function whose body is an atomic block, when the block lost against another one.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar, overload

from asgiref.sync import sync_to_async
from django.db import connections
from django.db.transaction import TransactionManagementError

from sharding.conflicts import retryable

logger = logging.getLogger("sharding")

#: Seconds before the second call, and the most before any other; the pause doubles, and is shortened at random.
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 2.0

P = ParamSpec("P")
R = TypeVar("R")


class Attempt:
    """One call of a function that may be repeated, and what has been committed in it."""

    __slots__ = ("committed_on", "is_ending", "outer")

    def __init__(self, outer: Attempt | None) -> None:
        self.outer = outer
        #: The database on which something was, or may have been, committed.
        self.committed_on: str | None = None
        #: A block is being committed: what its databases do meanwhile is a part of that.
        self.is_ending = False

    def mark(self, alias: str) -> None:
        self.committed_on = self.committed_on or alias
        if self.outer is not None:
            self.outer.mark(alias)


#: A copied context (another thread's, a task's) has the same Attempt.
_current: ContextVar[Attempt | None] = ContextVar("sharding_attempt", default=None)


@overload
def retry(function: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def retry(*, times: int = 5) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def retry(function: Callable[..., Any] | None = None, /, *, times: int = 5) -> Any:
    """
    Call a function again, after a short pause, when its atomic block lost against another one.

    The function holds one whole block. It is repeated after deadlocks, lock timeouts, serialization failures and
    BlockAborted, never once something of it may have been committed. The last error is raised as it is, with a note.

    Args:
        times: how often it is called at most, the first time included.

    Raises:
        TransactionManagementError: (when called) an atomic block is open already, and cannot be repeated from inside.
    """
    if type(times) is not int or times < 1:
        raise ValueError(f"sharding.retry(times={times!r}) would never call the function. Give an integer from 1.")
    if function is None:
        return partial(_repeating, times=times)
    return _repeating(function, times=times)


def _repeating(function: Callable[..., Any], *, times: int) -> Callable[..., Any]:
    if not callable(function):
        raise TypeError(f"sharding.retry decorates a function, not {function!r}.")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"sharding.retry cannot repeat the generator {_name(function)}(), of which its caller has seen a part. "
            f"Decorate a function that holds the whole block and returns."
        )
    return _async(function, times) if inspect.iscoroutinefunction(function) else _sync(function, times)


def _sync(function: Callable[..., Any], times: int) -> Callable[..., Any]:
    @wraps(function)
    def repeated(*args: Any, **kwargs: Any) -> Any:
        _refuse_open_block(function)
        for number in range(1, times):
            with _attempt() as attempt:
                try:
                    return function(*args, **kwargs)
                except Exception as error:
                    if not _is_to_be_repeated(function, error, attempt, number, times):
                        raise
            time.sleep(_pause(number))
        with _last_attempt(function, times):
            return function(*args, **kwargs)

    return repeated


def _async(function: Callable[..., Any], times: int) -> Callable[..., Any]:
    @wraps(function)
    async def repeated(*args: Any, **kwargs: Any) -> Any:
        await sync_to_async(_refuse_open_block)(function)
        for number in range(1, times):
            with _attempt() as attempt:
                try:
                    return await function(*args, **kwargs)
                except Exception as error:
                    if not _is_to_be_repeated(function, error, attempt, number, times):
                        raise
            await asyncio.sleep(_pause(number))
        with _last_attempt(function, times):
            return await function(*args, **kwargs)

    return repeated


@contextmanager
def _attempt() -> Iterator[Attempt]:
    attempt = Attempt(_current.get())
    token = _current.set(attempt)
    try:
        yield attempt
    finally:
        _current.reset(token)


@contextmanager
def _last_attempt(function: Callable[..., Any], times: int) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if times > 1 and retryable(error):
            error.add_note(f"sharding.retry has called {_name(function)}() {times} times.")
        raise


def _is_to_be_repeated(
    function: Callable[..., Any], error: Exception, attempt: Attempt, number: int, times: int
) -> bool:
    if not retryable(error):
        return False
    if attempt.committed_on is not None:
        error.add_note(
            f"sharding.retry has not repeated {_name(function)}(): it had committed on {attempt.committed_on!r} before."
        )
        return False
    logger.info("%s() is called again (%d of %d): %s", _name(function), number + 1, times, type(error).__name__)
    return True


def _pause(number: int) -> float:
    """Return the seconds to wait after the call of this number; two that met each other will meet no more."""
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * float(2 ** (number - 1)))
    return random.uniform(longest / 2, longest)


def _refuse_open_block(function: Callable[..., Any]) -> None:
    for connection in connections.all(initialized_only=True):
        blocks: list[Any] = connection.atomic_blocks
        if blocks and not blocks[-1]._from_testcase:
            raise TransactionManagementError(
                f"{_name(function)}() is decorated with sharding.retry, and was called inside an open atomic block of "
                f"{connection.alias!r}. Only a whole block can be repeated: decorate the function that opens it."
            )


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", function))


# What the database wrappers report


@contextmanager
def ending(alias: str) -> Iterator[None]:
    """Inside, a block is committed on ``alias`` and all that takes part in it, or is rolled back there."""
    attempt = _current.get()
    if attempt is None or attempt.is_ending:
        yield
        return
    attempt.is_ending = True
    try:
        yield
    except BaseException as error:
        if not retryable(error):
            # Partly committed, or nobody knows.
            attempt.mark(alias)
        raise
    else:
        attempt.mark(alias)
    finally:
        attempt.is_ending = False


def is_repeating() -> bool:
    """Return whether the caller is inside a function that may be repeated."""
    return _current.get() is not None


def wrote_without_block(alias: str) -> None:
    """Note a statement that committed by itself."""
    attempt = _current.get()
    if attempt is not None and not attempt.is_ending:
        attempt.mark(alias)
