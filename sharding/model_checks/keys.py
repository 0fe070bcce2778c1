"""
Checks of shard keys: each sharded model has one, it is never NULL, and its value has a bucket (E021 to E024).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.db import models
from django.db.models import ForeignKey, Model
from django.db.models.fields import AutoFieldMixin

from sharding import conf, registry
from sharding.fields import BucketField
from sharding.model_checks.subjects import AppConfigs, column_of, is_sharded, key_of, named, sharded_models

#: Fields of Django whose prepared values can be hashed; fields that a project made itself are given the benefit.
HASHABLE: Final = (
    models.IntegerField,
    models.CharField,
    models.TextField,
    models.UUIDField,
    models.BinaryField,
    models.DateField,
    models.DecimalField,
    models.GenericIPAddressField,
)
USABLE: Final = "Use a field of integers, text, UUIDs, dates, decimals or bytes."


def check_keys(app_configs: AppConfigs, **kwargs: Any) -> list[CheckMessage]:
    """Return an error for each sharded model whose shard key cannot say where a row lives."""
    return [error for model in sharded_models(app_configs) for error in _errors(model)]


def _errors(model: type[Model]) -> Iterator[CheckMessage]:
    key: Any = key_of(model)
    if key is None:
        yield from _no_key(model)
        return
    if key.null:
        yield Error(
            f"{named(key)} is the shard key and may be NULL.",
            hint="Remove null=True: a row without a key has no bucket, so it could be stored nowhere.",
            obj=key,
            id="sharding.E022",
        )
    if isinstance(key, ForeignKey) and not _target_has_bucket(key):
        yield _misplaced_target(key)
        return
    reason = _unusable(key)
    if reason is not None:
        yield Error(f"{named(key)} is the shard key, but {reason}.", hint=_remedy(key), obj=key, id="sharding.E023")


def _no_key(model: type[Model]) -> Iterator[CheckMessage]:
    label, name = model._meta.label, getattr(model, "shard_key", None)
    if not name:
        message = f"{label} is a ShardedModel without a shard_key."
        hint = 'Name the field whose value decides where a row lives, for example shard_key = "tenant_id".'
    elif _dangles(model, name):
        # A foreign key to a model that does not exist: Django's fields.E300 says so.
        return
    else:
        message = f"{label}.shard_key is {name!r}, which is no column of {model._meta.object_name}."
        columns = (field.name for field in model._meta.concrete_fields if _may_be_key(field))
        hint = f"Name one of its fields: {', '.join(columns)}."
    yield Error(message, hint=hint, obj=model, id="sharding.E021")


def _dangles(model: type[Model], name: Any) -> bool:
    return any(isinstance(each, ForeignKey) and name in (each.name, each.attname) for each in model._meta.local_fields)


def _may_be_key(field: Any) -> bool:
    return field.column is not None and not isinstance(field, BucketField)


def _target_has_bucket(key: Any) -> bool:
    """
    Return whether a foreign key's value names a bucket by the rules of its target.

    A global target has no rule of its own, so the value is hashed (docs/decisions/0007).
    """
    target = key.target_field
    owner = target.model._meta.concrete_model
    if not is_sharded(owner) or hasattr(column_of(key), "bucket_in"):
        return True
    return key_of(owner) in (target, None)


def _misplaced_target(key: Any) -> CheckMessage:
    target = key.target_field
    owner = target.model
    return Error(
        f"{named(key)} is the shard key and refers to {named(target)}, which does not say in which bucket that "
        f"{owner._meta.object_name} lives.",
        hint=f"Make {named(target)} a ShardUUIDField or a ShardBigIntegerField, or shard {key.model._meta.label} by "
        f"the same key as {owner._meta.label}: a field of its own for {owner.shard_key!r}.",
        obj=key,
        id="sharding.E024",
    )


def _unusable(key: Any) -> str | None:
    """Return why the values of a key have no bucket, or None when they have one."""
    column = column_of(key)
    kind = type(column).__name__
    if hasattr(column, "bucket_in"):
        return None
    if isinstance(key, AutoFieldMixin):
        return f"the database makes the values of a {kind} after the row's shard must be known"
    if isinstance(column, BucketField):
        return "the bucket is computed from the key"
    if not _hashable(column):
        return f"the values of a {kind} have no bucket"
    if isinstance(column, models.DateTimeField) and not settings.USE_TZ:
        return "USE_TZ is False, and a DateTimeField without time zones names no moment"
    if _needs_integer(column):
        return f"SHARDING['HASH'] is 'identity', which takes integers, and a {kind} has none"
    return None


def _needs_integer(column: Any) -> bool:
    identity = not conf.problems() and conf.current().hash == "identity"
    return identity and not isinstance(column, models.IntegerField)


def _hashable(column: Any) -> bool:
    if isinstance(column, HASHABLE):
        return True
    return not any(
        each.__module__.partition(".")[0] == "django" and issubclass(each, models.Field) and each is not models.Field
        for each in type(column).__mro__
    )


def _remedy(key: Any) -> str:
    if isinstance(key, AutoFieldMixin):
        return "Use a ShardUUIDField or a ShardBigIntegerField: its bucket is part of the id."
    if isinstance(column_of(key), BucketField):
        return f"Name the field whose value decides where a row lives, not {registry.BUCKET_COLUMN!r}."
    if _needs_integer(column_of(key)) and _hashable(column_of(key)):
        return "Use an integer field, or leave SHARDING['HASH'] out: mmh3 takes other types as well."
    return USABLE
