"""
What a mover does in the steps up to the decision, and in those of an abort.

Why, is said in sharding.rebalance.undecided_steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from sharding.bucket_states import BucketState
from sharding.rebalance import late_notes, progress, sequences, standbys, stored_moves, tables, throttle, upkeep
from sharding.rebalance import undecided_steps as steps
from sharding.rebalance.attempt import Attempt, Attempts, Round, buckets_of, facts_of, moves_of
from sharding.rebalance.copying import Pace
from sharding.rebalance.fences import change, change_behind, change_one_by_one
from sharding.rebalance.phases import Phase
from sharding.rebalance.progress import Progress
from sharding.rebalance.purging import Purge
from sharding.rebalance.sessions import Cursor, transaction
from sharding.rebalance.steps import Step
from sharding.rebalance.verifying import large_tables, verify_all, verify_numbers, verify_rest

#: Notes that may be left when the source is closed; they are taken over then.
FEW = 200
#: Seconds for which notes are taken over at most before the source is closed, however many come.
LONGEST = 30.0


def begin(work: Round, attempts: Attempts, step: Step) -> None:
    tables.require_alike(work.sessions.source, work.sessions.target)
    moves = moves_of(attempts)
    with transaction(work.control) as cursor:
        stored_moves.set_phase(cursor, work.control.alias, moves, Phase.PREPARING, "begun = now(), error = ''")
        stored_moves.note_clean_up(cursor, moves, rows=work.sessions.target.alias, notes=work.sessions.source.alias)


def prepare(work: Round, attempts: Attempts, step: Step) -> None:
    change(work, attempts, step)
    _purge(work, attempts, {BucketState.IMPORTING})
    work.record(attempts, step)


def capture(work: Round, attempts: Attempts, step: Step) -> None:
    def act(cursor: Cursor) -> None:
        cursor.execute(
            "DELETE FROM sharding_dirty WHERE bucket IN "
            "(SELECT bucket FROM sharding_fence WHERE bucket = ANY(%s) AND state = 'owned')",
            [buckets_of(attempts)],
        )

    change_behind(work, attempts, step, act)
    work.record(attempts, step)


def copy(work: Round, attempts: Attempts, step: Step) -> None:
    """One bucket after the other; what is copied of those that are through stays, whatever becomes of the next."""
    for attempt in attempts:
        _copy(work, attempt)
    target = work.sessions.target
    upkeep.analyze(target, progress.large_tables(target.connection.cursor(), buckets_of(attempts)), work.look_up)
    # How many rows those were.
    work.give_signs()
    work.record(attempts, step)


def reopen(work: Round, attempts: Attempts, step: Step) -> None:
    """Say that every row is copied, in the same transaction: they are what the source had when it let go."""

    def act(cursor: Cursor) -> None:
        for attempt in attempts:
            progress.write_all(cursor, attempt.facts, dict.fromkeys(attempt.tables, Progress(done=True)))

    change(work, attempts, step, act)


def catch_up(work: Round, attempts: Attempts, step: Step) -> None:
    _catch_up(work, attempts)
    sequences.carry_over(work.sessions, attempts[0].tables, work.look_up)
    work.give_signs()
    work.record(attempts, step)


def compare(work: Round, attempts: Attempts, step: Step) -> None:
    reports = verify_all(work.sessions, facts_of(attempts), pause=work.look_up)
    for attempt in attempts:
        attempt.written = {}
        attempt.large = large_tables(reports[attempt.move.bucket])
    stored_moves.set_reports(work.control, [(attempt.move, reports[attempt.move.bucket]) for attempt in attempts])
    work.record(attempts, step)


def fence(work: Round, attempts: Attempts, step: Step) -> None:
    # What has been written since the comparison goes over first, so that little is left while nobody can write.
    _catch_up(work, attempts)
    for attempt in attempts:
        if attempt.large:
            verify_numbers(work.sessions, attempt.facts, attempt.large, pause=work.look_up)
            _catch_up(work, attempts)

    def act(cursor: Cursor) -> None:
        # Not while others write, for whom the barrier waits, and gives way, several times perhaps.
        now = time.monotonic()
        for attempt in attempts:
            attempt.closed = now

    change_behind(work, attempts, step, act)
    work.record(attempts, step)


def unfence(work: Round, attempts: Attempts, step: Step) -> None:
    change(work, attempts, step)
    for attempt in attempts:
        attempt.closed = attempt.written = None
    work.record(attempts, step)


def decide(work: Round, attempts: Attempts, step: Step) -> None:
    """
    Open the source again instead, if a bucket's rows have not been compared, or not all can be through in time.

    The buckets change hands together: in one transaction, with one epoch.
    """
    if any(attempt.written is None or attempt.closed is None for attempt in attempts):
        unfence(work, attempts, steps.Unfence())
        return
    lsn = standbys.position(work.sessions.source)
    # The barrier has passed: no more notes come.
    while _take_over(work, attempts):
        if _takes_too_long(work, attempts):
            unfence(work, attempts, steps.Unfence())
            return
    rest = [(attempt.facts, attempt.written or {}) for attempt in attempts]
    verify_rest(work.sessions, rest, {attempt.move.bucket: attempt.large for attempt in attempts})
    sequences.carry_over(work.sessions, attempts[0].tables, work.look_up)
    while not standbys.have(work.sessions.source, lsn):
        if _takes_too_long(work, attempts):
            unfence(work, attempts, steps.Unfence())
            return
        time.sleep(0.005)

    def committing() -> None:
        work.deciding = True

    epoch = stored_moves.decide(work.control, moves_of(attempts), committing=committing)
    for attempt in attempts:
        attempt.move = replace(attempt.move, phase=Phase.DECIDED, epoch=epoch)


def abort(work: Round, attempts: Attempts, step: Step) -> None:
    work.record(attempts, step)


def restore(work: Round, attempts: Attempts, step: Step) -> None:
    def act(cursor: Cursor, bucket: int) -> None:
        cursor.execute("DELETE FROM sharding_dirty WHERE bucket = %s", [bucket])

    change_one_by_one(work, attempts, step, act)


def clear(work: Round, attempts: Attempts, step: Step) -> None:
    _purge(work, attempts, {BucketState.IMPORTING, BucketState.MOVED})
    change(work, attempts, step)


def close_aborted(work: Round, attempts: Attempts, step: Step) -> None:
    late_notes.delete(work.sessions.source, buckets_of(attempts), work.look_up)
    stored_moves.close(work.control, moves_of(attempts), Phase.ABORTED)


def _purge(work: Round, attempts: Attempts, states: set[BucketState]) -> None:
    Purge(work.sessions.target, facts_of(attempts), states, pause=work.look_up).run()


def _copy(work: Round, attempt: Attempt) -> None:
    options = work.options
    pace = Pace(budget=options.chunk, rows_per_second=options.rows_per_second)
    while True:
        work.look_up()
        copied = work.carrier.copy(work.sessions, attempt.facts, pace)
        attempt.copied += copied.rows
        if copied.table is None:
            return
        throttle.rest(work, copied.seconds)


def _catch_up(work: Round, attempts: Attempts) -> None:
    """Take notes over until few are left."""
    begun = time.monotonic()
    work.look_up()
    while _take_over(work, attempts) > FEW and time.monotonic() - begun < LONGEST:
        work.look_up()


def _take_over(work: Round, attempts: Attempts) -> int:
    """
    Take some notes over, and keep in mind what they named; return how many there were.

    None is left if there was none.
    """
    found = 0
    written = work.carrier.written(work.sessions.source, buckets_of(attempts))
    for attempt in attempts:
        attempt.noted = 0
        if attempt.move.bucket in written:
            drained = work.carrier.take_over(work.sessions, attempt.facts)
            attempt.noted = drained.left
            found += drained.done + drained.left
            if attempt.written is not None:
                for table, keys in dict(drained.keys).items():
                    attempt.written.setdefault(table, set()).update(keys)
    return found


def _takes_too_long(work: Round, attempts: Attempts) -> bool:
    return any(
        attempt.closed is not None and time.monotonic() - attempt.closed > work.options.fenced for attempt in attempts
    )


#: What is done in each step, for moves that are in the same phase.
ACTIONS: dict[type[Step], Callable[[Round, Attempts, Step], None]] = {
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
