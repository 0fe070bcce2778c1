"""
Changes of buckets' states by an attempt: as its step declares, or not at all.
"""

from __future__ import annotations

from collections.abc import Callable

from sharding.errors import Superseded
from sharding.fence import barrier
from sharding.rebalance.attempt import Attempts, Round, buckets_named, buckets_of
from sharding.rebalance.sessions import Cursor, Session, transaction
from sharding.rebalance.steps import Step
from sharding.rebalance.stored_moves import StoredMove
from sharding.rebalance.undecided_steps import Unfence

Act = Callable[[Cursor], None]


def _nothing(cursor: Cursor) -> None:
    pass


def change(
    work: Round, attempts: Attempts, step: Step, act: Act = _nothing, *, epoch: int = 0, forward: str = ""
) -> None:
    """
    Compare and set the state of buckets at the step's shard; before it, in the same transaction, ``act``.

    Raises:
        Superseded: the fence is not as the step expects it. None has changed then.
    """
    with transaction(work.at(step)) as cursor:
        _change(cursor, work, attempts, step, act, epoch, forward)


def change_one_by_one(
    work: Round, attempts: Attempts, step: Step, act: Callable[[Cursor, int], None] = lambda cursor, bucket: None
) -> None:
    """
    Do the same in a transaction for each bucket, where the application may be writing them.

    Under REPEATABLE READ it locks the fence's rows, in the order of its own writes: who has one of them and waits for
    another one must not meet a transaction that has this other one and waits for the first.
    """
    for attempt in attempts:
        change(work, [attempt], step, lambda cursor, bucket=attempt.move.bucket: act(cursor, bucket))  # type: ignore[misc]


def change_behind(work: Round, attempts: Attempts, step: Step, act: Act = _nothing) -> None:
    """
    Do the same behind the buckets' barrier: all who have written one of them have ended.

    Raises:
        psycopg.errors.LockNotAvailable: one of them does not end.
        psycopg.errors.QueryCanceled: several of them do not.
    """
    barrier.behind(
        work.at(step).connection,
        buckets_of(attempts),
        lambda cursor: _change(cursor, work, attempts, step, act, 0, ""),
    )


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


def _change(cursor: Cursor, work: Round, attempts: Attempts, step: Step, act: Act, epoch: int, forward: str) -> None:
    buckets, generation = buckets_of(attempts), attempts[0].move.generation
    act(cursor)
    if not barrier.change(cursor, buckets, generation, step.before, step.after, epoch=epoch, forward=forward):
        alias, named = work.at(step).alias, buckets_named(attempts)
        raise Superseded(
            f"{named[0].upper()}{named[1:]} on {alias!r} is no longer as attempt {generation} has seen it. "
            f"Leave the move to whoever has it.",
            bucket=buckets[0],
            alias=alias,
            generation=generation,
            found=None,
            state=None,
        )
