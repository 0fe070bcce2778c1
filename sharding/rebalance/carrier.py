"""
How rows get from one shard to another while they are written: what a mover needs of it, and the one way there is.

Another way (logical replication, say) would be another class with these methods, which a mover calls one after the
other, never at once.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from sharding.rebalance.capturing import Drained, drain, noted
from sharding.rebalance.copying import Copied, Pace, copy_chunk
from sharding.rebalance.facts import MoveFacts
from sharding.rebalance.sessions import Session, Sessions


class Carrier(Protocol):
    """All may be repeated after any failure, and write only while the fences have the attempt's generation."""

    def copy(self, sessions: Sessions, facts: MoveFacts, pace: Pace) -> Copied:
        """Bring the next rows over; a table of None says that none are left."""

    def take_over(self, sessions: Sessions, facts: MoveFacts) -> Drained:
        """Bring over what was written since, or some of it, and say how much is left and which rows it was about."""

    def written(self, source: Session, buckets: Collection[int]) -> set[int]:
        """Return those of some buckets for which there is something to take over."""


class ByNotes:
    """Triggers note the keys of what is written; chunks of rows go by COPY, and rows that are noted one by one."""

    def copy(self, sessions: Sessions, facts: MoveFacts, pace: Pace) -> Copied:
        return copy_chunk(sessions, facts, pace)

    def take_over(self, sessions: Sessions, facts: MoveFacts) -> Drained:
        return drain(sessions, facts)

    def written(self, source: Session, buckets: Collection[int]) -> set[int]:
        return noted(source, buckets)
