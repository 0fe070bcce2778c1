"""
A query that cannot be answered, or not so.
"""

from __future__ import annotations

from collections.abc import Sequence

from sharding.errors.base import ShardingError


class CrossShardQuery(ShardingError):
    """A query needs several shards, and nothing is installed that could merge their answers."""

    model: str
    aliases: Sequence[str]


class CannotMerge(ShardingError):
    """The answers of several shards cannot be merged exactly, so they are not merged at all."""

    model: str
    construct: str


class ShardsDisagree(CannotMerge):
    """The shards do not compare values alike, so that no answer of them all is right."""


class GatherTooLarge(CannotMerge):
    """An answer needs rows of all shards in one place, and more of them than SHARDING allows."""

    table: str
    limit: int


class DeepOffset(ShardingError):
    """A query of several shards skips more rows than MAX_OFFSET, which every shard would have to send."""

    model: str
    offset: int
    limit: int


class GlobalJoin(ShardingError):
    """One statement names tables of sharded and of global models, which live on different servers."""

    model: str
    tables: Sequence[str]


class RawShardedSQL(ShardingError):
    """Raw SQL on the control database names the table of a sharded model, or writes that of a reference model."""

    table: str


class WrongShard(ShardingError):
    """A write is addressed to a shard that does not own its bucket."""

    model: str
    alias: str
    expected: str


class NotSharded(ShardingError):
    """A sharded model was expected."""

    model: str


class LookupRefused(ShardingError):
    """A write that a lookup cannot follow exactly, or one to the lookup itself."""

    model: str
    lookup: str


class UnknownLookup(ShardingError):
    """A name that is no lookup's, nor that of a model with lookups."""

    lookup: str


class InvalidCursor(ShardingError, ValueError):
    """A page cursor that this paginator did not make."""

    cursor: str


class PartialRefused(ShardingError):
    """A fan-out with on_error="partial" where a part of the answer would do harm, or could not be told apart."""

    model: str
