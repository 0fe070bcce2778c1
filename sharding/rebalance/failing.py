"""
What becomes of a move whose step has failed: tried again later, given up, or opened again at once.
"""

from __future__ import annotations

import logging

import psycopg

from sharding.errors import RebalanceError
from sharding.rebalance import stored_moves, undecided_actions
from sharding.rebalance.attempt import Attempt
from sharding.rebalance.phases import UNDECIDED, Phase, Wanted
from sharding.rebalance.sessions import Session
from sharding.rebalance.stored_moves import StoredMove
from sharding.rebalance.undecided_steps import Unfence

logger = logging.getLogger("sharding")

#: Seconds until the next attempt, after so many failures; the last for all later ones.
PAUSES = (1.0, 2.0, 5.0, 15.0, 60.0)


def retry_later(control: Session, move: StoredMove, error: Exception) -> None:
    """Write into the move's row what has failed, and when it is tried again."""
    pause = PAUSES[min(move.failures, len(PAUSES) - 1)]
    logger.warning("The move of bucket %d from %s to %s failed, and is tried again in %g s: %s",
                   move.bucket, move.source, move.target, pause, error)  # fmt: skip
    control.connection.execute(
        "UPDATE sharding_move SET error = %s, failures = failures + 1, changed = now(), "
        "retry_at = now() + make_interval(secs => %s) WHERE id = %s AND generation = %s",
        [str(error), pause, move.id, move.generation],
    )


def give_up(control: Session, move: StoredMove, error: RebalanceError) -> None:
    """Let a move be aborted whose rows cannot go over, and keep the reason; after the decision it only waits."""
    logger.error("The move of bucket %d from %s to %s is given up: %s", move.bucket, move.source, move.target, error)
    control.connection.execute(
        "UPDATE sharding_move SET error = %s, failures = failures + 1, changed = now(), "
        "wanted = CASE WHEN phase = ANY(%s) THEN %s ELSE wanted END WHERE id = %s AND generation = %s",
        [str(error), [str(each) for each in UNDECIDED], str(Wanted.ABORT), move.id, move.generation],
    )


def open_again(attempt: Attempt) -> None:
    """Let the bucket be written on the source again, if nobody can and nothing is decided: the application waits."""
    try:
        attempt.move = stored_moves.read(attempt.control, attempt.move.id).move
        if attempt.move.phase in {Phase.FENCING, Phase.FINISHING}:
            undecided_actions.unfence(attempt, Unfence())
    except (psycopg.Error, RebalanceError, OSError) as error:
        logger.warning("Bucket %d may be closed on %s until the next attempt: %s",
                       attempt.move.bucket, attempt.move.source, error)  # fmt: skip
