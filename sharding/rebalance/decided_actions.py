"""
What a mover does in the steps after the decision; sharding.rebalance.decided_steps says why.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sharding import cluster_map
from sharding.rebalance import decided_steps as steps
from sharding.rebalance import late_notes, stored_moves
from sharding.rebalance.attempt import Attempt
from sharding.rebalance.fences import change
from sharding.rebalance.phases import Phase
from sharding.rebalance.purging import Purge
from sharding.rebalance.sessions import Cursor, transaction
from sharding.rebalance.steps import Step


def own(attempt: Attempt, step: Step) -> None:
    def act(cursor: Cursor) -> None:
        cursor.execute("DELETE FROM sharding_progress WHERE bucket = %s", [attempt.move.bucket])

    change(attempt, step, act, epoch=_epoch(attempt))
    if attempt.closed is not None:
        attempt.gap = time.monotonic() - attempt.closed
    attempt.record(step)


def forward(attempt: Attempt, step: Step) -> None:
    change(attempt, step, epoch=_epoch(attempt), forward=attempt.move.target)
    attempt.record(step)


def announce(attempt: Attempt, step: Step) -> None:
    cluster_map.expire()
    attempt.record(
        step,
        "announced = now(), window_ends = now() + make_interval(secs => %s), gap = %s",
        attempt.options.window,
        attempt.gap,
    )


def reverse(attempt: Attempt, step: Step) -> None:
    stored_moves.reverse(attempt.control, attempt.move)


def end_window(attempt: Attempt, step: Step) -> None:
    control, move = attempt.control, attempt.move
    with transaction(control) as cursor:
        stored_moves.keep_wish(cursor, move)
        stored_moves.set_phase(cursor, control.alias, move, Phase.PURGING)


def settle(attempt: Attempt, step: Step) -> None:
    def act(cursor: Cursor) -> None:
        cursor.execute("DELETE FROM sharding_dirty WHERE bucket = %s", [attempt.move.bucket])

    change(attempt, step, act)


def purge(attempt: Attempt, step: Step) -> None:
    Purge(attempt.sessions.source, attempt.facts, pause=attempt.look_up).run()
    change(attempt, step)


def close(attempt: Attempt, step: Step) -> None:
    late_notes.delete(attempt.sessions.target, attempt.move.bucket, attempt.look_up)
    stored_moves.close(attempt.control, attempt.move, Phase.DONE)


def _epoch(attempt: Attempt) -> int:
    assert attempt.move.epoch is not None
    return attempt.move.epoch


#: What is done in each step.
ACTIONS: dict[type[Step], Callable[[Attempt, Step], None]] = {
    steps.Own: own,
    steps.Forward: forward,
    steps.Announce: announce,
    steps.Reverse: reverse,
    steps.EndWindow: end_window,
    steps.Settle: settle,
    steps.Purge: purge,
    steps.Close: close,
}
