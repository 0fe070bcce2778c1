"""
What a mover does in the steps up to the decision, and in those of an abort.

Why, is said in sharding.rebalance.undecided_steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from sharding.bucket_states import BucketState
from sharding.rebalance import late_notes, progress, sequences, standbys, stored_moves, tables, throttle
from sharding.rebalance import undecided_steps as steps
from sharding.rebalance.attempt import Attempt
from sharding.rebalance.capturing import Drained
from sharding.rebalance.copying import Pace
from sharding.rebalance.fences import change, change_behind
from sharding.rebalance.phases import Phase
from sharding.rebalance.progress import Progress
from sharding.rebalance.purging import Purge
from sharding.rebalance.sessions import Cursor, transaction
from sharding.rebalance.steps import Step
from sharding.rebalance.verifying import verify

#: Notes that may be left when the source is closed; they are taken over then.
FEW = 200
#: Seconds for which notes are taken over at most before the source is closed, however many come.
LONGEST = 30.0


def begin(attempt: Attempt, step: Step) -> None:
    tables.require_alike(attempt.sessions.source, attempt.sessions.target)
    move = attempt.move
    with transaction(attempt.control) as cursor:
        stored_moves.set_phase(cursor, attempt.control.alias, move, Phase.PREPARING, "begun = now(), error = ''")
        stored_moves.note_clean_up(cursor, move, rows=move.target, notes=move.source)


def prepare(attempt: Attempt, step: Step) -> None:
    change(attempt, step)
    _purge(attempt, {BucketState.IMPORTING})
    attempt.record(step)


def capture(attempt: Attempt, step: Step) -> None:
    def act(cursor: Cursor) -> None:
        cursor.execute(
            "DELETE FROM sharding_dirty WHERE bucket = %s AND EXISTS "
            "(SELECT FROM sharding_fence WHERE bucket = %s AND state = 'owned')",
            [attempt.move.bucket, attempt.move.bucket],
        )

    change_behind(attempt, step, act)
    attempt.record(step)


def copy(attempt: Attempt, step: Step) -> None:
    options = attempt.options
    pace = Pace(budget=options.chunk, rows_per_second=options.rows_per_second)
    while True:
        attempt.look_up()
        copied = attempt.carrier.copy(attempt.sessions, attempt.facts, pace)
        attempt.copied += copied.rows
        if copied.table is None:
            break
        throttle.rest(attempt, copied.seconds)
    attempt.record(step, "copied = copied + %s", attempt.copied)
    attempt.copied = 0


def reopen(attempt: Attempt, step: Step) -> None:
    """Say that every row is copied, in the same transaction: they are what the source had when it let go."""

    def act(cursor: Cursor) -> None:
        progress.write_all(cursor, attempt.facts, dict.fromkeys(attempt.tables, Progress(done=True)))

    change(attempt, step, act)


def catch_up(attempt: Attempt, step: Step) -> None:
    begun = time.monotonic()
    while True:
        attempt.look_up()
        drained = attempt.carrier.take_over(attempt.sessions, attempt.facts)
        attempt.noted = drained.left
        if drained.left + drained.done <= FEW or time.monotonic() - begun > LONGEST:
            break
    sequences.carry_over(attempt)
    attempt.record(step, "noted = %s", attempt.noted)


def compare(attempt: Attempt, step: Step) -> None:
    report = verify(attempt.sessions, attempt.facts, pause=attempt.look_up)
    attempt.written = {}
    stored_moves.set_report(attempt.control, attempt.move, report)
    attempt.record(step)


def fence(attempt: Attempt, step: Step) -> None:
    # What has been written since the comparison goes over first, so that little is left while nobody can write.
    begun = time.monotonic()
    while (drained := _take_over(attempt)).done + drained.left > FEW and time.monotonic() - begun < LONGEST:
        attempt.look_up()

    def act(cursor: Cursor) -> None:
        # Not while others write, for whom the barrier waits, and gives way, several times perhaps.
        attempt.closed = time.monotonic()

    change_behind(attempt, step, act)
    attempt.record(step)


def unfence(attempt: Attempt, step: Step) -> None:
    change(attempt, step)
    attempt.closed = attempt.written = None
    attempt.record(step)


def decide(attempt: Attempt, step: Step) -> None:
    """Open the source again instead, if this attempt has not compared the rows, or cannot be through in time."""
    if attempt.written is None or attempt.closed is None:
        unfence(attempt, steps.Unfence())
        return
    lsn = standbys.position(attempt.sessions.source)
    # The barrier has passed: no more notes come.
    while _take_over(attempt).left:
        if _takes_too_long(attempt):
            unfence(attempt, steps.Unfence())
            return
    verify(attempt.sessions, attempt.facts, only=attempt.written)
    sequences.carry_over(attempt)
    while not standbys.have(attempt.sessions.source, lsn):
        if _takes_too_long(attempt):
            unfence(attempt, steps.Unfence())
            return
        time.sleep(0.005)

    def committing() -> None:
        attempt.deciding = True

    epoch = stored_moves.decide(attempt.control, attempt.move, committing=committing)
    attempt.move = replace(attempt.move, phase=Phase.DECIDED, epoch=epoch)


def abort(attempt: Attempt, step: Step) -> None:
    attempt.record(step)


def restore(attempt: Attempt, step: Step) -> None:
    def act(cursor: Cursor) -> None:
        cursor.execute("DELETE FROM sharding_dirty WHERE bucket = %s", [attempt.move.bucket])

    change(attempt, step, act)


def clear(attempt: Attempt, step: Step) -> None:
    _purge(attempt, {BucketState.IMPORTING, BucketState.MOVED})
    change(attempt, step)


def close_aborted(attempt: Attempt, step: Step) -> None:
    late_notes.delete(attempt.sessions.source, attempt.move.bucket, attempt.look_up)
    stored_moves.close(attempt.control, attempt.move, Phase.ABORTED)


def _purge(attempt: Attempt, states: set[BucketState]) -> None:
    Purge(attempt.sessions.target, attempt.facts, states, pause=attempt.look_up).run()


def _take_over(attempt: Attempt) -> Drained:
    """Take some notes over, and keep in mind what they named."""
    drained = attempt.carrier.take_over(attempt.sessions, attempt.facts)
    if attempt.written is not None:
        for table, keys in dict(drained.keys).items():
            attempt.written.setdefault(table, set()).update(keys)
    return drained


def _takes_too_long(attempt: Attempt) -> bool:
    assert attempt.closed is not None
    return time.monotonic() - attempt.closed > attempt.options.fenced


#: What is done in each step.
ACTIONS: dict[type[Step], Callable[[Attempt, Step], None]] = {
    steps.Begin: begin,
    steps.Prepare: prepare,
    steps.Capture: capture,
    steps.Copy: copy,
    steps.Reopen: reopen,
    steps.CatchUp: catch_up,
    steps.Verify: compare,
    steps.Fence: fence,
    steps.Unfence: unfence,
    steps.Decide: decide,
    steps.Abort: abort,
    steps.Restore: restore,
    steps.Clear: clear,
    steps.CloseAborted: close_aborted,
}
