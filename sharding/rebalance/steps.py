"""
What a step of a move is. Each says what it changes, on what condition, and what happens if its mover is killed then.

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
