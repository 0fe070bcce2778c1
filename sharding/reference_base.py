"""
ReferenceModel, from which the application's reference models inherit, and its manager.

Where its rows go is decided in the database backend, for every manager alike. What is left to do here is what only a
whole operation knows: that the blocks inside are Django's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from django.db import DEFAULT_DB_ALIAS, models
from django.db.models.signals import class_prepared

from sharding import conf, deletion, reference_models
from sharding.managers import door


@contextmanager
def writing() -> Iterator[None]:
    """
    Inside, Django opens the atomic blocks of one operation by itself.

    SQLite has no two-phase commit: there such a block commits one database after the other, the control database last.
    """
    wrapper = door()
    if getattr(wrapper, "vendor", None) != "sqlite":
        yield
        return
    with wrapper.committing_one_by_one():
        yield


class ReferenceQuerySet(models.QuerySet[Any]):
    """A queryset of a reference model."""

    def bulk_create(self, *args: Any, **kwargs: Any) -> list[Any]:
        with writing():
            return super().bulk_create(*args, **kwargs)

    bulk_create.alters_data = True  # type: ignore[attr-defined]

    def bulk_update(self, *args: Any, **kwargs: Any) -> int:
        with writing():
            return super().bulk_update(*args, **kwargs)

    bulk_update.alters_data = True  # type: ignore[attr-defined]

    def get_or_create(self, *args: Any, **kwargs: Any) -> tuple[Any, bool]:
        with writing():
            return super().get_or_create(*args, **kwargs)

    get_or_create.alters_data = True  # type: ignore[attr-defined]

    def update_or_create(self, *args: Any, **kwargs: Any) -> tuple[Any, bool]:
        with writing():
            return super().update_or_create(*args, **kwargs)

    update_or_create.alters_data = True  # type: ignore[attr-defined]

    def delete(self) -> tuple[int, dict[str, int]]:
        with writing():
            return deletion.delete_queryset(self)

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]


class ReferenceManager(models.Manager.from_queryset(ReferenceQuerySet)):  # type: ignore[misc]
    """The manager of reference models."""


class ReferenceModel(models.Model):
    """
    A model whose rows live whole on the control database and on every shard, for small tables that seldom change::

        class Country(ReferenceModel):
            code = models.CharField(max_length=2, unique=True)
            name = models.CharField(max_length=60)

    Sharded models may have foreign keys to it, join it and filter by it. A write goes to all databases or to none.
    """

    objects = ReferenceManager()

    class Meta:
        abstract = True

    @classmethod
    def from_db(cls, db: str | None, field_names: Any, values: Any, **kwargs: Any) -> Self:
        # Django 6.1 adds fetch_mode.
        instance = super().from_db(db, field_names, values, **kwargs)
        if db in conf.current().shards:
            # What a shard's copy does next goes through the door, to all of them.
            instance._state.db = DEFAULT_DB_ALIAS
        return instance

    def save_base(self, *args: Any, **kwargs: Any) -> None:
        with writing():
            super().save_base(*args, **kwargs)

    save_base.alters_data = True  # type: ignore[attr-defined]

    def delete(self, using: str | None = None, keep_parents: bool = False) -> tuple[int, dict[str, int]]:
        with writing():
            return deletion.delete_instance(self, using, keep_parents)

    delete.alters_data = True  # type: ignore[attr-defined]


def _prepare(sender: type[models.Model], **kwargs: Any) -> None:
    """Register a concrete subclass."""
    if not issubclass(sender, ReferenceModel) or sender._meta.abstract:
        return
    if not sender._meta.proxy and sender._meta.concrete_model is sender:
        reference_models.register(sender)


class_prepared.connect(_prepare)
