"""
The manager of sharded models. It stays thin: routing happens in the database backend, for every manager alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

from django.db import DEFAULT_DB_ALIAS, connections, models
from django.db.models import Model

from sharding import registry


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
            return super().bulk_create(*args, **kwargs)

    bulk_create.alters_data = True  # type: ignore[attr-defined]

    def bulk_update(self, objs: Iterable[Any], *args: Any, **kwargs: Any) -> int:
        entry = registry.get(self.model)
        objs = tuple(objs)
        for instance in objs:
            entry.verify(instance, entry.bucket_of(instance))
        with door().committing_one_by_one():
            return super().bulk_update(objs, *args, **kwargs)

    bulk_update.alters_data = True  # type: ignore[attr-defined]

    def delete(self) -> tuple[int, dict[str, int]]:
        with door().committing_one_by_one():
            return super().delete()

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]

    def _filter_or_exclude_inplace(self, negate: bool, args: Any, kwargs: Any) -> None:
        super()._filter_or_exclude_inplace(negate, args, kwargs)  # type: ignore[misc]
        if not negate:
            for name, value in kwargs.items():
                if isinstance(value, Model):
                    self._pin(name, value)

    def _pin(self, name: str, instance: Model) -> None:
        """
        Keep the bucket of an instance that was given to a filter: its id alone may not name it.

        Django's ``query`` property would recurse here when a related manager's filter is deferred, so not that.
        """
        entry = registry.get(self.model)
        target = registry.entry(type(instance))
        field: Any = {each.name: each for each in self.model._meta.concrete_fields}.get(name.removesuffix("__exact"))
        if target is None or field is None or field.attname not in entry.columns:
            return
        pinned = frozenset({target.bucket_of(instance)})
        query: Any = self._query  # type: ignore[attr-defined]
        before: frozenset[int] | None = getattr(query, "pinned_buckets", None)
        query.pinned_buckets = pinned if before is None else before & pinned


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
