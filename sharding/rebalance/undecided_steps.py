"""
The steps up to the decision, and those of an abort: the bucket is the source's; see sharding.rebalance.steps.
"""

from __future__ import annotations

from dataclasses import dataclass

from sharding.bucket_states import BucketState
from sharding.rebalance.phases import Phase
from sharding.rebalance.steps import ABSENT, Side, Step


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

    MAP_TTL must have passed since the move was recorded, so that processes look for hidden rows (sharding.hidden_rows).
    Without the wait nothing is lost: the target refuses those that do not, and some blocks have to be repeated.

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
    Record that the move is aborted, when those have ended who may be taking notes: they are deleted.

    Killed: repeated.
    """

    leads_to = Phase.ABORTED
