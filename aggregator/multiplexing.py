"""
One statement for several PostgreSQL servers at once, from one thread: it goes to all of them before any answer is read.

Threads would do it too, and wait for each other for longer than the servers take for a page of rows. A statement is
executed by Django as any other, with its wrappers and its log, except that the time until the server answers is used
to ask the next one: inside each of them, the others are executed.

psycopg has no public way to send a statement and read the answer later, so that it is done with the generator that
its own ``execute()`` consumes.
"""

from __future__ import annotations

import math
import select
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

#: Statements inside each other; each takes about ten frames of the interpreter's stack.
DEPTH = 32
#: Seconds that a statement may take to end, once it is cancelled.
PATIENCE = 5.0
#: Seconds after which it is cancelled once more.
AGAIN = 0.2
#: Seconds after which it is looked whether a signal came to another thread: the main one is not woken by it.
INTERVAL = 0.1

#: What a generator of psycopg waits for.
READ, WRITE = 1, 2

#: What was read from the executed cursor, or the error that came instead of it.
Answer = tuple[Any, Exception | None]
Read = Callable[[Any], Any]


def is_possible(connection: Any) -> bool:
    """Return whether an open connection is one of psycopg, whose cursors execute statements as psycopg made them."""
    factory = getattr(connection.connection, "cursor_factory", None)
    # Poll tells of a file that was closed meanwhile; others would wait for ever.
    return connection.vendor == "postgresql" and hasattr(select, "poll") and _is_psycopgs(factory)


@cache
def _is_psycopgs(factory: Any) -> bool:
    # SQLite does without psycopg, and Django works with psycopg2, too.
    try:
        from psycopg import Cursor
    except ImportError:
        return False
    # Whoever instruments cursors with an execute() of their own would not be asked.
    return getattr(factory, "execute", None) is Cursor.execute and hasattr(factory, "_execute_gen")


def execute(connections: Sequence[Any], statement: tuple[str, Any], read: Read, at_once: int) -> list[Answer]:
    """
    Execute a statement on each connection, on up to ``at_once`` at a time; every one of them is waited for.

    Cursors are read as soon as they can be, while other servers are still waited for.
    """
    answers: list[Answer] = []
    size = min(at_once, DEPTH)
    for start in range(0, len(connections), size):
        answers.extend(_Round(connections[start : start + size], statement, read).answers())
    return answers


def _with_room(function: Callable[[], None]) -> None:
    function()


# CPython keeps frames in blocks of 16 KB, and each call beyond the end of one asks the system for another and gives it
# back: with sixteen statements inside each other, that is a tenth of the whole query. A function that claims to need
# most of a bigger block leaves the rest of it to those it calls.
_with_room.__code__ = _with_room.__code__.replace(co_stacksize=9_000)


class _Round:
    """Statements that are under way at the same time."""

    def __init__(self, connections: Sequence[Any], statement: tuple[str, Any], read: Read) -> None:
        self._connections = connections
        self._statement = statement
        self._read = read
        self._answers: list[Answer] = []
        self._conversations: list[_Conversation] = []
        self._asked = 0
        #: What a handler of a signal raised while servers were waited for.
        self._interruption: Exception | None = None

    def answers(self) -> list[Answer]:
        try:
            # Before anything is sent: for some connections to get a cursor, statements go to other ones.
            self._answers = [_attempt(connection.cursor) for connection in self._connections]
            _with_room(self.go_on)
        except BaseException:
            _abandon(self._conversations)
            raise
        finally:
            for connection in self._connections:
                connection.in_flight = None
            # They refer to this object, and would stay until the garbage is collected, with all rows.
            self._conversations = []
            self._interruption = None
        return self._answers

    def go_on(self) -> None:
        """Ask the connections that were not asked yet, and wait until all have answered."""
        if self._asked == len(self._answers):
            self._wait()
            return
        turn = self._asked
        self._asked += 1
        cursor, error = self._answers[turn]
        if error is None:
            driver = cursor.cursor
            cursor.cursor = sending = _Sending(driver, lambda statement: self._ask(turn, cursor, driver, statement))
            _, error = _attempt(cursor.execute, *self._statement)
            cursor.cursor = driver
            self._answers[turn] = (None, error) if error is not None else sending.answer or _attempt(self._read, cursor)
        if self._interruption is not None:
            raise self._interruption
        if self._asked == turn + 1:
            # It was refused before it was sent.
            self.go_on()

    def _wait(self) -> None:
        try:
            _receive(self._conversations)
        except Exception as error:
            # A soft time limit, for one: no error of a statement, of which the others would be waited for.
            self._interruption = error
            raise

    def _ask(self, turn: int, cursor: Any, driver: Any, statement: Sequence[Any]) -> Answer | None:
        """Send one statement, ask the other connections, and return or raise when it is answered."""
        if self._asked > turn + 1:
            # A wrapper that executes it once more.
            driver.execute(*statement)
            return None
        conversation = _Conversation(self._connections[turn], driver, statement, lambda: self._read(cursor))
        self._conversations.append(conversation)
        conversation.begin()
        self.go_on()
        if conversation.error is not None:
            raise conversation.error
        return conversation.answer


