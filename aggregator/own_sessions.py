"""
Sessions of a stream's own, beside those of the caller: a transaction that is open there holds nothing back here.

Outside atomic() each of the caller's statements commits by itself. The transaction in which a cursor lives would take
them in, if it was open on the same connection, and roll them back with an iterator that is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from threading import get_ident, local
from typing import Any
from weakref import WeakKeyDictionary

from django.db import Error

#: Those that are open, with the thread that opened them, and how many requests it was in.
_open: WeakKeyDictionary[Any, tuple[int, int]] = WeakKeyDictionary()
#: How many requests the thread is in: a test client makes one inside of what its caller does.
_requests = local()


def is_in_transaction(connection: Any) -> bool:
    """Return whether the caller's next statement on a connection belongs to an open transaction of the caller."""
    # One that is closed is not opened to be asked.
    autocommit = connection.autocommit if connection.connection else connection.settings_dict["AUTOCOMMIT"]
    return bool(connection.in_atomic_block or not autocommit)


@contextmanager
def own_sessions(connections: Sequence[Any]) -> Iterator[list[Any]]:
    """Yield wrappers to the same databases, not connected yet; they are closed if something fails inside."""
    made = [_session(connection) for connection in connections]
    try:
        yield made
    except BaseException:
        for each in made:
            end(each)
        raise


def end(session: Any) -> None:
    """Commit what a stream's statement did, if it did something, and close the session."""
    _open.pop(session, None)
    with suppress(Error):
        if session.connection is not None and not session.errors_occurred:
            session.connection.commit()
    with suppress(Error):
        # Django's close() refuses in an event loop, which drops the iterators that an `async for` has left.
        session._close()
    session.connection = None


def end_all() -> None:
    """
    End what this thread has left open: somebody still holds an iterator that is not at its end.

    Its locks would be in the way of whoever empties or alters the tables.
    """
    _end_since(0)


def begin_request(**kwargs: Any) -> None:
    """Note that a request begins. A receiver of request_started."""
    _requests.depth = _depth() + 1


def end_request(**kwargs: Any) -> None:
    """End what the request has left open. A receiver of request_finished."""
    _end_since(_depth())
    _requests.depth = max(0, _depth() - 1)


def _depth() -> int:
    return getattr(_requests, "depth", 0)


def _end_since(depth: int) -> None:
    # Other threads open and end theirs meanwhile.
    for session in [reference() for reference in _open.keyrefs()]:
        thread, begun = _open.get(session, (None, 0))
        if thread == get_ident() and begun >= depth:
            end(session)


def _session(connection: Any) -> Any:
    settings = deepcopy(connection.settings_dict)
    # An iterator inside the loop over another one would wait for ever for a connection of a small pool.
    settings["OPTIONS"].pop("pool", None)
    # The transaction begins with the first statement.
    settings["AUTOCOMMIT"] = False
    made = type(connection)(settings, connection.alias)
    # Whoever watches the caller's statements sees these, too.
    made.execute_wrappers = list(connection.execute_wrappers)
    made.queries_log = connection.queries_log
    made.force_debug_cursor = connection.force_debug_cursor
    # Chunks are fetched ahead by other threads, and an iterator may be dropped in any.
    made.inc_thread_sharing()
    _open[made] = (get_ident(), _depth())
    return made
