"""
A shard key, an id or a foreign key that does not fit.
"""

from __future__ import annotations

from typing import Any

from sharding.errors.base import ShardingError


class UnhashableKey(ShardingError, TypeError):
    """A value that has no bucket: None, a bool, a float, a container."""

    key: Any


class ShardKeyMissing(ShardingError):
    """Nothing in the query or the instance says which shard it belongs to."""

    model: str
    field: str


class ShardKeyChanged(ShardingError):
    """A write would change the shard key of a stored row, and so leave it where it does not belong."""

    model: str
    field: str
    old: Any
    new: Any


class ScopeConflict(ShardingError):
    """A query inside a scope names another shard key than the scope's."""

    model: str
    field: str
    scope: Any
    found: Any


class BucketMismatch(ShardingError):
    """An id or a foreign key belongs to another bucket than its row."""

    model: str
    field: str
    value: Any
    expected: int
    found: int


class ReferenceKeyChanged(ShardingError):
    """An update would change the primary keys of a reference model, by which its copies are found."""

    model: str
    field: str
