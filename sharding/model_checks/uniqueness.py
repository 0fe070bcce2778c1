"""
Checks of what must be unique over the cluster: ids (026, 027), and unique and exclusion constraints (025).

A database only sees its own rows. It can enforce uniqueness where equal values are certain to lie in one bucket.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from django.core.checks import CheckMessage
from django.db.models import F, UniqueConstraint
from django.db.models.expressions import OrderBy
from django.db.models.fields import AutoFieldMixin

from sharding import registry
from sharding.model_checks.subjects import AppConfigs, column_of, finding, keyed_models, named
from sharding.registry import Entry


def check_ids(app_configs: AppConfigs, **kwargs: Any) -> list[CheckMessage]:
    """Return a finding for each primary key that may repeat on another shard, or does not say where its row lives."""
    return [each for model in keyed_models(app_configs) for each in _of_id(registry.get(model))]


def check_unique_constraints(app_configs: AppConfigs, **kwargs: Any) -> list[CheckMessage]:
    """Return a finding for each unique constraint that every shard would only enforce among its own rows."""
    return [each for model in keyed_models(app_configs) for each in _of_constraints(registry.get(model))]


def _of_id(entry: Entry) -> Iterator[CheckMessage]:
    options: Any = entry.model._meta
    id_field = options.pk
    # A child's id is its parent's; that it has a parent is reported by itself.
    if _is_parent_link(id_field) or any(field.attname in entry.columns for field in options.pk_fields):
        return
    if isinstance(column_of(id_field), AutoFieldMixin) and not id_field.is_relation:
        yield finding(
            "026",
            f"{named(id_field)} is a {type(id_field).__name__}: every shard counts by itself, so ids repeat.",
            hint="Use a ShardUUIDField or a ShardBigIntegerField, whose ids are unique over the cluster.",
            obj=id_field,
        )
        return
    yield finding(
        "027",
        f"{named(id_field)} is the primary key and does not say in which bucket a row lives: it is neither the "
        f"shard key ({entry.key}), nor does it hold the bucket.",
        hint=f"Use a ShardUUIDField or a ShardBigIntegerField, or CompositePrimaryKey({entry.key!r}, …).",
        obj=id_field,
    )


def _of_constraints(entry: Entry) -> Iterator[CheckMessage]:
    options = entry.model._meta
    for field in options.local_fields:
        if field.unique and not field.primary_key and not _settles([field.name], entry):
            yield _not_enforced(entry, f"{named(field)} is unique by itself", field)
    for names in options.unique_together:
        if not _settles(names, entry):
            yield _not_enforced(entry, f"{options.label} has unique_together {tuple(names)!r}", entry.model)
    for constraint in options.constraints:
        if isinstance(constraint, UniqueConstraint) and not _constraint_settles(constraint, entry):
            yield _not_enforced(entry, f"{options.label} has the unique constraint {constraint.name!r}", entry.model)
        elif _excludes(constraint) and not _settles(_equal_fields(constraint), entry):
            yield _not_excluded(entry, constraint.name)


def _not_enforced(entry: Entry, what: str, obj: Any) -> CheckMessage:
    return finding(
        "025",
        f"{what}, without the shard key {entry.key!r}: two shards may hold the same values.",
        hint=f"Make it unique together with {entry.key!r}, for example by "
        f"UniqueConstraint(fields=[{entry.key!r}, …], name=…), or give {entry.model._meta.object_name} a unique "
        f"LookupIndex of the same fields.",
        obj=obj,
    )


def _not_excluded(entry: Entry, name: str) -> CheckMessage:
    label = entry.model._meta.label
    return finding(
        "025",
        f"{label} has the exclusion constraint {name!r}, without the shard key {entry.key!r}: rows of two shards may "
        f"overlap.",
        hint=f"Add ({entry.key!r}, RangeOperators.EQUAL) to its expressions.",
        obj=entry.model,
    )


def _excludes(constraint: Any) -> bool:
    # Its module may need a driver that is not installed, and has been imported where there is one.
    module = sys.modules.get("django.contrib.postgres.constraints")
    return module is not None and isinstance(constraint, module.ExclusionConstraint)


def _equal_fields(constraint: Any) -> list[str]:
    """Return the fields that two rows have in common which exclude each other, if the names of them are all."""
    found = [
        each if isinstance(each, str) else _plain_field(each) for each, how in constraint.expressions if how == "="
    ]
    return [name for name in found if name is not None]


def _constraint_settles(constraint: UniqueConstraint, entry: Entry) -> bool:
    names = [*constraint.fields, *filter(None, map(_plain_field, constraint.expressions))]
    return _settles(names, entry, nulls_distinct=constraint.nulls_distinct is not False)


def _settles(names: Any, entry: Entry, *, nulls_distinct: bool = True) -> bool:
    """Return whether equal values of these fields are certain to lie in one bucket, or a lookup keeps them unique."""
    fields: list[Any] = [entry.model._meta.get_field(name) for name in names if name != "pk"]
    settled = {field.attname for field in fields if nulls_distinct or not field.null}
    return (
        "pk" in names
        or not settled.isdisjoint(entry.columns)
        or any(lookup.unique and settled.issuperset(lookup.attnames) for lookup in entry.lookups)
    )


def _plain_field(expression: Any) -> str | None:
    while isinstance(expression, OrderBy):
        expression = expression.expression
    return getattr(expression, "name", None) if isinstance(expression, F) else None


def _is_parent_link(field: Any) -> bool:
    return bool(field.remote_field and field.remote_field.parent_link)
