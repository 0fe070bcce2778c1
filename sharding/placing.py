"""
Where does a key, or a row, live? The two questions of every operator.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db.models import Model

from sharding import cluster_map, conf, hashing, registry
from sharding.errors import WrongShard


def bucket_of(key: Any, *, model: type[Model] | None = None) -> int:
    """
    Return the bucket of a shard key, or of an instance of a sharded model: an integer in ``range(BUCKETS)``.

    Args:
        key: a shard key, or an instance.
        model: the sharded model that the key is of. It is needed when the key is an id that holds its bucket
            (ShardUUIDField, ShardBigIntegerField), and makes "42" and 42 agree on an integer field.

    Raises:
        UnhashableKey: the key is None, a bool, a float, a container.
        ShardKeyMissing: the instance has no shard key.
        NotSharded: the model is not sharded.
    """
    if isinstance(key, Model):
        return registry.get(type(key)).bucket_of(key)
    if model is not None:
        return registry.get(model).bucket_of_key(key)
    settings = conf.current()
    return hashing.bucket_of(key, settings.buckets, settings.hash)


def shard_of(key: Any, *, model: type[Model] | None = None) -> str:
    """
    Return the alias of the shard that owns a shard key or an instance now; arguments as for ``bucket_of()``.

    Raises:
        MapMissing: shards are declared, and the cluster is not initialised.
    """
    return cluster_map.current().owner(bucket_of(key, model=model))


def refuse_foreign(entry: registry.Entry, alias: str, owners: Iterable[str]) -> None:
    """Check that the rows of a write that is addressed to a shard are its own, or raise WrongShard."""
    for owner in owners:
        if owner != alias:
            raise WrongShard(
                f"This write of {entry.label} is addressed to {alias!r}, but {owner!r} owns its bucket. "
                f"Leave out using({alias!r}), and it is sent to its owner.",
                model=entry.label,
                alias=alias,
                expected=owner,
            )
