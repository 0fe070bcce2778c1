"""
The steps after the decision: the bucket is the target's, and there is no way but forward; see sharding.rebalance.steps.
"""

from __future__ import annotations

from dataclasses import dataclass

from sharding.bucket_states import BucketState
from sharding.rebalance.phases import Phase
from sharding.rebalance.steps import ABSENT, Side, Step


@dataclass(frozen=True)
class Own(Step):
    """
    Make the bucket `capturing` on the target, with the new epoch: it is written there, and noted for a rollback.

    Condition: `importing`, or already `capturing`; decided.
    Killed: repeated.
    """

    at = Side.TARGET
    before = frozenset({BucketState.IMPORTING, BucketState.CAPTURING})
    after = BucketState.CAPTURING
    leads_to = Phase.OWNING


@dataclass(frozen=True)
class Forward(Step):
    """
    Make the bucket `moved` on the source, with the name of the target for those who come with an old map.

    Condition: `fenced`, or already `moved`; the target has the bucket.
    Killed: repeated.
    """

    at = Side.SOURCE
    before = frozenset({BucketState.FENCED, BucketState.MOVED})
    after = BucketState.MOVED
    leads_to = Phase.FORWARDING


@dataclass(frozen=True)
class Announce(Step):
    """
    Tell every process of the new map, and write down until when the move can be taken back.

    Killed: repeated; a process that is not told finds out within `MAP_TTL`, or when it is refused.
    """

    leads_to = Phase.WINDOW


@dataclass(frozen=True)
class Reverse(Step):
    """
    End this move and begin one back, in one transaction of the control database.

    Its row has the shards exchanged, the attempt's generation and the phase `catching_up`: nothing needs to be copied.
    Condition: phase `window`, own generation; no map from before the decision is in use, so that nobody reads the rows
    of the source while they change.
    Killed: the next mover finds the new move.
    """

    leads_to = Phase.DONE


@dataclass(frozen=True)
class EndWindow(Step):
    """
    Record that the move cannot be taken back any more.

    Condition: the window is over, and no map from before the decision is in use: `MAP_TTL` has passed since the source
    forwards, and the statements that were running then have ended.
    Killed: the purge begins.
    """

    leads_to = Phase.PURGING


@dataclass(frozen=True)
class Settle(Step):
    """
    Make the bucket `owned` on the target, and delete what was noted for a rollback.

    Condition: `capturing`, own generation.
    Killed: what is left of the notes belongs to no move, and is deleted before the move is done.
    """

    at = Side.TARGET
    before = frozenset({BucketState.CAPTURING, BucketState.OWNED})
    after = BucketState.OWNED


@dataclass(frozen=True)
class Purge(Step):
    """
    Delete the rows of the bucket on the source, children first, in batches, and then its row in the fence.

    The fence's row goes last, since rows of a bucket without one would be seen again.
    Condition, in each transaction: `moved`, own generation. Or `importing`, where the bucket has come back, and an
    attempt from before its first departure has slept until now and made a row.
    Killed: repeated.
    """

    at = Side.SOURCE
    before = frozenset({BucketState.MOVED, BucketState.IMPORTING})
    after = ABSENT


@dataclass(frozen=True)
class Close(Step):
    """
    Record that the move is done, when those have ended who may be taking notes for a rollback: they are deleted.

    Killed: repeated.
    """

    leads_to = Phase.DONE
