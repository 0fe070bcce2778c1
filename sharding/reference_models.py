"""
Which models are reference models: small tables kept whole on the control database and on every shard.

A many-to-many table that Django makes by itself between two of them is one as well. As in the registry of sharded
models, labels are the keys, so that the historical models of migrations are found.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db.models import ForeignKey, Model

_models: dict[str, type[Model]] = {}
_by_class: dict[type[Model], bool] = {}
_whole: dict[str, type[Model]] = {}
_tables: dict[str, str] = {}
_names: frozenset[str] = frozenset()


def register(model: type[Model]) -> None:
    """Remember a concrete subclass of ReferenceModel. Called when the class is prepared."""
    _models[model._meta.label_lower] = model
    reset()


def reset() -> None:
    global _names
    _names = frozenset()
    _by_class.clear()
    _whole.clear()
    _tables.clear()


def is_reference(model: type[Model]) -> bool:
    """Return whether a model, proxy or historical model is a reference model."""
    try:
        return _by_class[model]
    except KeyError:
        pass
    found = is_label(str((model._meta.concrete_model or model)._meta.label_lower))
    if model.__module__ != "__fake__":
        # Historical models are made anew by every migration; keeping them would leak.
        _by_class[model] = found
    return found


def is_label(label_lower: str) -> bool:
    """Return whether the label ("shop.country", lower case) names a reference model of today's code."""
    return label_lower in _with_links()


def tables() -> dict[str, str]:
    """Return {table name: label} of every reference model."""
    if not _tables and _models:
        _tables.update({model._meta.db_table: model._meta.label for model in _with_links().values()})
    return _tables


def table_names() -> frozenset[str]:
    """Return the names of these tables."""
    global _names
    if not _names and tables():
        _names = frozenset(tables())
    return _names


def models() -> list[type[Model]]:
    """Return every reference model that has a table, each after those to which its foreign keys lead."""
    left = {label: model for label, model in sorted(_with_links().items()) if not model._meta.swapped}
    ordered: list[type[Model]] = []
    while left:
        free = [label for label, model in left.items() if not _targets(model) & (left.keys() - {label})]
        # Tables that refer to each other have no order; their constraints wait for the end of the transaction.
        for label in free or list(left):
            ordered.append(left.pop(label))
    return ordered


def _with_links() -> dict[str, type[Model]]:
    if not _whole:
        _whole.update(_models)
        _whole.update({model._meta.label_lower: model for model in _links()})
    return _whole


def _links() -> Iterator[type[Model]]:
    """Yield the many-to-many tables that Django made between reference models."""
    for model in _models.values():
        for field in model._meta.local_many_to_many:
            target: Any = field.remote_field.model
            through: Any = field.remote_field.through
            if isinstance(target, str) or isinstance(through, str) or through is None:
                continue
            concrete = target._meta.concrete_model or target
            if through._meta.auto_created and concrete._meta.label_lower in _models:
                yield through


def _targets(model: type[Model]) -> set[str]:
    keys: list[Any] = [field for field in model._meta.local_fields if isinstance(field, ForeignKey)]
    targets = [field.remote_field.model for field in keys if not isinstance(field.remote_field.model, str)]
    return {(target._meta.concrete_model or target)._meta.label_lower for target in targets}
