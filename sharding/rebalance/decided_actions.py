"""
What a mover does in the steps after the decision; sharding.rebalance.decided_steps says why.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sharding import cluster_map
from sharding.rebalance import decided_steps as steps
from sharding.rebalance import late_notes, stored_moves
from sharding.rebalance.attempt import Attempts, Round, buckets_of, facts_of, moves_of
from sharding.rebalance.fences import change, change_one_by_one
from sharding.rebalance.phases import Phase
from sharding.rebalance.purging import Purge
from sharding.rebalance.sessions import Cursor, transaction
from sharding.rebalance.steps import Step


def own(work: Round, attempts: Attempts, step: Step) -> None:
    def act(cursor: Cursor) -> None:
        cursor.execute("DELETE FROM sharding_progress WHERE bucket = ANY(%s)", [buckets_of(attempts)])

    change(work, attempts, step, act, epoch=_epoch(attempts))
    now = time.monotonic()
    for attempt in attempts:
        if attempt.closed is not None:
            attempt.gap = now - attempt.closed
    work.record(attempts, step)


def forward(work: Round, attempts: Attempts, step: Step) -> None:
    change(work, attempts, step, epoch=_epoch(attempts), forward=work.sessions.target.alias)
    work.record(attempts, step)


def announce(work: Round, attempts: Attempts, step: Step) -> None:
    cluster_map.expire()
    # Those that were closed together were opened together.
    gaps = [attempt.gap for attempt in attempts if attempt.gap is not None]
    work.record(
        attempts,
        step,
        "announced = now(), window_ends = now() + make_interval(secs => %s), gap = %s",
        work.options.window,
        max(gaps, default=None),
    )


def reverse(work: Round, attempts: Attempts, step: Step) -> None:
    for move in moves_of(attempts):
        stored_moves.reverse(work.control, move)


def end_window(work: Round, attempts: Attempts, step: Step) -> None:
    with transaction(work.control) as cursor:
        stored_moves.keep_wish(cursor, moves_of(attempts))
        stored_moves.set_phase(cursor, work.control.alias, moves_of(attempts), Phase.PURGING)


def settle(work: Round, attempts: Attempts, step: Step) -> None:
    def act(cursor: Cursor, bucket: int) -> None:
        cursor.execute("DELETE FROM sharding_dirty WHERE bucket = %s", [bucket])

    change_one_by_one(work, attempts, step, act)


def purge(work: Round, attempts: Attempts, step: Step) -> None:
    Purge(work.sessions.source, facts_of(attempts), pause=work.look_up).run()
    change(work, attempts, step)


def close(work: Round, attempts: Attempts, step: Step) -> None:
    late_notes.delete(work.sessions.target, buckets_of(attempts), work.look_up)
    stored_moves.close(work.control, moves_of(attempts), Phase.DONE)


def _epoch(attempts: Attempts) -> int:
    epoch = attempts[0].move.epoch
    assert epoch is not None
    return epoch


#: What is done in each step, for moves that are in the same phase.
ACTIONS: dict[type[Step], Callable[[Round, Attempts, Step], None]] = {
    steps.Own: own,
    steps.Forward: forward,
    steps.Announce: announce,
    steps.Reverse: reverse,
    steps.EndWindow: end_window,
    steps.Settle: settle,
    steps.Purge: purge,
    steps.Close: close,
}
