"""
Checks of what ties tables together: many-to-many tables (028), inheritance (029), and foreign keys between sharded and
global models (030).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.checks import CheckMessage
from django.db.models import ForeignKey, Model

from sharding import reference_models
from sharding.model_checks.on_delete import without_constraint
from sharding.model_checks.subjects import AppConfigs, finding, is_sharded, models, named, sharded_models


def check_many_to_many(app_configs: AppConfigs, **kwargs: Any) -> list[CheckMessage]:
    """Return a finding for each many-to-many table that Django makes by itself for a sharded model."""
    return [each for model in models(app_configs) for each in _of_many_to_many(model)]


def check_inheritance(app_configs: AppConfigs, **kwargs: Any) -> list[CheckMessage]:
    """Return a finding for each sharded model whose rows are spread over two tables."""
    return [each for model in sharded_models(app_configs) for each in _of_parents(model)]


def check_references(app_configs: AppConfigs, **kwargs: Any) -> list[CheckMessage]:
    """Return a finding for each database constraint between a sharded and a global table."""
    return [each for model in models(app_configs) for each in _of_references(model)]


def _of_many_to_many(model: type[Model]) -> Iterator[CheckMessage]:
    for field in model._meta.local_many_to_many:
        target: Any = field.remote_field.model
        through: Any = field.remote_field.through
        if isinstance(target, str) or isinstance(through, str) or not through._meta.auto_created:
            continue
        sharded = next((each for each in (model, target) if is_sharded(each)), None)
        if sharded is None:
            continue
        yield finding(
            "028",
            f"{named(field)} has a table that Django makes by itself, with an id that repeats on other shards and no "
            f"shard key, but {sharded._meta.label} is sharded.",
            hint="Write the model of that table as a ShardedModel with the same shard key, and name it by through=.",
            obj=field,
        )


def _of_parents(model: type[Model]) -> Iterator[CheckMessage]:
    parents = sorted(parent._meta.label for parent in model._meta.parents if not parent._meta.proxy)
    if not parents:
        return
    yield finding(
        "029",
        f"{model._meta.label} is sharded and inherits from {', '.join(parents)}, so each of its rows is spread over "
        f"{len(parents) + 1} tables.",
        hint="Make the parent abstract, or refer to it by a foreign key.",
        obj=model,
    )


def _of_references(model: type[Model]) -> Iterator[CheckMessage]:
    if not model._meta.managed:
        return
    keys: list[Any] = [field for field in model._meta.local_fields if isinstance(field, ForeignKey)]
    for field in keys:
        if not field.db_constraint or field.remote_field.parent_link:
            continue
        target = field.remote_field.model
        if isinstance(target, str) or is_sharded(model) == is_sharded(target):
            continue
        if reference_models.is_reference(model) or reference_models.is_reference(target):
            # Their tables are on every shard; what they refer to themselves is checked with them.
            continue
        kinds = ("sharded", "global") if is_sharded(model) else ("global", "sharded")
        yield finding(
            "030",
            f"{named(field)} refers from a {kinds[0]} to a {kinds[1]} model, {target._meta.label}, with a database "
            f"constraint, and their rows live on different servers.",
            hint=without_constraint(field),
            obj=field,
        )
