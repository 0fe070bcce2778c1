"""
Rows that are fetched from the shards only as they are needed, by one server-side cursor for each.

Inside the caller's transaction the cursors are part of it. Outside they have sessions and transactions of their own,
and the next rows are fetched while the ones at hand are used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import chain, islice
from typing import Any

from django.db import Error

from aggregator import executor, own_sessions
from aggregator.merge import Row
from sharding.backends import identities

#: Seconds for which the end of a stream waits for rows that are being fetched before it cancels the statement.
PATIENCE = 0.2
#: Of shards that are many, each is asked for at least so many rows at a time.
SMALLEST_CHUNK = 200


class Stream:
    """The rows of one shard, by a server-side cursor."""

    def __init__(self, connection: Any, size: int, ahead: ThreadPoolExecutor | None) -> None:
        self.connection = connection
        self._size = size
        self._asking = executor.asking_now()
        self._ahead = ahead
        self._coming: Future[list[Row]] | None = None
        self._first: list[Row] = []
        self._cursor: Any = None

    def start(self, sql: str, params: Any) -> None:
        """Execute the statement, and fetch the first chunk."""
        identities.require(self.connection)
        with self.connection.sharded_statements():
            self._cursor = self.connection.chunked_cursor()
            self._cursor.execute(sql, params)
        self._first = self._cursor.fetchmany(self._size)

    def chunks(self) -> Iterator[list[Row]]:
        chunk, self._first = self._first, []
        while chunk:
            is_last = len(chunk) < self._size
            self._coming = None if is_last or self._ahead is None else self._ahead.submit(self._fetch)
            yield chunk
            if is_last:
                return
            chunk = self._fetch() if self._coming is None else self._coming.result()

    def close(self) -> None:
        """Close the cursor, and what was opened for it; it may be called in any state, and twice."""
        if self._coming is not None and not self._coming.cancel():
            self._await(self._coming)
        with suppress(Error):
            # Its transaction may have ended, and the connection may be lost.
            if self._cursor is not None:
                self._cursor.close()
        if self._is_own:
            own_sessions.end(self.connection)

    @property
    def _is_own(self) -> bool:
        return self._ahead is not None

    def _fetch(self) -> list[Row]:
        # None: the shard failed, and the answer goes on without the rest of its rows.
        asking = self._asking.again()
        return executor.step(asking, self.connection, lambda: self._cursor.fetchmany(self._size)) or []

    def _await(self, coming: Future[list[Row]]) -> None:
        try:
            coming.exception(PATIENCE)
        except TimeoutError:
            self.connection.connection.cancel()
            coming.exception()


def share(size: int, connections: Sequence[Any]) -> int:
    """Return how many rows each shard is asked for, when there are to be ``size`` of all together in memory."""
    return max(min(size, SMALLEST_CHUNK), size // len(connections))


def stream(
    connections: Sequence[Any],
    sql: str,
    params: Any,
    size: int,
    merge: Callable[[Sequence[Iterator[list[Row]]]], Iterator[Row]],
) -> Iterator[Row]:
    """
    Return the rows that ``merge`` makes of the chunks of each connection; the cursors are open already.

    They are closed when the rows end, fail, or are left.
    """
    rows = _streamed(connections, sql, params, size, merge)
    # A generator that was never begun would end without its clean-up.
    next(rows)
    return rows


def _streamed(connections: Sequence[Any], sql: str, params: Any, size: int, merge: Any) -> Iterator[Any]:
    with ExitStack() as stack:
        ahead = None
        if connections[0].vendor != "sqlite" and not any(map(own_sessions.is_in_transaction, connections)):
            ahead = stack.enter_context(ThreadPoolExecutor(len(connections), thread_name_prefix="stream"))
            connections = stack.enter_context(own_sessions.own_sessions(connections))
        streams = [Stream(connection, share(size, connections), ahead) for connection in connections]
        for each in streams:
            stack.callback(each.close)
        by_connection = {id(each.connection): each for each in streams}
        executor.run(connections, lambda connection: by_connection[id(connection)].start(sql, params))
        yield None
        yield from merge([each.chunks() for each in streams])


def regrouped(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    """Yield the rows in chunks, as Django's compilers do."""
    for first in rows:
        yield list(chain((first,), islice(rows, size - 1)))
