"""
What every step of a move is told: which bucket, which attempt, which tables; and what a step may expect of the fences.
"""

from __future__ import annotations

from dataclasses import dataclass

from sharding.bucket_states import BucketState
from sharding.errors import RebalanceError
from sharding.rebalance.tables import Table

#: States in which rows of a bucket are copied from a shard: while it is written, and when it no longer is.
GIVING = frozenset({BucketState.CAPTURING, BucketState.FENCED})
#: The state in which rows are copied to a shard.
GETTING = frozenset({BucketState.IMPORTING})


@dataclass(frozen=True, slots=True)
class MoveFacts:
    """A bucket on its way, and the attempt that is at work."""

    bucket: int
    generation: int
    #: Those to which others refer come first.
    tables: tuple[Table, ...]

    def table(self, name: str) -> Table:
        """Return a table by its name, or raise RebalanceError."""
        for each in self.tables:
            if each.name == name:
                return each
        raise RebalanceError(
            f"Rows of {name} in bucket {self.bucket} were written meanwhile, and it is no table of a sharded model. "
            f"Start the mover again with the code that the application runs."
        )
