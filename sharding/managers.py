"""
The manager of sharded models. It stays thin: routing happens in the database backend, for every manager alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

from django.db import DEFAULT_DB_ALIAS, connections, models

from sharding import conf, deletion, registry


class ShardedQuerySet(models.QuerySet[Any]):
    """A queryset of a sharded model."""

    def for_key(self, key: Any) -> Self:
        """
        Return the rows of one shard key: one shard is asked.

        Raises:
            ShardKeyMissing: the key is None.
            UnhashableKey: the key is of a type that cannot be a key.
        """
        entry = registry.get(self.model)
        entry.bucket_of_key(key)
        return self.filter(**{entry.key_attname: key})

    def bulk_create(self, *args: Any, **kwargs: Any) -> list[Any]:
        with door().committing_one_by_one():
            created = super().bulk_create(*args, **kwargs)
        for instance in created:
            if instance._state.db in conf.current().shards:
                # One shard was addressed by name; what the row does next goes through the door.
                instance._state.db = DEFAULT_DB_ALIAS
        return created

    bulk_create.alters_data = True  # type: ignore[attr-defined]

    def bulk_update(self, objs: Iterable[Any], *args: Any, **kwargs: Any) -> int:
        entry = registry.get(self.model)
        objs = tuple(objs)
        for instance in objs:
            # An instance may be made of an id and of what is written: the id tells the bucket.
            if instance.__dict__.get(entry.key_attname) is not None:
                entry.verify(instance, entry.bucket_of(instance))
        with door().committing_one_by_one():
            return super().bulk_update(objs, *args, **kwargs)

    bulk_update.alters_data = True  # type: ignore[attr-defined]

    def delete(self) -> tuple[int, dict[str, int]]:
        with door().committing_one_by_one():
            return deletion.delete_queryset(self)

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]


class ShardedManager(models.Manager.from_queryset(ShardedQuerySet)):  # type: ignore[misc]
    """The manager of sharded models."""


def door() -> Any:
    """Return this thread's connection wrapper of `default`."""
    wrapper: Any = connections[DEFAULT_DB_ALIAS]
    return wrapper if hasattr(wrapper, "committing_one_by_one") else _OtherEngine()


class _OtherEngine:
    """`default` without our ENGINE: Django's own transactions are all there is."""

    def committing_one_by_one(self) -> AbstractContextManager[None]:
        return nullcontext()
