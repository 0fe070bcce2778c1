"""
Take a move in hand, so that no two movers work at one, and none at a shard that has enough of them.

A mover has an advisory lock of the move in the control database as long as it is at it: the lock goes with the session,
so the next mover may follow at once. One that is there and gives no sign of life loses its sessions.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import psycopg

from sharding import conf, moves_lock
from sharding.errors import RebalanceError
from sharding.rebalance.attempt import CLOSED
from sharding.rebalance.options import Options
from sharding.rebalance.sessions import SESSION_NAME, Session, rename, transaction
from sharding.rebalance.stored_moves import COLUMNS, StoredMove, of_row

#: First keys of the advisory locks in the control database: of a move in hand, and of whoever takes one in hand.
MOVE_LOCK, CLAIM_LOCK = 0x534A, 0x534B
#: Seconds until a session that was ended is gone.
ENDING = 5.0

# Those first whose bucket nobody can write. A move begins when no process has a map that is older than its row.
_DUE = f"""
SELECT {COLUMNS}, now() - changed > make_interval(secs => CASE WHEN phase = ANY(%(closed)s) THEN %(silence_fenced)s
                                                           ELSE %(silence)s END)
FROM sharding_move
WHERE (%(plan)s::uuid IS NULL OR plan = %(plan)s)
AND phase NOT IN ('done', 'aborted') AND (retry_at IS NULL OR retry_at <= now())
AND (phase = ANY(%(closed)s) OR phase = 'forwarding' OR phase = 'aborting' OR wanted <> 'pause')
AND (phase <> 'planned' OR wanted <> 'go' OR planned + make_interval(secs => %(ttl)s) <= now())
AND (phase <> 'window' OR announced + make_interval(secs => %(ttl)s) <= now()
     AND (wanted = 'rollback' OR window_ends <= now()))
ORDER BY phase = ANY(%(closed)s) DESC, phase IN ('planned', 'window', 'purging'), id
"""
_IN_HAND = """
SELECT m.id, m.source, m.target FROM pg_locks AS l JOIN sharding_move AS m ON m.id = l.objid
WHERE l.locktype = 'advisory' AND l.classid = %s AND l.objsubid = 2 AND l.granted
AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_HOLDERS = """
SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objid = %s AND objsubid = 2 AND granted
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_OLDER = """
SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
AND application_name ~ %s AND split_part(application_name, ':', 3)::bigint < %s
"""


def worker_name() -> str:
    """Return what stands for this thread in the table of attempts."""
    return f"{socket.gethostname()}:{os.getpid()}:{threading.get_ident()}"


def keep_migrations_away(control: Session) -> None:
    """
    Keep migrations from beginning while movers are at work, as long as the session lasts.

    Raises:
        RebalanceError: a migration is running.
    """
    with control.connection.cursor() as cursor:
        if not moves_lock.enter(cursor, moves_lock.MOVING, moves_lock.MIGRATING):
            raise RebalanceError(
                "The databases are being migrated, so nothing is moved. "
                "Start again once `manage.py migrate_all` is through."
            )


def take(control: Session, worker: str, options: Options, *, plan: Any = None) -> StoredMove | None:
    """
    Return the next move that is due, in the hands of a new attempt; None if none is, or all are in other hands.

    Args:
        plan: of which it shall be; None for any.
    """
    with transaction(control) as cursor:
        # One at a time, so that the limit of a shard is kept. One that stands still here does not hold up the others.
        cursor.execute(
            "SELECT set_config('idle_in_transaction_session_timeout', %s, true), pg_advisory_xact_lock(%s, 0)",
            [f"{round(ENDING * 1000)}ms", CLAIM_LOCK],
        )
        cursor.execute(
            _DUE,
            {
                "closed": [str(phase) for phase in CLOSED],
                "silence": options.silence,
                "silence_fenced": options.silence_fenced,
                "plan": plan,
                "ttl": conf.current().map_ttl,
            },
        )
        due = [(of_row(row[:-1]), row[-1]) for row in cursor.fetchall()]
        cursor.execute(_IN_HAND, [MOVE_LOCK])
        in_hand = {number: pair for number, *pair in cursor.fetchall()}
        for move, is_silent in due:
            # One that is taken over is not counted twice.
            busy = Counter(alias for number, pair in in_hand.items() if number != move.id for alias in pair)
            urgent = move.phase in CLOSED
            if not urgent and max(busy[move.source], busy[move.target]) >= options.per_shard:
                continue
            if _lock(cursor, move, is_silent):
                return _begin(cursor, move, worker)
    return None


def release(control: Session, sessions: Iterable[Session], move: StoredMove) -> None:
    """Let others have the move; they end sessions that are still an earlier attempt's."""
    for session in (*sessions, control):
        with suppress(psycopg.OperationalError):
            rename(session)
    if not control.connection.closed:
        control.connection.execute("SELECT pg_advisory_unlock(%s, %s)", [MOVE_LOCK, move.id])


def adopt(control: Session, session: Session, move: StoredMove) -> None:
    """Let a session be the attempt's, and end those of older attempts at the bucket in the same database."""
    rename(session, move.bucket, move.generation)
    _end(session, f"^{SESSION_NAME}:{move.bucket}:[0-9]+$", move.generation)


def _begin(cursor: Any, move: StoredMove, worker: str) -> StoredMove:
    cursor.execute(
        "INSERT INTO sharding_attempt (move, worker, begun) VALUES (%s, %s, now()) RETURNING id", [move.id, worker]
    )
    ((generation,),) = cursor.fetchall()
    cursor.execute("UPDATE sharding_move SET generation = %s, changed = now() WHERE id = %s", [generation, move.id])
    return replace(move, generation=generation)


def _lock(cursor: Any, move: StoredMove, is_silent: bool) -> bool:
    if is_silent:
        # It may stand still in the middle of a change of the row.
        cursor.execute(_HOLDERS, [MOVE_LOCK, move.id])
        for (pid,) in cursor.fetchall():
            cursor.execute("SELECT pg_terminate_backend(%s, %s)", [pid, round(ENDING * 1000)])
    # Whoever changes the row at this moment is at it.
    cursor.execute(
        "SELECT phase FROM sharding_move WHERE id = %s AND generation = %s FOR UPDATE SKIP LOCKED",
        [move.id, move.generation],
    )
    return cursor.fetchone() == (str(move.phase),) and _try(cursor, move)


def _try(cursor: Any, move: StoredMove) -> bool:
    cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", [MOVE_LOCK, move.id])
    ((got,),) = cursor.fetchall()
    return bool(got)


def _end(session: Session, name: str, generation: int) -> None:
    deadline = time.monotonic() + ENDING
    while pids := [pid for (pid,) in session.connection.execute(_OLDER, [name, generation]).fetchall()]:
        try:
            for pid in pids:
                session.connection.execute("SELECT pg_terminate_backend(%s)", [pid])
        except psycopg.errors.InsufficientPrivilege:
            # They are another role's, and find themselves overtaken at their next change.
            return
        if time.monotonic() > deadline:
            return
        time.sleep(0.01)