class _Sending:
    """A cursor of psycopg that uses the time until the server answers."""

    def __init__(self, driver: Any, ask: Callable[[Sequence[Any]], Answer | None]) -> None:
        self._driver = driver
        self._ask = ask
        #: What was read of it, unless it was executed again since then.
        self.answer: Answer | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def execute(self, *statement: Any) -> None:
        self.answer = None
        self.answer = self._ask(statement)


class _Conversation:
    """A statement that was sent, and what its server answers."""

    def __init__(self, wrapper: Any, driver: Any, statement: Sequence[Any], read: Callable[[], Any]) -> None:
        self.wrapper = wrapper
        self.connection = driver.connection
        self.error: Exception | None = None
        self.answer: Answer | None = None
        self.is_over = False
        #: What its socket must be ready for, that it can go on.
        self.awaited = READ
        self.socket = -1
        self._generator: Generator[int, int, None] = driver._execute_gen(*statement)
        self._read = read

    @property
    def is_active(self) -> bool:
        """Return whether the server is still at the statement, or its answer was not read."""
        return bool(self.connection.info.transaction_status.name == "ACTIVE")

    def begin(self) -> None:
        """Send what can be sent without waiting."""
        self._step(None)
        if not self.is_over:
            self.socket = self.connection.fileno()
            self.wrapper.in_flight = self.finish

    def finish(self) -> None:
        """Wait for the answer, since somebody else needs the connection: a fan-out inside an execute wrapper, say."""
        _receive([self])

    @property
    def events(self) -> int:
        """The same, as poll calls it."""
        return (select.POLLIN if self.awaited & READ else 0) | (select.POLLOUT if self.awaited & WRITE else 0)

    def go_on(self, events: int) -> None:
        """Send and receive what the socket is ready for, which it is for all when it has failed."""
        ready = (READ if events & ~select.POLLOUT else 0) | (WRITE if events & ~select.POLLIN else 0)
        self._step(ready & self.awaited)

    def _step(self, ready: Any) -> None:
        try:
            self.awaited = int(self._generator.send(ready))
        except StopIteration:
            self._end()
            self.answer = _attempt(self._read)
        except Exception as error:
            self._end()
            self.error = error

    def _end(self) -> None:
        self.is_over = True
        self.wrapper.in_flight = None


def _attempt(function: Callable[..., Any], *arguments: Any) -> Answer:
    try:
        return function(*arguments), None
    except Exception as error:
        return None, error


def _receive(conversations: Iterable[_Conversation], seconds: float | None = None) -> None:
    """Return when all conversations are over, or the time is."""
    until = math.inf if seconds is None else time.monotonic() + seconds
    waiting = {each.socket: each for each in conversations if not each.is_over}
    poll = select.poll()
    for socket, conversation in waiting.items():
        poll.register(socket, conversation.events)
    while waiting and time.monotonic() < until:
        for socket, events in poll.poll(INTERVAL * 1000):
            conversation = waiting[socket]
            conversation.go_on(events)
            if conversation.is_over:
                poll.unregister(socket)
                del waiting[socket]
            else:
                poll.modify(socket, conversation.events)


def _abandon(conversations: Iterable[_Conversation]) -> None:
    """Leave no connection in the middle of a statement after an interruption: cancel it, or close the connection."""
    left = [each for each in conversations if each.is_active]
    until = time.monotonic() + PATIENCE
    try:
        waiting = left
        while waiting and time.monotonic() < until:
            # Once more, since a server forgets it that has not read the statement yet.
            for each in waiting:
                with suppress(Exception):
                    each.connection.cancel_safe(timeout=PATIENCE)
            waiting = [each for each in waiting if each.socket >= 0]
            _receive(waiting, AGAIN)
            waiting = [each for each in waiting if not each.is_over]
    finally:
        for each in left:
            if each.is_active:
                each.connection.close()
