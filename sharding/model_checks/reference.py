"""
Checks of reference models: their foreign keys (050), and what they inherit from (051).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.checks import CheckMessage, Error
from django.db.models import ForeignKey, Model

from sharding import reference_models
from sharding.model_checks.on_delete import without_constraint
from sharding.model_checks.subjects import AppConfigs, finding, is_sharded, models, named


def check_reference_keys(app_configs: AppConfigs, **kwargs: Any) -> list[CheckMessage]:
    """Return a finding for each foreign key by which a reference table asks for rows that shards do not have."""
    return [each for model in _reference_models(app_configs) for each in _of_keys(model)]


def check_reference_parents(app_configs: AppConfigs, **kwargs: Any) -> list[CheckMessage]:
    """Return an error for each reference model that is sharded as well, or has a part of its rows in a global table."""
    return [each for model in _reference_models(app_configs) for each in _of_parents(model)]


def _reference_models(app_configs: AppConfigs) -> Iterator[type[Model]]:
    return (model for model in models(app_configs) if reference_models.is_reference(model))


def _of_keys(model: type[Model]) -> Iterator[CheckMessage]:
    keys: list[Any] = [field for field in model._meta.local_fields if isinstance(field, ForeignKey)]
    for field in keys:
        target = field.remote_field.model
        if not field.db_constraint or field.remote_field.parent_link or isinstance(target, str):
            continue
        if reference_models.is_reference(target):
            continue
        kind, why = ("sharded", "has a part of its rows") if is_sharded(target) else ("global", "has no such table")
        hint = without_constraint(field)
        if kind == "global":
            hint = f"Make {target._meta.label} a ReferenceModel as well, or {hint[0].lower()}{hint[1:]}"
        yield finding(
            "050",
            f"{named(field)} refers from a reference to a {kind} model, {target._meta.label}, with a database "
            f"constraint, and a shard {why}.",
            hint=hint,
            obj=field,
        )


def _of_parents(model: type[Model]) -> Iterator[CheckMessage]:
    if is_sharded(model):
        yield Error(
            f"{model._meta.label} inherits from ShardedModel and from ReferenceModel.",
            hint="Choose: rows that each belong to one shard, or a small table that is whole on every shard.",
            obj=model,
            id="sharding.E051",
        )
    for parent in model._meta.parents:
        if not parent._meta.proxy and not reference_models.is_reference(parent):
            yield Error(
                f"{model._meta.label} is a reference model and inherits from {parent._meta.label}, whose table the "
                f"shards do not have.",
                hint="Make the parent a ReferenceModel or abstract, or refer to it by a foreign key.",
                obj=model,
                id="sharding.E051",
            )
