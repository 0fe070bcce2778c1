"""Conflicts to order: a row that somebody holds, and a session that is lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from asgiref.sync import sync_to_async
from django.db import connections

from tests.deadlocks.conftest import Block, scalar
from tests.shop.models import Order
from tests.transactions.conftest import Rows, elsewhere

T = TypeVar("T")


class Held:
    """A row that somebody else has locked, until the calls of a function are as many as given."""

    def __init__(self, rows: Rows, calls: int) -> None:
        self.rows = rows
        self.calls = 0
        self._last = calls
        self._holder = Block(lambda: list(Order.objects.select_for_update().filter(tenant_id=rows.a)))
        self._holder.go()

    def lock(self) -> int:
        """Lock the row, or raise."""
        self.calls += 1
        if self.calls == self._last:
            self.release()
        list(Order.objects.select_for_update(nowait=True).filter(tenant_id=self.rows.a))
        return self.calls

    def release(self) -> None:
        self._holder.end()


@contextmanager
def held(rows: Rows, *, calls: int = 1000) -> Iterator[Held]:
    found = Held(rows, calls)
    try:
        yield found
    finally:
        found.release()


def lose_session(alias: str) -> None:
    """Let the server end this thread's session."""
    pid = connections[alias].connection.info.backend_pid
    elsewhere(lambda: scalar(alias, "SELECT pg_terminate_backend(%s, 60000)", pid))


async def closing(function: Callable[[], Awaitable[T]]) -> T:
    """Call a function in an event loop, whose threads leave no connections behind."""
    try:
        return await function()
    finally:
        await sync_to_async(connections.close_all)()
