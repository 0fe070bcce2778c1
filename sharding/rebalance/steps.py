"""
The steps of a move. Each says what it changes, on what condition, and what happens if its mover is killed right after.

A step changes the fence of one shard, and then, in a transaction of the control database, the phase. Both compare and
set: the fence's row must have the attempt's generation and one of the states in `before`, the move's row the
attempt's generation and the phase in which the step was chosen. If either is not so, the mover has been overtaken and
stops. Everything done on a shard may be done twice, so a mover that finds the fence changed and the phase not yet
takes the same step again.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from sharding.bucket_states import BucketState
from sharding.rebalance.phases import Phase

#: Where the fence has no row of the bucket.
ABSENT = None


class Side(StrEnum):
    """One of the two shards of a move."""

    SOURCE = "source"
    TARGET = "target"


@dataclass(frozen=True)
class Step:
    """What a mover does next; see the subclasses."""

    #: The shard whose fence is compared and set; None for a step in the control database alone.
    at: ClassVar[Side | None] = None
    #: The states that the bucket may have there, ABSENT for no row.
    before: ClassVar[Set[BucketState | None]] = frozenset()
    #: The state that it has there afterwards, ABSENT for no row.
    after: ClassVar[BucketState | None] = ABSENT
    #: Whether the bucket's exclusive lock is taken first, so that all transactions that wrote the bucket have ended.
    barrier: ClassVar[bool] = False
    #: The phase that is recorded at the end, if any.
    leads_to: ClassVar[Phase | None] = None


@dataclass(frozen=True)
class Claim(Step):
    """
    Write the attempt's generation into the row of one fence, so that no older attempt changes anything there.

    Condition: the row has a lower generation; its state does not matter and stays. The older attempts' sessions are
    ended first: a transaction of theirs would hold the row.
    Killed: the next attempt has a higher generation, and claims both fences again.
    """

    side: Side


@dataclass(frozen=True)
class Begin(Step):
    """
    Make sure that the move is possible: alike tables, triggers, space, no other move of the bucket. Changes nothing.

    Killed: repeated.
    """

    leads_to = Phase.PREPARING


@dataclass(frozen=True)
class Prepare(Step):
    """
    Make the bucket `importing` on the target, and only then delete what rows of it are there, and the copy's progress.

    Condition: no row in the fence, or `importing` with no higher generation.
    Killed: repeated.
    """

    at = Side.TARGET
    before = frozenset({ABSENT, BucketState.IMPORTING})
    after = BucketState.IMPORTING
    leads_to = Phase.CAPTURING


@dataclass(frozen=True)
class Capture(Step):
    """
    Make the bucket `capturing` on the source, behind a barrier: every later write is noted, every earlier one is seen.

    Notes of an earlier move are deleted in the same transaction.
    Condition: `owned`, or already `capturing`.
    Killed: repeated. The application notices nothing.
    """

    at = Side.SOURCE
    before = frozenset({BucketState.OWNED, BucketState.CAPTURING})
    after = BucketState.CAPTURING
    barrier = True
    leads_to = Phase.COPYING


@dataclass(frozen=True)
class Copy(Step):
    """
    Copy the rows, parents first, in chunks by primary key: read one, write it, take over what was noted, then the next.

    The progress of a table is written in the transaction of the rows. Never two of these at once: a chunk that was read
    before a note was taken over, and written after it, would bring the old row back.
    Condition, in each transaction on the target: `importing`, own generation.
    Killed: goes on after the last chunk that was committed.
    """

    at = Side.TARGET
    before = frozenset({BucketState.IMPORTING})
    after = BucketState.IMPORTING
    leads_to = Phase.CATCHING_UP


@dataclass(frozen=True)
class Reopen(Step):
    """
    Make the bucket `importing` where it was `moved`, with the rows that are there: the first step of a rollback.

    They are what the source had when it let go of the bucket, and the target has noted what it wrote since.
    Condition: `moved`, own generation.
    Killed: goes on with what was noted.
    """

    at = Side.TARGET
    before = frozenset({BucketState.MOVED, BucketState.IMPORTING})
    after = BucketState.IMPORTING


@dataclass(frozen=True)
class CatchUp(Step):
    """
    Take over what was noted until little is left: read some notes, then the rows, write them, delete just these notes.

    Never all notes up to a number: one with a lower number may be committed later.
    Condition, in each transaction on the target: `importing`, own generation.
    Killed: notes that were not deleted are taken over again, which changes nothing.
    """

    at = Side.TARGET
    before = frozenset({BucketState.IMPORTING})
    after = BucketState.IMPORTING
    leads_to = Phase.VERIFYING


@dataclass(frozen=True)
class Verify(Step):
    """
    Compare the rows of both shards while the application writes; rows that were noted meanwhile are compared later.

    Killed: repeated.
    """

    leads_to = Phase.FENCING


@dataclass(frozen=True)
class Fence(Step):
    """
    Make the bucket `fenced` on the source, behind a barrier: nobody writes it from here to the end of the decision.

    Condition: `capturing`, or already `fenced`.
    Killed: the source is still the owner. The next mover goes on, or opens it again with Unfence.
    """

    at = Side.SOURCE
    before = frozenset({BucketState.CAPTURING, BucketState.FENCED})
    after = BucketState.FENCED
    barrier = True
    leads_to = Phase.FINISHING


@dataclass(frozen=True)
class Unfence(Step):
    """
    Make the bucket `capturing` again on the source: the move is to pause, or its last part took too long.

    Condition: `fenced`, or already `capturing`; not decided.
    Killed: repeated.
    """

    at = Side.SOURCE
    before = frozenset({BucketState.FENCED, BucketState.CAPTURING})
    after = BucketState.CAPTURING
    leads_to = Phase.CATCHING_UP


@dataclass(frozen=True)
class Decide(Step):
    """
    Take over the last notes, compare, and give the bucket to the target in one transaction of the control database.

    In it, the phase becomes `decided`, the map names the target, and the epoch grows by one.
    Condition: `fenced` on the source and `importing` on the target with the own generation, no note left, the standbys
    of the source have the fence; in the control database, phase `finishing` and the own generation.
    Killed before the commit: as after Fence. Killed after it: the target opens.
    """

    at = Side.SOURCE
    before = frozenset({BucketState.FENCED})
    after = BucketState.FENCED
    leads_to = Phase.DECIDED


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
    Killed: what is left of the notes belongs to no move, and the next move of the bucket deletes it.
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
    Record that the move is done.

    Killed: nothing is left to do.
    """

    leads_to = Phase.DONE


@dataclass(frozen=True)
class Abort(Step):
    """
    Record that the bucket stays where it is.

    Condition: a phase before `decided`, own generation; from here on no attempt can decide.
    Killed: the abort goes on.
    """

    leads_to = Phase.ABORTING


@dataclass(frozen=True)
class Restore(Step):
    """
    Make the bucket `owned` again on the source, and delete what was noted.

    Condition: `capturing` or `fenced`, own generation.
    Killed: the abort goes on.
    """

    at = Side.SOURCE
    before = frozenset({BucketState.CAPTURING, BucketState.FENCED, BucketState.OWNED})
    after = BucketState.OWNED


@dataclass(frozen=True)
class Clear(Step):
    """
    Delete the rows of the bucket on the target, children first, in batches, and then its row in the fence.

    Condition, in each transaction: `importing` (`moved` in a rollback that had hardly begun), own generation.
    Killed: repeated.
    """

    at = Side.TARGET
    before = frozenset({BucketState.IMPORTING, BucketState.MOVED})
    after = ABSENT


@dataclass(frozen=True)
class CloseAborted(Step):
    """
    Record that the move is aborted.

    Killed: nothing is left to do.
    """

    leads_to = Phase.ABORTED
