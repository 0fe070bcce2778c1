"""
Which models of old migrations were sharded, although today's code no longer has them.

The answer is one for the whole life of a model, under each of its names: a table that a later migration alters on a
shard must have been created there by an earlier one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from django.core.signals import setting_changed
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations import AddField, AlterField, CreateModel, RenameModel
from django.db.migrations.operations.base import Operation

from sharding import reference_models, registry
from sharding.fields import BucketField


def was_sharded(label_lower: str) -> bool:
    """Return whether a model of the migrations had a bucket at some time, or became one of today's on every shard."""
    return label_lower in _sharded_labels()


@cache
def _sharded_labels() -> frozenset[str]:
    loader = MigrationLoader(None, load=False)
    loader.load_disk()
    operations = [
        (app_label, operation)
        for (app_label, _), migration in loader.disk_migrations.items()
        for operation in _flat(migration.operations)
    ]
    sharded = {f"{app_label}.{name}" for app_label, operation in operations for name in _with_bucket(operation)}
    sharded.update(model._meta.label_lower for model in (*registry.models(), *reference_models.models()))
    return frozenset(_spread(sharded, list(_renames(operations))))


def _flat(operations: Iterable[Operation]) -> Iterator[Operation]:
    for operation in operations:
        yield operation
        # SeparateDatabaseAndState
        yield from _flat(getattr(operation, "state_operations", ()))
        yield from _flat(getattr(operation, "database_operations", ()))


def _with_bucket(operation: Any) -> Iterator[str]:
    """Yield the name of the model to which the operation gives a bucket."""
    if isinstance(operation, CreateModel):
        if any(isinstance(field, BucketField) for _, field in operation.fields):
            yield operation.name_lower
    elif isinstance(operation, AddField | AlterField) and isinstance(operation.field, BucketField):
        yield operation.model_name_lower


def _renames(operations: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, str]]:
    for app_label, operation in operations:
        if isinstance(operation, RenameModel):
            yield f"{app_label}.{operation.old_name_lower}", f"{app_label}.{operation.new_name_lower}"


def _spread(labels: set[str], renames: list[tuple[str, str]]) -> set[str]:
    """Add every label that is connected by renames with one of ``labels``."""
    while True:
        added = {one for pair in renames for one in pair if labels.intersection(pair)} - labels
        if not added:
            return labels
        labels = labels | added


def _on_setting_changed(*, setting: str, **kwargs: Any) -> None:
    if setting in {"INSTALLED_APPS", "MIGRATION_MODULES"}:
        _sharded_labels.cache_clear()


setting_changed.connect(_on_setting_changed)
