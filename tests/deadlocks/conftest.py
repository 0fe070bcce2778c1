"""Rows on two shards, and blocks that run beside the test's own, in threads with their own connections."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import pytest
from django.db import connections, transaction
from django.test import override_settings

from sharding.operations import lock_waits
from tests import servers
from tests.layouts import CLUSTER, tenant_on
from tests.settings import SHARDING
from tests.shop.models import Order
from tests.transactions.conftest import rows

__all__ = ["rows"]

# SQLite has no row locks, and nobody who could tell who waits for whom.
collect_ignore_glob = [] if servers.engine == "postgresql" else ["test_*.py"]

#: Seconds after which a test that waits has failed.
BOUND = 60


@pytest.fixture
def detector_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let no block give up by itself, and the detector look twice in short order."""
    monkeypatch.setattr(lock_waits, "PAUSE", 0.2)
    with override_settings(SHARDING={**SHARDING, "LOCK_TIMEOUT": None}):
        yield


@pytest.fixture
def orders(transactional_db: None) -> dict[str, Order]:
    """One order on each shard."""
    return {alias: Order.objects.create(tenant_id=tenant_on(alias)) for alias in ("shard_a", "shard_b", "shard_c")}


class Block:
    """
    An atomic block in a thread of its own. Each step is a function, and runs when the test says ``go()``.

    ``end()`` lets it commit, or raises what it raised.
    """

    def __init__(self, *steps: Callable[[], object], atomic: bool = True) -> None:
        self.error: BaseException | None = None
        self.name = ""
        self._steps = steps
        self._atomic = atomic
        self._gates = [Event() for _ in range(len(steps) + 1)]
        self._done = [Event() for _ in steps]
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def go(self, *, wait: bool = True) -> None:
        """Let the next step run, and be done with, unless it is to be met while it waits for a lock."""
        place = next(number for number, gate in enumerate(self._gates) if not gate.is_set())
        self._gates[place].set()
        if wait:
            assert self._done[place].wait(BOUND)
            if self.error is not None:
                raise self.error

    def end(self) -> BaseException | None:
        """Let the rest run, wait for the end of the block, and return its error."""
        for gate in self._gates:
            gate.set()
        self._thread.join(BOUND)
        assert not self._thread.is_alive()
        return self.error

    def kill(self) -> None:
        """End the sessions of the block, and with them the block; and what it has prepared."""
        for gate in self._gates:
            gate.set()
        for alias in CLUSTER:
            connection = connections[alias].copy()
            with connection.cursor() as cursor:
                mine = [f"%{self.name}%"]
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE %s", mine
                )
                cursor.execute("SELECT gid FROM pg_prepared_xacts WHERE gid LIKE %s", mine)
                for (gid,) in cursor.fetchall():
                    cursor.execute(f"ROLLBACK PREPARED '{gid}'")
            connection.close()
        self._thread.join(BOUND)

    def _run(self) -> None:
        door: Any = connections["default"]
        self.name = door.coordinator.name
        try:
            if self._atomic:
                with transaction.atomic(using="default"):
                    self._take_steps()
            else:
                self._take_steps()
        except BaseException as error:
            self.error = error
        finally:
            for done in self._done:
                done.set()
            connections.close_all()

    def _take_steps(self) -> None:
        for gate, done, step in zip(self._gates, self._done, self._steps, strict=False):
            assert gate.wait(BOUND)
            step()
            done.set()
        assert self._gates[-1].wait(BOUND)


@contextmanager
def blocks(*each: Block) -> Iterator[tuple[Block, ...]]:
    """End all blocks, whatever becomes of the test: what still waits for a lock would be in the way of the next one."""
    try:
        yield each
    except BaseException:
        for block in each:
            block.kill()
        raise
    for block in each:
        block.end()


def scalar(alias: str, sql: str, *params: Any) -> Any:
    """Return the one value that a statement finds, on the caller's connection."""
    with connections[alias].cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchone()[0]


def isolate(alias: str, level: str) -> None:
    """Let a shard join the open block of `default`, with another isolation level than READ COMMITTED."""
    door: Any = connections["default"]
    door.enlist(alias)
    with connections[alias].cursor() as cursor:
        cursor.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")


@contextmanager
def between_two_commits(work: Callable[[], object]) -> Iterator[Committing]:
    """
    Hold a block, as a slow server would: it is decided, and committed on shard_a but not on shard_b.

    ``go_on()`` of what is yielded lets it come to its end.
    """
    committing = Committing(work)
    with blocks(committing):
        committing.go(wait=False)
        assert committing.reached.wait(BOUND)
        deadline = time.monotonic() + BOUND
        while scalar("shard_a", "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        try:
            yield committing
        finally:
            committing.go_on()


class Committing(Block):
    """A block over shard_a and shard_b that pauses before it commits its part on shard_b."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.reached, self._may_go_on = Event(), Event()
        super().__init__(lambda: self._commit(work), atomic=False)

    def go_on(self) -> None:
        self._may_go_on.set()
        assert self.end() is None

    def kill(self) -> None:
        self._may_go_on.set()
        super().kill()

    def _commit(self, work: Callable[[], object]) -> None:
        with connections["shard_b"].execute_wrapper(self._pause), transaction.atomic(using="default"):
            work()

    def _pause(self, execute: Callable[..., Any], sql: str, *args: Any) -> Any:
        if sql.startswith("COMMIT PREPARED"):
            self.reached.set()
            assert self._may_go_on.wait(BOUND)
        return execute(sql, *args)
