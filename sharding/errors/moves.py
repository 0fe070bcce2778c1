"""
Buckets that are on their way to another shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sharding.errors.base import ShardingError


class BucketRefused(ShardingError):
    """A shard refused to write a bucket that is not its own. The block may be repeated."""

    bucket: int
    alias: str
    state: str


class BucketMoved(BucketRefused):
    """A write was sent to a shard that has given the bucket away."""

    forward: str
    epoch: int


class BucketFenced(BucketRefused):
    """A write was sent to a shard that is about to give the bucket away, or has not got it yet."""


class RebalanceError(ShardingError):
    """A move cannot go on."""


class MoveConflict(RebalanceError):
    """The fences, the bucket map and the phase of a move contradict each other, so that nothing is done."""

    bucket: int
    phase: str
    owner: str
    source_state: str
    target_state: str


class Superseded(RebalanceError):
    """Another attempt at a move has taken over, or its bucket is not in the state that this one expects."""

    bucket: int
    alias: str
    generation: int
    found: int | None
    state: str | None


class PreflightFailed(RebalanceError):
    """Something that was found before the first move stands in the way of it."""

    findings: Sequence[Any]


class TablesDiffer(RebalanceError):
    """The tables of two shards are not alike enough for rows to go from one to the other."""

    differences: Sequence[str]


class CopyRefused(RebalanceError):
    """A shard does not take a row that another one has."""

    table: str
    alias: str
    constraint: str | None


class CopyDamaged(RebalanceError):
    """Rows are not on the shard that got them what they were on the shard that gave them."""

    table: str
    alias: str
    first: str | None
    last: str | None


class VerificationFailed(RebalanceError):
    """Two shards do not have the same rows of a bucket."""

    report: Any
