"""
Is a database out of reach, or did it refuse a statement?
"""

from __future__ import annotations

from django.db import InterfaceError, OperationalError

from sharding.errors import BucketRefused, EpochChanged

#: SQLSTATEs with which a server ends or refuses a connection: shutdown, crash, starting up, too many connections.
GONE = {"57P01", "57P02", "57P03", "57P05", "53300"}
#: The same of SQLite.
UNREADABLE = {"SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_NOTADB", "SQLITE_CORRUPT"}


def is_connection_failure(error: BaseException) -> bool:
    """Return whether an error says that a database cannot be reached, rather than that it refused a statement."""
    if isinstance(error, (BucketRefused, EpochChanged)):
        return False
    if isinstance(error, InterfaceError):
        return True
    if not isinstance(error, OperationalError):
        return False
    cause = error.__cause__
    sqlite_name = getattr(cause, "sqlite_errorname", None)
    if sqlite_name is not None:
        return sqlite_name in UNREADABLE
    state = getattr(cause, "sqlstate", None)
    return state is None or state in GONE or state.startswith("08")


def note_where(error: BaseException, alias: str) -> None:
    """Say in a note on an error that it was met when a shard was to be connected to."""
    error.add_note(_note(alias))


def was_not_reached(error: BaseException, alias: str) -> bool:
    """Return whether an error was met when this very shard was to be connected to."""
    return _note(alias) in getattr(error, "__notes__", ())


def _note(alias: str) -> str:
    return f"This was met on the shard {alias!r}. `manage.py shards status` shows which databases answer."
