"""
Rows that are fetched from the shards only as they are needed, by one server-side cursor for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any

from aggregator import executor
from aggregator.merge import Row


class Stream:
    """The rows of one shard; the first chunk is fetched while the other shards fetch theirs."""

    def __init__(self, connection: Any, size: int) -> None:
        self.alias = connection.alias
        self._cursor = connection.chunked_cursor()
        self._size = size
        self._connection = connection
        self._asking = executor.asking_now()
        self._first: list[Row] = []

    def start(self, sql: str, params: Any) -> None:
        self._cursor.execute(sql, params)
        self._first = self._cursor.fetchmany(self._size)

    def rows(self) -> Iterator[Row]:
        return chain.from_iterable(self.chunks())

    def chunks(self) -> Iterator[list[Row]]:
        chunk = self._first
        while chunk:
            yield chunk
            chunk = self._next() if len(chunk) == self._size else []

    def _next(self) -> list[Row]:
        # None: the shard failed, and the answer goes on without the rest of its rows.
        asking = self._asking.again()
        return executor.step(asking, self._connection, lambda: self._cursor.fetchmany(self._size)) or []

    def close(self) -> None:
        self._cursor.close()


def open_streams(connections: Sequence[Any], sql: str, params: Any, size: int) -> list[Stream]:
    """Return one started stream for each connection, in their order."""
    made: dict[str, Stream] = {}

    def start(connection: Any) -> Stream:
        stream = made[connection.alias] = Stream(connection, size)
        stream.start(sql, params)
        return stream

    started: list[Stream] = []
    try:
        started = executor.run(connections, start)
        return started
    finally:
        for stream in made.values():
            if stream not in started:
                stream.close()


def regrouped(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    """Yield the rows in chunks, as Django's compilers do."""
    for first in rows:
        yield list(chain((first,), islice(rows, size - 1)))


def closing(streams: Sequence[Stream], rows: Iterator[Row]) -> Iterator[Row]:
    """Yield the rows, and close the streams when they end or are left."""
    try:
        yield from rows
    finally:
        for stream in streams:
            stream.close()
