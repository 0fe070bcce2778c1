"""
Which models are checked, and how severe a finding is that does no harm until a second database owns buckets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import FieldDoesNotExist
from django.db import DEFAULT_DB_ALIAS
from django.db.models import Field, ForeignKey, Model

from sharding import cluster_map, conf, registry

AppConfigs = Sequence[AppConfig] | None


def models(app_configs: AppConfigs) -> Iterator[type[Model]]:
    """Yield the models that have a table of their own: no proxies; Django leaves out what is swapped."""
    for config in apps.get_app_configs() if app_configs is None else app_configs:
        for model in config.get_models():
            if not model._meta.proxy:
                yield model


def sharded_models(app_configs: AppConfigs) -> Iterator[type[Model]]:
    """Yield the sharded ones of ``models()``."""
    return (model for model in models(app_configs) if is_sharded(model))


def keyed_models(app_configs: AppConfigs) -> Iterator[type[Model]]:
    """Yield the sharded models that the registry can describe: the key is a column, and no relation leads nowhere."""
    for model in sharded_models(app_configs):
        if key_of(model) is not None and None not in map(column_of, model._meta.concrete_fields):
            yield model


def is_sharded(model: Any) -> bool:
    """Return whether a model, or the model behind a proxy, is sharded."""
    return registry.is_sharded((model._meta.concrete_model or model)._meta.label_lower)


def key_of(model: type[Model]) -> Field[Any, Any] | None:
    """Return the shard key of a sharded model, or None while it names no column or a relation to nowhere."""
    try:
        key: Any = model._meta.get_field(getattr(model, "shard_key", None) or "")
    except FieldDoesNotExist:
        return None
    if key not in model._meta.concrete_fields or key.column is None or column_of(key) is None:
        return None
    found: Field[Any, Any] = key
    return found


def column_of(field: Any) -> Any:
    """Return the plain field at the end of a chain of foreign keys; None where a target does not exist."""
    while isinstance(field, ForeignKey):
        target: Any = field.remote_field.model
        if isinstance(target, str):
            return None
        field = field.target_field
    return field


def default_owns_all() -> bool:
    """
    Return whether `default` is the only owner of buckets, as far as this is known without asking a database.

    Declared shards count as owners, unless a map that this process has read already says otherwise.
    """
    if not conf.problems() and not conf.current().shards:
        return True
    known = cluster_map.known()
    return known is not None and known.aliases == (DEFAULT_DB_ALIAS,)


def finding(number: str, message: str, *, hint: str, obj: Any) -> CheckMessage:
    """Return a warning while `default` is the only owner, and an error with the same number afterwards."""
    if default_owns_all():
        return Warning(message, hint=hint, obj=obj, id=f"sharding.W{number}")
    return Error(message, hint=hint, obj=obj, id=f"sharding.E{number}")


def named(field: Any) -> str:
    """Return "shop.Order.tenant_id"."""
    return f"{field.model._meta.label}.{field.name}"
