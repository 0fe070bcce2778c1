"""
What a mover sees of its moves before each step: both fences, and the control database last; see move_state.
"""

from __future__ import annotations

from datetime import timedelta

from sharding import conf
from sharding.bucket_states import BucketState
from sharding.errors import Superseded
from sharding.rebalance import stored_moves
from sharding.rebalance.attempt import Attempt, Round, buckets_of
from sharding.rebalance.move_state import FenceRow, Seen
from sharding.rebalance.phases import Phase
from sharding.rebalance.sessions import Session
from sharding.rebalance.stored_moves import Standing

# An age, since the clocks of two servers differ.
_LONGEST = """
SELECT coalesce(max(clock_timestamp() - xact_start), '0') FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'
"""


def see(work: Round) -> list[tuple[Attempt, Seen | Superseded]]:
    """
    Return what is stored about each move that is at work, and let its attempt know the move's row as it is now.

    Of a move that another attempt has taken over, that is all there is to say.
    """
    attempts = work.at_work
    buckets = buckets_of(attempts)
    source, target = fence_rows(work.sessions.source, buckets), fence_rows(work.sessions.target, buckets)
    standing = stored_moves.read(work.control, [attempt.move.id for attempt in attempts])
    windows = any(each.move.phase is Phase.WINDOW for each in standing.values())
    longest = _longest(work.sessions.source) if windows else timedelta()
    found: list[tuple[Attempt, Seen | Superseded]] = []
    for attempt in attempts:
        its, bucket = standing[attempt.move.id], attempt.move.bucket
        # Whatever the row says by now, this attempt acts by its own generation alone.
        if its.move.generation != attempt.move.generation:
            found.append((attempt, stored_moves.superseded(work.control.alias, [attempt.move])))
        else:
            attempt.move = its.move
            found.append((attempt, _seen(its, source.get(bucket), target.get(bucket), longest)))
    return found


def fence_rows(session: Session, buckets: list[int]) -> dict[int, FenceRow]:
    """Return what one shard says of some buckets."""
    found = session.connection.execute(
        "SELECT bucket, state, generation, epoch FROM sharding_fence WHERE bucket = ANY(%s)", [buckets]
    )
    return {bucket: FenceRow(BucketState(state), *rest) for bucket, state, *rest in found.fetchall()}


def _seen(standing: Standing, source: FenceRow | None, target: FenceRow | None, longest: timedelta) -> Seen:
    move = standing.move
    return Seen(
        bucket=move.bucket,
        source=move.source,
        target=move.target,
        phase=move.phase,
        wanted=move.wanted,
        generation=move.generation,
        owner=standing.owner,
        at_source=source,
        at_target=target,
        window_open=move.window_ends is None or standing.now < move.window_ends,
        old_maps=move.phase is Phase.WINDOW and _old_maps(standing, longest),
    )


def _old_maps(standing: Standing, longest: timedelta) -> bool:
    """Return whether somebody may have a map from before the decision, or a statement that was sent by one."""
    announced = standing.move.announced
    if announced is None:
        return True
    past = standing.now - announced - timedelta(seconds=conf.current().map_ttl)
    return past < timedelta() or longest > past


def _longest(source: Session) -> timedelta:
    """Return for how long the oldest transaction of a shard has been open."""
    ((age,),) = source.connection.execute(_LONGEST).fetchall()
    assert isinstance(age, timedelta)
    return age
