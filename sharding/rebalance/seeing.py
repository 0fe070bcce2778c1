"""
What a mover sees of a move before each step: both fences, and the control database last; see move_state.
"""

from __future__ import annotations

from datetime import timedelta

from sharding import conf
from sharding.bucket_states import BucketState
from sharding.rebalance import stored_moves
from sharding.rebalance.attempt import Attempt
from sharding.rebalance.move_state import FenceRow, Seen
from sharding.rebalance.phases import Phase
from sharding.rebalance.sessions import Session
from sharding.rebalance.stored_moves import Standing

# Ages, since the clocks of two servers differ.
_LONG = """
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
               AND state <> 'idle' AND clock_timestamp() - xact_start > %s)
"""


def see(attempt: Attempt) -> Seen:
    """Return what is stored about an attempt's move, and let the attempt know the move's row as it is now."""
    bucket = attempt.move.bucket
    source, target = fence_row(attempt.sessions.source, bucket), fence_row(attempt.sessions.target, bucket)
    standing = stored_moves.read(attempt.control, attempt.move.id)
    # Whatever the row says by now, this attempt acts by its own generation alone.
    move = standing.move
    if move.generation != attempt.move.generation:
        raise stored_moves.superseded(attempt.control.alias, attempt.move)
    attempt.move = move
    return Seen(
        bucket=bucket,
        source=move.source,
        target=move.target,
        phase=move.phase,
        wanted=move.wanted,
        generation=move.generation,
        owner=standing.owner,
        at_source=source,
        at_target=target,
        window_open=move.window_ends is None or standing.now < move.window_ends,
        old_maps=move.phase is Phase.WINDOW and _old_maps(attempt.sessions.source, standing),
    )


def fence_row(session: Session, bucket: int) -> FenceRow | None:
    """Return what one shard says of a bucket."""
    found = session.connection.execute(
        "SELECT state, generation, epoch FROM sharding_fence WHERE bucket = %s", [bucket]
    ).fetchone()
    return FenceRow(BucketState(found[0]), found[1], found[2]) if found else None


def _old_maps(source: Session, standing: Standing) -> bool:
    """Return whether somebody may have a map from before the decision, or a statement that was sent by one."""
    announced = standing.move.announced
    if announced is None:
        return True
    past = standing.now - announced - timedelta(seconds=conf.current().map_ttl)
    if past < timedelta():
        return True
    ((is_long,),) = source.connection.execute(_LONG, [past]).fetchall()
    return bool(is_long)
