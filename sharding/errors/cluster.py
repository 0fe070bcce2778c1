"""
Databases that are not what the cluster needs them to be, or do not answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sharding.errors.base import ShardingError


class UnknownShard(ShardingError):
    """An alias that is no shard of this cluster."""

    alias: str


class PooledConnection(ShardingError):
    """A database is reached through a pooler, where a command needs a session of its own."""

    alias: str


class FenceMissing(ShardingError):
    """Databases belong to the cluster, and have no triggers yet that guard their buckets."""

    aliases: Sequence[str]


class ReferenceOutdated(ShardingError):
    """A shard has not been given the rows of a reference table, or cannot take them."""

    table: str
    alias: str


class ShardNotMigrated(ShardingError):
    """A shard does not have a table or columns that a model of today's code has."""

    model: str
    alias: str
    table: str
    columns: Sequence[str]


class MigrationFailed(ShardingError):
    """Some databases could not be migrated; the others were."""

    failures: Mapping[str, BaseException]


class ShardsUnavailable(ShardingError):
    """Some shards did not answer."""

    failures: Mapping[str, BaseException]


class FanOutTimeout(ShardsUnavailable):
    """Some shards did not answer before the deadline of the fan-out."""

    timeout: float


class MapError(ShardingError):
    """The bucket map cannot be used."""


class MapMissing(MapError):
    """The control database holds no bucket map, although shards are declared."""


class MapConflict(MapError):
    """The stored cluster was made with other settings than today's."""


class MapOutdated(MapError):
    """A shard has seen a newer bucket map than the control database holds."""

    alias: str


class ShardUncertified(MapError):
    """The fence of a shard disagrees with the bucket map, as after a restore, so that nothing is sent there."""

    alias: str
    buckets: Sequence[int]


class EpochChanged(MapError):
    """A shard shows other buckets than the sender's map says: one is moving in this instant. It may be repeated."""

    alias: str
    epoch: int
