"""
Trouble with one shard, of the kinds that PostgreSQL servers have.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Any

from django.db import connections

from sharding.errors import FanOutTimeout
from tests import servers
from tests.layouts import CLUSTER

TABLE = "shop_order"
#: Seconds of a deadline; and those that the next attempts have, where a machine was too slow.
DEADLINES = (0.3, 3.0, 20.0)
#: Seconds that whatever keeps its deadline may take beyond it, on a slow machine. What does not keep it has no end.
BOUND = 30.0


@contextmanager
def session(alias: str) -> Iterator[Any]:
    """Yield a cursor of another session, in a transaction of its own."""
    there = connections[alias].copy()
    there.settings_dict["OPTIONS"] = {}
    there.set_autocommit(False)
    try:
        with there.cursor() as cursor:
            yield cursor
        there.commit()
    finally:
        there.close()


@contextmanager
def slow(alias: str) -> Iterator[None]:
    """Let every statement over the orders of a shard wait, for a lock."""
    with session(alias) as cursor:
        cursor.execute(f"LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE")
        yield


def waiting(alias: str) -> list[int]:
    """Return the sessions of a shard's database that wait for a lock."""
    with session(alias) as cursor:
        cursor.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return [pid for (pid,) in cursor.fetchall()]


def sessions(alias: str) -> int:
    """Return how many sessions a shard's database has, beside the one that asks."""
    with session(alias) as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        return int(cursor.fetchone()[0])


def sessions_everywhere() -> dict[str, int]:
    """Return how many sessions each database has, once two looks find the same."""
    found = None
    while found != (before := {alias: sessions(alias) for alias in CLUSTER}):
        found = before
    return found


def are_no_more_than(expected: dict[str, int]) -> bool:
    """Return whether no database has more sessions, once a server has had the time to end those that were closed."""
    until = time.monotonic() + 60
    while any(sessions(alias) > number for alias, number in expected.items()):
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


SESSIONS = (
    "SELECT {} FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
)


@contextmanager
def paused(alias: str) -> Iterator[None]:
    """Stop a server in its tracks: nobody of it answers, although the system still takes its connections."""
    # Also those of streams, which have sessions of their own.
    with session(alias) as cursor:
        cursor.execute(SESSIONS.format("pid"))
        pids = [servers.process_of(alias), *(pid for (pid,) in cursor.fetchall())]
    try:
        for pid in pids:
            _send(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in reversed(pids):
            _send(pid, signal.SIGCONT)


def _send(pid: int, number: int) -> None:
    # A session that was closed a moment ago may be gone by now.
    with suppress(ProcessLookupError):
        os.kill(pid, number)


@contextmanager
def when_waiting(alias: str, sql: str) -> Iterator[None]:
    """Inside, send a statement about the first session that waits for a lock on a shard: %s is its process id."""
    over = Event()

    def look() -> None:
        while not over.wait(0.02):
            for pid in waiting(alias):
                with session(alias) as cursor:
                    cursor.execute(sql, [pid])
                return

    thread = Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def full(alias: str) -> Iterator[None]:
    """Let nobody have one more connection to a shard's database; another run's on the same server has its own."""
    connections[alias].close()
    with session(alias) as cursor:
        cursor.execute("SELECT quote_ident(current_database())")
        (name,) = cursor.fetchone()
        # Settled at once: whoever is connected already may lift it again.
        cursor.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 0")
        cursor.execute("COMMIT")
        try:
            yield
        finally:
            cursor.execute(f"ALTER DATABASE {name} CONNECTION LIMIT -1")


def terminate(alias: str) -> None:
    """Let a server end this thread's session."""
    pid = connections[alias].connection.info.backend_pid
    with session(alias) as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 60000)", [pid])


def terminate_streams(alias: str) -> None:
    """Let a server end the sessions in which cursors are open."""
    with session(alias) as cursor:
        cursor.execute(f"{SESSIONS.format('pg_terminate_backend(pid, 60000)')} AND state LIKE 'idle in transaction%'")


@contextmanager
def took_less_than(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


class TooSlow(Exception):
    """Shards that were well did not keep a deadline either."""


def in_the_end(check: Callable[[float], object]) -> None:
    """
    Call a check with a deadline of which it is to show that some shard does not keep it, and the others do.

    On a machine that was too slow for these, as late() tells, it is called again, with a longer one. Whatever else goes
    wrong is wrong the first time.
    """
    for seconds in DEADLINES[:-1]:
        with suppress(TooSlow, FanOutTimeout):
            check(seconds)
            return
    check(DEADLINES[-1])


def late(found: Iterable[str], *expected: str) -> None:
    """Check which shards did not keep a deadline."""
    names = sorted(found)
    if {*names} > {*expected}:
        raise TooSlow(names)
    assert names == [*expected]
