"""
Write the moves of a plan into the control database, and what the operator wants of them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from uuid import UUID, uuid4

from psycopg import errors

from sharding.bucket_map import BucketMap
from sharding.errors import RebalanceError
from sharding.rebalance.phases import UNDECIDED, Phase, Wanted
from sharding.rebalance.plan import Plan, remaining
from sharding.rebalance.sessions import Cursor, Session, transaction

#: Phases in which a wish is heeded; what is in no list is heeded in all that are not final.
_HEEDED = {
    Wanted.ABORT: UNDECIDED,
    Wanted.ROLLBACK: (*UNDECIDED, Phase.DECIDED, Phase.OWNING, Phase.FORWARDING, Phase.WINDOW),
}

#: What is not forgotten because of a wish for all moves.
_KEPT = dict.fromkeys((Wanted.GO, Wanted.PAUSE), (Wanted.ABORT, Wanted.ROLLBACK))


def register(control: Session, plan: Plan) -> tuple[UUID, int]:
    """
    Write down the moves of a plan that are still to be done, and return the number that stands for them, and how many.

    Raises:
        RebalanceError: the plan is not for this bucket map, or a bucket of it is moving already.
    """
    number = uuid4()
    try:
        with transaction(control) as cursor:
            moves = _remaining(plan, _map(cursor))
            cursor.executemany(
                "INSERT INTO sharding_move (plan, bucket, source, target, phase, wanted, generation, rows, bytes, "
                "copied, noted, planned, changed, error, failures) "
                "VALUES (%s, %s, %s, %s, 'planned', 'go', 0, %s, %s, 0, 0, now(), now(), '', 0)",
                [(number, move.bucket, move.source, move.target, move.rows, move.bytes) for move in moves],
            )
    except errors.UniqueViolation as error:
        raise RebalanceError(
            f"A bucket of this plan is moving already ({error.diag.message_detail}). "
            f"Let the moves that have begun end, or abort them, and make a new plan."
        ) from error
    return number, len(moves)


def wish(control: Session, wanted: Wanted, *, plan: UUID | None = None, buckets: Collection[int] = ()) -> list[int]:
    """
    Say what is wanted of moves that are not over, and return the buckets of those of which it can be.

    What is to be given up or taken back goes on or rests only if its bucket is named; else it is tried again at once.
    """
    conditions, values = ["phase <> ALL(%s)"], [["done", "aborted"]]
    kept = _KEPT.get(wanted, ()) if not buckets else ()
    parameters: list[Any] = [[str(each) for each in kept], str(wanted), *values]
    if wanted in _HEEDED:
        conditions.append("phase = ANY(%s)")
        parameters.append([str(phase) for phase in _HEEDED[wanted]])
    if plan is not None:
        conditions.append("plan = %s")
        parameters.append(plan)
    if buckets:
        conditions.append("bucket = ANY(%s)")
        parameters.append(list(buckets))
    with transaction(control) as cursor:
        cursor.execute(
            f"UPDATE sharding_move SET wanted = CASE WHEN wanted = ANY(%s) THEN wanted ELSE %s END, retry_at = NULL "
            f"WHERE id IN (SELECT id FROM sharding_move WHERE {' AND '.join(conditions)} ORDER BY id FOR UPDATE) "
            f"RETURNING bucket, wanted",
            parameters,
        )
        return sorted(bucket for bucket, what in cursor.fetchall() if what == wanted or wanted is Wanted.GO)


def _remaining(plan: Plan, bucket_map: BucketMap) -> Any:
    try:
        return remaining(plan, bucket_map)
    except ValueError as error:
        raise RebalanceError(str(error)) from error


def _map(cursor: Cursor) -> BucketMap:
    # Locked, so that no decision comes in between.
    cursor.execute("SELECT epoch FROM sharding_cluster FOR SHARE")
    ((epoch,),) = cursor.fetchall()
    cursor.execute("SELECT shard FROM sharding_bucket ORDER BY bucket")
    return BucketMap(epoch, tuple(shard for (shard,) in cursor.fetchall()))
