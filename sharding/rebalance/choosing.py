"""
Which step comes next in a round, and which of its moves take it together.

Each move is looked at by itself. Those of which the same step is next in the same phase go on at once; the others wait
until these have come as far, or are through.
"""

from __future__ import annotations

import logging

from sharding.errors import MoveConflict, Superseded
from sharding.rebalance import failing, stored_moves
from sharding.rebalance.attempt import CLOSED, Attempt, Attempts, Round, moves_of
from sharding.rebalance.decided_steps import Own
from sharding.rebalance.move_state import Seen, next_step
from sharding.rebalance.phases import Phase, Wanted
from sharding.rebalance.seeing import see
from sharding.rebalance.steps import Claim, Step
from sharding.rebalance.undecided_steps import Decide, Fence, Restore

logger = logging.getLogger("sharding")

#: Seconds until a move is looked at again whose window is over, while old statements are running.
LOOK_AGAIN = 1.0


def choose(work: Round) -> tuple[Step, Attempts] | None:
    """Return the step that comes first, and all moves of which it is the next one; None if there is none."""
    due: dict[tuple[Step, Phase, int | None], list[Attempt]] = {}
    for attempt, seen in see(work):
        step = _next_step(work, attempt, seen)
        if step is not None:
            due.setdefault((step, attempt.move.phase, attempt.move.epoch), []).append(attempt)
            continue
        attempt.rests = True
        if attempt.begun_in is attempt.move.phase is Phase.WINDOW:
            # It was due, but for what others are reading.
            stored_moves.rest(work.control, attempt.move, LOOK_AGAIN)
    if not due:
        return None
    (step, _, _), attempts = min(due.items(), key=lambda each: urgency(*each[0][:2]))
    return step, attempts


def at_once(step: Step, attempts: Attempts) -> Step | None:
    """
    Return what follows a step for sure, so that nobody has to wait until the mover has looked; None for any other.

    Each step compares what it changes, and so finds out that another attempt has taken over.
    """
    moves = moves_of(attempts)
    if isinstance(step, Fence) and all(move.phase is Phase.FINISHING and move.wanted is Wanted.GO for move in moves):
        return Decide()
    return Own() if isinstance(step, Decide) and all(move.phase is Phase.DECIDED for move in moves) else None


def urgency(step: Step, phase: Phase) -> tuple[int, int]:
    """Return a number for the step of moves in a phase: among several steps that of the lowest comes first."""
    # Everything depends on claims. Then those for which the application waits; and then the last, up to the others.
    if isinstance(step, Claim):
        return 0, 0
    is_closed = phase in CLOSED or isinstance(step, Restore)
    return (1 if is_closed else 2), [*Phase].index(phase)


def _next_step(work: Round, attempt: Attempt, seen: Seen | Superseded) -> Step | None:
    """Return what comes next for a move; None also if nothing may be done with it, which concerns no other one."""
    try:
        if isinstance(seen, Superseded):
            raise seen
        return next_step(seen)
    except Superseded as error:
        logger.info("%s", error)
    except MoveConflict as error:
        # Whatever is done now may be wrong.
        failing.retry_later(work.control, attempt.move, error)
    return None
