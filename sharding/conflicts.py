"""
Which errors say that a block lost against another one: all of it was rolled back, and it may be repeated as it is.
"""

from __future__ import annotations

from typing import Any

from django.db import Error

from sharding.errors import BlockAborted, BucketRefused, EpochChanged

NOTE = "This block may be repeated: sharding.retry does so."

#: SQLSTATEs: serialization_failure, deadlock_detected, lock_not_available.
LOST = {"40001", "40P01", "55P03"}
#: query_canceled: by `shards deadlocks --end`, by statement_timeout, or by an operator.
CANCELED = "57014"


def retryable(error: BaseException) -> bool:
    """
    Return whether an atomic block that ended with this error may be repeated, and may then succeed.

    A lost connection is not among them: nobody knows what had been committed by then.
    """
    if isinstance(error, (BlockAborted, BucketRefused, EpochChanged)):
        return True
    state = _sqlstate(error)
    return state in LOST or is_busy(error) or (state == CANCELED and NOTE in getattr(error, "__notes__", ()))


def explain(error: BaseException, *, spans_databases: bool) -> None:
    """
    Say in a note on the error of a block that the block may be repeated, if it may.

    A statement that somebody canceled counts inside a block over several databases: the detector of deadlocks ends the
    younger block so. A server whose messages are not in English may have canceled it for its statement_timeout.
    """
    canceled = spans_databases and _sqlstate(error) == CANCELED and "statement timeout" not in str(error)
    if (canceled or retryable(error)) and NOTE not in getattr(error, "__notes__", ()):
        error.add_note(NOTE)


def is_busy(error: BaseException) -> bool:
    """Return whether SQLite gave up waiting for another writer."""
    return getattr(error.__cause__, "sqlite_errorname", "").split("_")[:2] in (["SQLITE", "BUSY"], ["SQLITE", "LOCKED"])


def _sqlstate(error: BaseException) -> Any:
    # Django's errors have the driver's as their cause. An error of the application's own says something else.
    return getattr(error.__cause__ if isinstance(error, Error) else error, "sqlstate", None)
