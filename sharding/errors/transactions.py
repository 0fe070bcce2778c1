"""
Blocks over several databases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sharding.errors.base import ShardingError


class CrossShardTransaction(ShardingError):
    """One transaction wrote to several databases; all of it was rolled back."""

    aliases: Sequence[str]


class PartialCommit(ShardingError):
    """Some databases have committed their part of a write and others have not."""

    committed: Sequence[str]
    failed: Mapping[str, BaseException]
    rolled_back: Sequence[str]
    in_doubt: Sequence[str]
    compensated: bool


class CannotCompensate(ShardingError):
    """A function or an argument that another process could not call again after a crash."""

    function: str


class BlockAborted(ShardingError):
    """Somebody who found this block undecided for too long has decided that it is rolled back."""

    transaction: str


class CommitInDoubt(ShardingError):
    """The control database was lost in the instant of the decision, and cannot be asked what it was."""

    transaction: str
