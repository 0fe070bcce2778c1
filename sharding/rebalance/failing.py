"""
What becomes of a move whose step has failed: tried again later, given up, or opened again at once.
"""

from __future__ import annotations

import logging

import psycopg

from sharding.errors import RebalanceError
from sharding.rebalance import fences, stored_moves
from sharding.rebalance.attempt import CLOSED
from sharding.rebalance.phases import UNDECIDED, Phase, Wanted
from sharding.rebalance.sessions import Session
from sharding.rebalance.stored_moves import StoredMove

logger = logging.getLogger("sharding")

#: Seconds until the next attempt, after so many failures; the last for all later ones.
PAUSES = (1.0, 2.0, 5.0, 15.0, 60.0)


def said(error: Exception) -> str:
    """Return what has gone wrong, without the details in which PostgreSQL shows the values of rows."""
    return (isinstance(error, psycopg.Error) and error.diag.message_primary) or str(error)


def retry_later(control: Session, move: StoredMove, error: Exception) -> None:
    """Write into the move's row what has failed, and when it is tried again."""
    pause = PAUSES[min(move.failures, len(PAUSES) - 1)]
    # Where nobody can write the bucket meanwhile, it is never left alone for long.
    control.connection.execute(
        "UPDATE sharding_move SET error = %s, failures = failures + 1, changed = now(), "
        "retry_at = now() + make_interval(secs => CASE WHEN phase = ANY(%s) THEN %s ELSE %s END) "
        "WHERE id = %s AND generation = %s AND phase NOT IN ('done', 'aborted')",
        [said(error), [str(phase) for phase in CLOSED], PAUSES[0], pause, move.id, move.generation],
    )
    logger.warning("The move of bucket %d from %s to %s failed, and is tried again in %g s at most: %s",
                   move.bucket, move.source, move.target, pause, said(error))  # fmt: skip


def can_give_up(move: StoredMove) -> bool:
    """Return whether a move can still be aborted, and is not to be already."""
    return move.phase in UNDECIDED and move.wanted is not Wanted.ABORT


def give_up(control: Session, move: StoredMove, error: Exception) -> None:
    """Let a move be aborted whose rows cannot go over, and keep the reason."""
    logger.error("The move of bucket %d from %s to %s is given up: %s", move.bucket, move.source, move.target, error)
    control.connection.execute(
        "UPDATE sharding_move SET error = %s, failures = failures + 1, changed = now(), wanted = %s "
        "WHERE id = %s AND generation = %s AND phase = ANY(%s)",
        [str(error), str(Wanted.ABORT), move.id, move.generation, [str(each) for each in UNDECIDED]],
    )


def open_again(control: Session, source: Session, move: StoredMove, *, deciding: bool) -> None:
    """
    Let the bucket be written on the source again, if nobody can and nothing is decided: the application waits.

    Args:
        deciding: whether this attempt has sent the decision.
    """
    try:
        closed = _closed(control, move, deciding)
        if closed is not None:
            fences.claim(source, closed.bucket, closed.generation)
            if fences.reopen(source, closed):
                stored_moves.record(control, [closed], Phase.CATCHING_UP)
    except (psycopg.Error, RebalanceError, OSError) as error:
        logger.warning("Bucket %d may be closed on %s until the next attempt: %s",
                       move.bucket, move.source, said(error))  # fmt: skip


def _closed(control: Session, move: StoredMove, deciding: bool) -> StoredMove | None:
    """Return the move's row if it is the attempt's, and its bucket may be closed on the source without need."""
    try:
        found = stored_moves.read_one(control, move.id).move
    except psycopg.Error:
        if deciding:
            raise
        # The fence's generation is enough: whoever decides later has claimed it before.
        found = move
    is_ours = found.generation == move.generation
    return found if is_ours and found.phase in {Phase.FENCING, Phase.FINISHING} else None
