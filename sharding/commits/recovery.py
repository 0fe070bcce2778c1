"""
Recovery within a process of the application: at its start, and after a commit that a lost connection left unfinished.

It runs in a thread of its own, on connections of its own, and asks again and again until nothing is left.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence

from django.db import DEFAULT_DB_ALIAS, Error, connections

from sharding import cluster_map, conf
from sharding.commits import decisions
from sharding.commits.resolver import Resolution, resolve
from sharding.commits.sessions import aliases, session
from sharding.errors import MapMissing

logger = logging.getLogger("sharding")

#: Seconds between two attempts.
PAUSE = 1.0
#: Seconds that the pause grows to while nothing helps.
LONGEST_PAUSE = 60.0

#: Times by the monotonic clock: a look that begins later is wanted for each of them.
_due: list[float] = []
#: Set when one is added.
_asked = threading.Event()
_lock = threading.Lock()
_thread: threading.Thread | None = None


def settle(transaction: str, parts: Mapping[str, str | None]) -> bool:
    """
    Return whether ``transaction`` is committed, deciding that it is not if nobody has decided.

    Args:
        parts: {alias: id of the transaction that was prepared there}.

    Raises:
        DatabaseError: the control database, or every other one, does not answer.
    """
    with session(DEFAULT_DB_ALIAS) as control:
        if decisions.refuse(control, transaction) is not False:
            return True
    # The decision may have been carried out everywhere by a resolver, and forgotten, before the tombstone was written.
    failures: list[Error] = []
    for alias, number in parts.items():
        try:
            with session(alias) as cursor:
                cursor.execute("SELECT pg_xact_status(%s::xid8) = 'committed'", [number])
                return bool(cursor.fetchone()[0])
        except Error as error:
            failures.append(error)
    raise failures[0]


def resolve_now(*, min_age: float | None = None, only: Sequence[str] | None = None) -> Resolution:
    """
    Let the resolver look at every database once, or at some of them.

    Args:
        min_age: seconds for which a transaction must be undecided before it is aborted; None for RECOVER_AFTER.
        only: the aliases to look at.

    Raises:
        DatabaseError: the control database does not answer.
    """
    cluster = cluster_map.uuid()
    if cluster is None or connections[DEFAULT_DB_ALIAS].vendor != "postgresql":
        # Nothing was ever prepared.
        return Resolution()
    age = conf.current().recover_after if min_age is None else min_age
    return resolve(aliases() if only is None else only, cluster, min_age=age)


def finish_later(*, twice: bool = False) -> None:
    """
    Let the thread of this process finish what is decided, and roll back what is presumed aborted.

    Args:
        twice: look again after RECOVER_AFTER. A server may go on with a PREPARE whose session is lost.
    """
    global _thread
    now = time.monotonic()
    with _lock:
        _due.append(now)
        if twice:
            _due.append(now + conf.current().recover_after)
        _asked.set()
        if _thread is None:
            thread = threading.Thread(target=_finish_all, name="shardkit-recovery", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                # Too many threads, or the end of the process. The next one that asks begins it, or `shards recover`.
                logger.warning("Transactions in doubt are left to `manage.py shards recover` (%s).", error)
                return
            _thread = thread


def _finish_all() -> None:
    global _thread
    try:
        while _is_due():
            _finish_due()
    except BaseException:
        # An error of ours: the next transaction that is left unfinished begins again.
        _thread = None
        raise


def _is_due() -> bool:
    """Wait for the next time to look; with none, the thread ends and another one may begin."""
    global _thread
    while True:
        with _lock:
            if not _due:
                _thread = None
                return False
            seconds = min(_due) - time.monotonic()
            _asked.clear()
        if seconds <= 0:
            return True
        _asked.wait(seconds)


def _finish_due() -> None:
    """Look at every database until nothing is left of what the first look found."""
    pause = PAUSE
    awaited: set[str] | None = None
    while True:
        begun = time.monotonic()
        done = _look()
        if done is not None:
            # Those that are prepared later on are the business of those who prepare them.
            young = {each.gid.transaction for each in done.left}
            awaited = young if awaited is None else awaited & young
            if not awaited and not done.failures:
                break
        if _asked.wait(pause):
            return
        pause = min(2 * pause, LONGEST_PAUSE)
    with _lock:
        _due[:] = [each for each in _due if each > begun]


def _look() -> Resolution | None:
    try:
        done = resolve_now()
    except MapMissing:
        # Nothing was ever committed here.
        return Resolution()
    except Error as error:
        logger.info("Transactions over several databases cannot be finished yet (%s).", type(error).__name__)
        return None
    finally:
        # Those of this thread.
        connections.close_all()
    for each in done.committed:
        logger.info("Committed %s on %s.", each.gid.transaction, each.alias)
    for each in done.rolled_back:
        logger.info("Rolled %s back on %s.", each.gid.transaction, each.alias)
    return done


def _forget_thread() -> None:
    # It stays with the parent, and so does its work.
    global _thread, _lock, _asked
    _thread = None
    _lock, _asked = threading.Lock(), threading.Event()
    _due.clear()


os.register_at_fork(after_in_child=_forget_thread)
