"""
Atomic blocks over databases that an application names, and what undoes them where they cannot be committed as one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ContextDecorator
from typing import Any, TypeVar, overload

from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.transaction import Atomic, TransactionManagementError

from sharding.commits.compensations import compensation

F = TypeVar("F", bound=Callable[..., Any])


class JoinedAtomic(ContextDecorator):
    """An atomic block of `default` in which other databases take part from its beginning."""

    def __init__(self, aliases: tuple[str, ...], *, durable: bool) -> None:
        self.aliases = aliases
        self._block = Atomic(DEFAULT_DB_ALIAS, savepoint=True, durable=durable)

    def __enter__(self) -> None:
        door = _door("sharding.atomic()")
        for alias in self.aliases:
            # A misspelt alias is told before anything is opened.
            connections[alias]
        self._block.__enter__()
        try:
            for alias in self.aliases:
                door.join(alias)
        except BaseException as error:
            self._block.__exit__(type(error), error, error.__traceback__)
            raise

    def __exit__(self, *exception: Any) -> None:
        self._block.__exit__(*exception)


@overload
def atomic(function: F, /) -> F: ...


@overload
def atomic(*aliases: str, durable: bool = False) -> JoinedAtomic: ...


def atomic(*aliases: Any, durable: bool = False) -> Any:
    """
    Return an atomic block of `default` that the databases of ``aliases`` join: a context manager, and a decorator.

    Statements that go to one of them by ``using=`` are committed and rolled back with the block, under the same rules
    as the shards. A block inside another one is a savepoint on all of them.

    Raises:
        TransactionManagementError: one of them is in a transaction of its own (when the block is entered).
    """
    if aliases and callable(aliases[0]):
        return JoinedAtomic((), durable=durable)(aliases[0])
    return JoinedAtomic(aliases, durable=durable)


def compensate(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
    """
    Let ``function(*args, **kwargs)`` be called if the open atomic block commits on some of its databases only.

    That happens only where they cannot be committed as one and SHARDING["WITHOUT_TWO_PHASE_COMMIT"] is "sequential".
    The functions are called in reverse order, each at least once and in a block of its own, after a crash by
    `shards recover`. The rollback of a nested block drops what was registered inside it.

    Raises:
        CannotCompensate: another process could not call the function again.
        TransactionManagementError: no atomic block is open.
    """
    door = _door("sharding.compensate()")
    if not door.in_atomic_block:
        raise TransactionManagementError(
            "sharding.compensate() was called outside of an atomic block, so there is nothing to compensate. Call it "
            "inside transaction.atomic() or sharding.atomic()."
        )
    door.compensations.append(compensation(function, args, kwargs, door.open_savepoints))


def _door(what: str) -> Any:
    door: Any = connections[DEFAULT_DB_ALIAS]
    if not hasattr(door, "enlist"):
        raise ImproperlyConfigured(
            f"{what} needs DATABASES['default'] with the ENGINE 'sharding.backends.postgresql' or "
            f"'sharding.backends.sqlite3', not {door.settings_dict['ENGINE']!r}."
        )
    return door
