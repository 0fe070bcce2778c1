"""
Take moves in hand, so that no two movers work at one, and none at a shard that has enough of them.

A mover has an advisory lock of each move in the control database as long as it is at it: the lock goes with the
session, so the next mover may follow at once. One that is there and gives no sign of life loses its sessions.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import psycopg

from sharding import conf, moves_lock
from sharding.errors import RebalanceError
from sharding.rebalance.attempt import CLOSED
from sharding.rebalance.options import MOST_TOGETHER, Options
from sharding.rebalance.sessions import SESSION_NAME, Session, bucket_name, rename, transaction
from sharding.rebalance.stored_moves import COLUMNS, StoredMove, of_row

logger = logging.getLogger("sharding")

#: First keys of the advisory locks in the control database: of a move in hand, and of whoever takes one in hand.
MOVE_LOCK, CLAIM_LOCK = 0x534A, 0x534B
#: Seconds until a session that was ended is gone.
ENDING = 5.0

_NAMES = f"^{SESSION_NAME}:[0-9a-f,]+:[0-9]+$"

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
SELECT l.pid, array_agg(m.id), m.source, m.target FROM pg_locks AS l JOIN sharding_move AS m ON m.id = l.objid
WHERE l.locktype = 'advisory' AND l.classid = %s AND l.objsubid = 2 AND l.granted
AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
GROUP BY l.pid, m.source, m.target
"""
# Of a superuser, only a superuser may end a session; else a member of the role, or of pg_signal_backend.
_HOLDERS = """
SELECT l.pid, a.usename, CASE WHEN r.rolsuper THEN me.rolsuper
       ELSE pg_has_role(a.usesysid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE') END
FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid JOIN pg_roles AS r ON r.oid = a.usesysid
JOIN pg_roles AS me ON me.rolname = current_user
WHERE l.locktype = 'advisory' AND l.classid = %s AND l.objid = %s AND l.objsubid = 2 AND l.granted
AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_OLDER = """
SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
AND application_name ~ %s AND string_to_array(split_part(application_name, ':', 2), ',') && %s::text[]
AND split_part(application_name, ':', 3)::bigint < %s
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


def take(
    control: Session, worker: str, options: Options, *, plan: Any = None, alone: Collection[int] = ()
) -> list[StoredMove]:
    """
    Return the next move that is due, and others that may go with it, in the hands of a new attempt.

    There is none if none is due, or all are in other hands.

    Args:
        plan: of which they shall be; None for any.
        alone: the numbers of moves that go with no other.
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
        in_hand = cursor.fetchall()
        for place, (move, is_silent) in enumerate(due):
            if (move.phase in CLOSED or _has_room(in_hand, move, options)) and _lock(cursor, move, is_silent):
                taken = [move]
                for other, its_silence in due[place + 1 :]:
                    if _may_go_along(other, taken, options, alone) and _lock(cursor, other, its_silence):
                        taken.append(other)
                return _begin(cursor, taken, worker)
    return []


def release(control: Session, sessions: Iterable[Session], moves: Iterable[StoredMove]) -> None:
    """Let others have the moves; they end sessions that are still an earlier attempt's."""
    for session in (*sessions, control):
        with suppress(psycopg.OperationalError):
            rename(session)
    if not control.connection.closed:
        control.connection.execute(
            "SELECT pg_advisory_unlock(%s, number) FROM unnest(%s::int[]) AS number",
            [MOVE_LOCK, [move.id for move in moves]],
        )


def adopt(control: Session, session: Session, moves: Sequence[StoredMove]) -> None:
    """Let a session be the attempt's, and end those of older attempts at the buckets in the same database."""
    buckets, generation = [move.bucket for move in moves], moves[0].generation
    rename(session, buckets, generation)
    _end(session, buckets, generation)


def _has_room(in_hand: Iterable[tuple[int, list[int], str, str]], move: StoredMove, options: Options) -> bool:
    """Return whether the shards of a move have fewer movers than they may."""
    # One that is taken over is not counted twice.
    busy = Counter(alias for _, numbers, *pair in in_hand if move.id not in numbers for alias in pair)
    return max(busy[move.source], busy[move.target]) < options.per_shard


def _may_go_along(other: StoredMove, taken: Sequence[StoredMove], options: Options, alone: Collection[int]) -> bool:
    """Return whether a move may be in one round with others: it stands where they do, is small, and has not failed."""
    together, first = [*taken, other], taken[0]
    return (
        len(together) <= min(options.together, MOST_TOGETHER)
        and (other.source, other.target, other.phase) == (first.source, first.target, first.phase)
        and sum(move.rows for move in together) <= options.rows_together
        and not any(move.failures or move.id in alone for move in together)
    )


def _begin(cursor: Any, moves: Sequence[StoredMove], worker: str) -> list[StoredMove]:
    cursor.execute(
        "INSERT INTO sharding_attempt (move, worker, begun) VALUES (%s, %s, now()) RETURNING id", [moves[0].id, worker]
    )
    ((generation,),) = cursor.fetchall()
    cursor.execute(
        "UPDATE sharding_move SET generation = %s, changed = now() WHERE id = ANY(%s)",
        [generation, [move.id for move in moves]],
    )
    return [replace(move, generation=generation) for move in moves]


def _lock(cursor: Any, move: StoredMove, is_silent: bool) -> bool:
    # It may stand still in the middle of a change of the row.
    if is_silent and not _end_holders(cursor, move):
        return False
    # Whoever changes the row at this moment is at it.
    cursor.execute(
        "SELECT phase FROM sharding_move WHERE id = %s AND generation = %s FOR UPDATE SKIP LOCKED",
        [move.id, move.generation],
    )
    return cursor.fetchone() == (str(move.phase),) and _try(cursor, move)


def _end_holders(cursor: Any, move: StoredMove) -> bool:
    """End the sessions that have a move in hand, and return whether this role may end them all."""
    cursor.execute(_HOLDERS, [MOVE_LOCK, move.id])
    for pid, role, is_allowed in cursor.fetchall():
        if not is_allowed:
            logger.warning(
                "Whoever moves bucket %d gives no sign of life, and cannot be replaced: its session at the control "
                "database (process %d of the server) belongs to another role, %s. End it as that role, or as a "
                "superuser: SELECT pg_terminate_backend(%d)",
                *(move.bucket, pid, role, pid),
            )
            return False
        cursor.execute("SELECT pg_terminate_backend(%s, %s)", [pid, round(ENDING * 1000)])
    return True


def _try(cursor: Any, move: StoredMove) -> bool:
    cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", [MOVE_LOCK, move.id])
    ((got,),) = cursor.fetchall()
    return bool(got)


def _end(session: Session, buckets: Sequence[int], generation: int) -> None:
    deadline, names = time.monotonic() + ENDING, [bucket_name(bucket) for bucket in buckets]
    while pids := [pid for (pid,) in session.connection.execute(_OLDER, [_NAMES, names, generation]).fetchall()]:
        try:
            for pid in pids:
                session.connection.execute("SELECT pg_terminate_backend(%s)", [pid])
        except psycopg.errors.InsufficientPrivilege:
            # They are another role's, and find themselves overtaken at their next change.
            return
        if time.monotonic() > deadline:
            return
        time.sleep(0.01)
