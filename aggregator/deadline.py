"""
A deadline that is kept: by the server, which ends a statement by itself, and by this process where the server does not.

A server that is stopped in the middle (SIGSTOP, a lost network) answers neither a statement nor a request to cancel it.
So a thread looks at the connections that are still waiting after the deadline. It first asks their servers to cancel,
and then shuts the connections down, which wakes whoever waits for them.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Any

#: Seconds that a server is given to end a statement by itself, and then after it was asked to cancel it.
SLACK, GRACE = 0.1, 0.3
#: Seconds that one server is given to take the request.
ASKING = 0.1

# No statement that execute wrappers or the log of queries should know: it is sent by the driver's connection. A limit
# of the session's own that is lower is kept.
LIMIT = (
    "SELECT own, set_config('statement_timeout', CASE WHEN ms BETWEEN 1 AND {ms} THEN own ELSE '{ms}' END, true) "
    "FROM (SELECT own, extract(epoch FROM own::interval) * 1000 AS ms "
    "FROM (SELECT current_setting('statement_timeout') AS own) AS setting) AS limits"
)


class Watch:
    """Inside, no statement on these connections goes on for long after the deadline."""

    def __init__(self, connections: Sequence[Any], deadline: float) -> None:
        #: The aliases of those that were shut down.
        self.cut: set[str] = set()
        self._connections = connections
        self._deadline = deadline
        self._over = Event()
        self._thread = Thread(target=self._watch, name="fan-out-deadline", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        # Nothing that it has sent may reach a later statement.
        self._thread.join()

    def _watch(self) -> None:
        if self._over.wait(max(0.0, self._deadline - time.monotonic()) + SLACK):
            return
        cancel(self._connections, unless=self._over)
        if self._over.wait(GRACE):
            return
        for connection in _waiting(self._connections):
            if connection.vendor == "postgresql":
                self.cut.add(connection.alias)
                _shut_down(connection.connection)


def cancel(connections: Sequence[Any], *, unless: Event | None = None) -> None:
    """Ask the servers that are still at a statement to end it."""
    for connection in _waiting(connections):
        if unless is None or not unless.is_set():
            _cancel(connection)


@contextmanager
def limited(connection: Any, seconds: float) -> Iterator[None]:
    """Let the server end each statement inside after ``seconds``; an open transaction has its own limit back then."""
    if connection.vendor != "postgresql":
        yield
        return
    raw = connection.connection
    begins = raw.autocommit
    limit = LIMIT.format(ms=max(1, math.ceil(seconds * 1000)))
    with connection.wrap_database_errors:
        # For one transaction: behind a pooler, what a session is told might be meant for another one. Without
        # autocommit, the driver begins it.
        answer = raw.execute(f"BEGIN; {limit}" if begins else limit, prepare=False)
        if begins:
            answer.nextset()
        own = answer.fetchone()[0]
    back = f"SELECT set_config('statement_timeout', '{own}', true)"
    try:
        yield
    except BaseException:
        # A transaction that has failed forgets the limit by itself, and a connection that is lost has none.
        if begins or raw.info.transaction_status.name == "INTRANS":
            with suppress(Exception):
                raw.execute("ROLLBACK" if begins else back, prepare=False)
        raise
    with connection.wrap_database_errors:
        raw.execute("COMMIT" if begins else back, prepare=False)


def _waiting(connections: Sequence[Any]) -> list[Any]:
    return [connection for connection in connections if _is_waiting(connection)]


def _is_waiting(connection: Any) -> bool:
    raw = connection.connection
    if raw is None or connection.vendor != "postgresql":
        return raw is not None
    return not raw.closed and bool(raw.info.transaction_status.name == "ACTIVE")


def _cancel(connection: Any) -> None:
    raw = connection.connection
    if connection.vendor != "postgresql":
        raw.interrupt()
        return
    from psycopg import capabilities

    # Before libpq 17, a request to cancel could not be limited in time.
    if capabilities.has_cancel_safe():
        with suppress(Exception):
            raw.cancel_safe(timeout=ASKING)


def _shut_down(raw: Any) -> None:
    with suppress(Exception), socket.socket(fileno=os.dup(raw.pgconn.socket)) as wire:
        wire.shutdown(socket.SHUT_RDWR)
