"""
Which models are sharded: their entries, families and tables.

Entries are keyed by label ("shop.order"), so that the historical models of migrations find theirs.
They are built at first use, when every model class exists.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.signals import setting_changed
from django.db.models import Model

from sharding import reference_models
from sharding.entries import BUCKET_COLUMN, BucketOf, Entry, entry_of
from sharding.errors import NotSharded

__all__ = [
    "BUCKET_COLUMN",
    "BucketOf",
    "Entry",
    "entries",
    "entry",
    "families",
    "get",
    "is_sharded",
    "models",
    "register",
    "reset",
    "table_names",
    "tables",
]

_models: dict[str, type[Model]] = {}
_entries: dict[str, Entry] = {}
_by_class: dict[type[Model], Entry | None] = {}
_tables: dict[str, str] = {}
_names: frozenset[str] = frozenset()


def register(model: type[Model]) -> None:
    """Remember a concrete subclass of ShardedModel. Called when the class is prepared."""
    _models[model._meta.label_lower] = model
    reset()


def reset() -> None:
    global _names
    _names = frozenset()
    _entries.clear()
    _by_class.clear()
    _tables.clear()


def entry(model: type[Model] | None) -> Entry | None:
    """Return the entry of a model, proxy or historical model; None when it is not sharded."""
    if model is None:
        return None
    try:
        return _by_class[model]
    except KeyError:
        pass
    concrete = model._meta.concrete_model or model
    label = concrete._meta.label_lower
    found = _entry(label) if label in _models else None
    if model.__module__ != "__fake__":
        # Historical models are made anew by every migration; keeping them would leak.
        _by_class[model] = found
    return found


def get(model: type[Model]) -> Entry:
    """Return the entry of a sharded model, or raise NotSharded."""
    found = entry(model)
    if found is None and reference_models.is_reference(model):
        raise NotSharded(
            f"{model._meta.label} is a reference model, of which every database has all rows. Query it by itself: "
            f"one database is asked.",
            model=model._meta.label,
        )
    if found is None:
        raise NotSharded(
            f"{model._meta.label} is not sharded. Inherit from sharding.models.ShardedModel to shard it.",
            model=model._meta.label,
        )
    return found


def is_sharded(label_lower: str) -> bool:
    """Return whether the label ("shop.order", lower case) names a sharded model of today's code."""
    return label_lower in _models


def models() -> Iterator[type[Model]]:
    """Yield every sharded model, by label."""
    for label in sorted(_models):
        yield _models[label]


def entries() -> Iterator[Entry]:
    """Yield the entry of every sharded model, by label."""
    for label in sorted(_models):
        yield _entry(label)


def tables() -> dict[str, str]:
    """Return {table name: label} of every sharded model."""
    if not _tables:
        _tables.update({model._meta.db_table: model._meta.label for model in _models.values()})
    return _tables


def table_names() -> frozenset[str]:
    """Return the names of these tables."""
    global _names
    if not _names and tables():
        _names = frozenset(tables())
    return _names


def families() -> dict[str, list[Entry]]:
    """Return the co-located models: {family: entries}, in which the same key has the same bucket."""
    found: dict[str, list[Entry]] = {}
    for each in entries():
        found.setdefault(each.family, []).append(each)
    return found


def _entry(label: str) -> Entry:
    if label not in _entries:
        _entries[label] = entry_of(_models[label], _models)
    return _entries[label]


def _on_setting_changed(*, setting: str, **kwargs: Any) -> None:
    if setting == "SHARDING":
        reset()


setting_changed.connect(_on_setting_changed)
