"""
Changes of a bucket's state by an attempt: as its step declares, or not at all.
"""

from __future__ import annotations

from collections.abc import Callable

from sharding.errors import Superseded
from sharding.fence import barrier
from sharding.rebalance.attempt import Attempt
from sharding.rebalance.sessions import Cursor, Session, transaction
from sharding.rebalance.steps import Step
from sharding.rebalance.stored_moves import StoredMove
from sharding.rebalance.undecided_steps import Unfence

Act = Callable[[Cursor], None]


def _nothing(cursor: Cursor) -> None:
    pass


def change(attempt: Attempt, step: Step, act: Act = _nothing, *, epoch: int = 0, forward: str = "") -> None:
    """
    Compare and set the state of the bucket at the step's shard; before it, in the same transaction, ``act``.

    Raises:
        Superseded: the fence is not as the step expects it.
    """
    with transaction(attempt.at(step)) as cursor:
        _change(cursor, attempt, step, act, epoch, forward)


def change_behind(attempt: Attempt, step: Step, act: Act = _nothing) -> None:
    """
    Do the same behind the bucket's barrier: all who have written it have ended.

    Raises:
        psycopg.errors.LockNotAvailable: one of them does not end.
    """
    session = attempt.at(step)
    barrier.behind(session.connection, attempt.move.bucket, lambda cursor: _change(cursor, attempt, step, act, 0, ""))


def reopen(session: Session, move: StoredMove) -> bool:
    """Let the source be written again, and return whether it can be: no later attempt has it in hand."""
    with transaction(session) as cursor:
        return barrier.change(cursor, move.bucket, move.generation, Unfence.before, Unfence.after)


def claim(session: Session, bucket: int, generation: int) -> None:
    """Let one fence know the attempt, so that no older one changes anything there; a later one is left alone."""
    session.connection.execute(
        "UPDATE sharding_fence SET generation = %s WHERE bucket = %s AND generation < %s",
        [generation, bucket, generation],
    )


def _change(cursor: Cursor, attempt: Attempt, step: Step, act: Act, epoch: int, forward: str) -> None:
    move, session = attempt.move, attempt.at(step)
    act(cursor)
    if not barrier.change(cursor, move.bucket, move.generation, step.before, step.after, epoch=epoch, forward=forward):
        raise Superseded(
            f"Bucket {move.bucket} on {session.alias!r} is no longer as attempt {move.generation} has seen it. "
            f"Leave the move to whoever has it.",
            bucket=move.bucket,
            alias=session.alias,
            generation=move.generation,
            found=None,
            state=None,
        )
