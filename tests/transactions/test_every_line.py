"""
A program that is interrupted at each line of the toolkit's code in turn, while a block commits.

Whatever line it is: the block stands whole or not at all, somebody finishes what is prepared, callbacks belong to
blocks that stand, and what the same thread is told afterwards is stored.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from types import FrameType
from typing import Any

import pytest
from django.db import Error, connections, transaction
from django.db.transaction import TransactionManagementError

from sharding.commits import recovery
from sharding.errors import ShardingError
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.shop.models import Order, Region
from tests.transactions.conftest import Rows, elsewhere, prepared

pytestmark = [
    pytest.mark.slow,
    pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY),
]


class TimeLimit(Exception):
    """Raised by the handler of a signal, and no error of a database."""


class Interruption:
    """Raises ``kind`` before the line with this number is executed, of those in the toolkit's own files."""

    def __init__(self, number: int, kind: type[BaseException]) -> None:
        self.number, self.kind = number, kind
        self.place: str | None = None
        self._seen = 0

    def __enter__(self) -> None:
        sys.settrace(self._enter)

    def __exit__(self, *exc_info: object) -> None:
        sys.settrace(None)

    def _enter(self, frame: FrameType, event: str, arg: object) -> Any:
        return self._line if "/sharding/" in frame.f_code.co_filename else None

    def _line(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "line":
            self._seen += 1
            if self._seen == self.number:
                self.place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                sys.settrace(None)
                raise self.kind
        return self._line


@pytest.mark.parametrize("control", [True, False], ids=["with the control database", "shards alone"])
def test_interrupted_anywhere(control: bool, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    later: list[Any] = []
    monkeypatch.setattr(recovery, "finish_later", lambda **options: later.append(options))
    wrong: list[str] = []
    for number in range(1, 10_000):
        later.clear()
        kind = (KeyboardInterrupt, TimeLimit)[number % 2]
        interruption = Interruption(number, kind)
        called: list[int] = []
        error = _commit(f"n{number}", rows, control, interruption, called)
        if interruption.place is None:
            break
        found = _problems(f"n{number}", rows, control, error, called, is_left=not later)
        wrong += [f"{interruption.place}: {kind.__name__}: {problem}" for problem in found]
    else:
        raise AssertionError("The commit has no end.")
    # They may be left as those are that a commit shares with other threads.
    for alias in CLUSTER:
        _reopen(alias)
    assert number > 200
    assert wrong == []


def _commit(
    name: str, rows: Rows, control: bool, interruption: Interruption, called: list[int]
) -> BaseException | None:
    block = transaction.atomic(using="default")
    block.__enter__()
    transaction.on_commit(lambda: called.append(1), using="default")
    _write(name, rows)
    if control:
        Region.objects.create(name=name)
    try:
        with interruption:
            block.__exit__(None, None, None)
    except BaseException as error:
        return error
    return None


def _write(name: str, rows: Rows) -> None:
    for tenant in (rows.a, rows.b):
        Order.objects.create(tenant_id=tenant, status=name)


def _problems(
    name: str, rows: Rows, control: bool, error: BaseException | None, called: list[int], *, is_left: bool
) -> list[str]:
    found = []
    if not _is_acknowledged_and_stored(f"{name}+", rows):
        found.append("the next block of the thread is lost")
    for alias in CLUSTER:
        if _is_left_open(connections[alias]):
            _reopen(alias)
    if is_left and prepared():
        found.append("nobody finishes what is prepared")
    recovery.resolve_now(min_age=0, only=CLUSTER)
    stored = _stored(name, rows)
    if control:
        stored.append(Region.objects.filter(name=name).count())
    if len(set(stored)) != 1:
        found.append(f"half committed: {stored}")
    if called and not all(stored):
        found.append("a callback of a block that does not stand")
    if error is None and not (all(stored) and called):
        found.append("acknowledged and lost")
    if isinstance(error, Error) and all(stored):
        found.append(f"stands although {type(error).__name__} says that it does not")
    return found


def _is_acknowledged_and_stored(name: str, rows: Rows) -> bool:
    try:
        with transaction.atomic(using="default"):
            _write(name, rows)
    except (Error, ShardingError, TransactionManagementError):
        # The interruption has left a connection that nothing can be sent to; that is said, and nothing is lost.
        return True
    return not any(_is_left_open(connections[alias]) for alias in CLUSTER) or elsewhere(
        lambda: _stored(name, rows)
    ) == [1, 1]


def _stored(name: str, rows: Rows) -> list[int]:
    return [Order.objects.filter(tenant_id=tenant, status=name).count() for tenant in (rows.a, rows.b)]


def _is_left_open(connection: Any) -> bool:
    raw = connection.connection
    return connection.in_atomic_block or (raw is not None and raw.info.transaction_status.name != "IDLE")


def _reopen(alias: str) -> None:
    """Give the alias a connection as the next request has it, whatever the interruption has left."""
    connection: Any = connections[alias]
    with suppress(Exception):
        connection.close()
    del connections[alias]
