"""
Every statement that the sessions of movers send, before it is sent: tests stop there, write there, or end there.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from sharding.rebalance import connecting, mover


@dataclass(frozen=True, slots=True)
class Statement:
    """One that is about to be sent."""

    #: The step in which it is, or what went before.
    within: str
    #: Which one there, from 1 on; and which one of all.
    place: int
    number: int
    alias: str
    text: str

    @property
    def point(self) -> tuple[str, int]:
        return self.within, self.place


#: Called before each statement, in the thread that sends it.
Hook = Callable[[Statement], None]


@dataclass
class _Watch:
    hook: Hook
    within: str
    aliases: dict[int, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def sending(self, connection: Any, text: Any) -> None:
        alias = self.aliases.get(id(connection))
        if alias is None:
            return
        # Two threads of a mover ask both shards at once.
        with self.lock:
            self.counts[self.within] += 1
            place, number = self.counts[self.within], self.counts.total()
            if isinstance(text, psycopg.sql.Composable):
                text = text.as_string()
            text = text.decode() if isinstance(text, bytes) else str(text)
            self.hook(Statement(self.within, place, number, alias, " ".join(text.split())))

    def carried_out(self, kind: type, act: Any) -> Any:
        def acted(*work: Any) -> None:
            self.within = kind.__name__
            act(*work)
            self.within = f"after {kind.__name__}"

        return acted


@contextmanager
def watched(hook: Hook, *, within: str = "the beginning") -> Iterator[None]:
    """Let a hook be called before each statement of every mover that begins in this process meanwhile."""
    watch = _Watch(hook, within)
    connect, execute, executemany = connecting.connect, psycopg.Cursor.execute, psycopg.Cursor.executemany
    copy, write, command = psycopg.Cursor.copy, psycopg.Copy.write, psycopg.Connection._exec_command
    kept = []

    def connected(alias: str, name: str) -> Any:
        connection = connect(alias, name)
        # As long as it is kept, no other object has its id.
        kept.append(connection)
        watch.aliases[id(connection)] = alias
        return connection

    def executed(cursor: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        watch.sending(cursor.connection, query)
        return execute(cursor, query, *args, **kwargs)

    def executed_many(cursor: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        watch.sending(cursor.connection, query)
        return executemany(cursor, query, *args, **kwargs)

    def copied(cursor: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        watch.sending(cursor.connection, query)
        return copy(cursor, query, *args, **kwargs)

    def written(copying: Any, data: Any) -> Any:
        watch.sending(copying.connection, "rows of a COPY")
        return write(copying, data)

    def commanded(connection: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        # BEGIN and COMMIT of a block that psycopg makes.
        watch.sending(connection, query)
        return (yield from command(connection, query, *args, **kwargs))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connecting, "connect", connected)
        patch.setattr(psycopg.Cursor, "execute", executed)
        patch.setattr(psycopg.Cursor, "executemany", executed_many)
        patch.setattr(psycopg.Cursor, "copy", copied)
        patch.setattr(psycopg.Copy, "write", written)
        patch.setattr(psycopg.Connection, "_exec_command", commanded)
        for kind, act in mover._ACTIONS.items():
            patch.setitem(mover._ACTIONS, kind, watch.carried_out(kind, act))
        yield
