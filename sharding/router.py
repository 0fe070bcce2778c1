"""
The router answers which tables exist where, and keeps a migration in the database that it runs on.

Queries of sharded models it sends to `default`; which shard owns a row is decided in the database backend there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS
from django.db.models import Model

from sharding import conf, lineage, reference_models, registry, routing
from sharding.control import ON_EVERY_SHARD
from sharding.fields import BucketField

APP = "sharding"


class ShardRouter:
    """Put sharded and reference tables on the control database and on every shard, and nothing else on a shard."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        """
        Return the door for sharded models, past which no router that follows may send them, and None (no opinion) for
        others; during a migration, the database that it runs on.

        So a RunPython that names no database queries the one it runs on; a row's own database goes before.
        """
        if not _is_model(model):
            return None
        alias = routing.native_alias()
        if alias is not None:
            return None if alias == DEFAULT_DB_ALIAS or _own_database(hints) else alias
        if registry.entry(model) is None:
            return None
        # A global row may have been read from a replica, where no sharded rows are.
        own = _own_database(hints, of=registry.entry)
        return own or DEFAULT_DB_ALIAS

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        """Return the same, and for reference models the control database: there they are written on all databases."""
        if not _is_model(model) or routing.native_alias() is not None or not reference_models.is_reference(model):
            return self.db_for_read(model, **hints)
        own = _own_database(hints, of=reference_models.is_reference)
        # Of a copy that was read elsewhere, from a replica for one, the routers that follow know more.
        return None if own not in {None, DEFAULT_DB_ALIAS} else DEFAULT_DB_ALIAS

    def allow_migrate(self, db: str, app_label: str, model_name: str | None = None, **hints: Any) -> bool | None:
        """
        Return True or False for a shard, and None (no opinion) for other databases.

        RunPython and RunSQL give no model: on a shard they run for apps with sharded or reference models, unless their
        ``hints`` say ``{"sharded": False}`` or name a model with ``{"model_name": …}``.
        """
        on_shard = db in _shards()
        if app_label == APP:
            return self._own_table(db, on_shard, model_name)
        if not on_shard:
            return None
        if "sharded" in hints:
            return bool(hints["sharded"])
        if model_name is None:
            return any(label.startswith(f"{app_label}.") for label in _labels_on_shards())
        return _is_on_shards(app_label, model_name, hints.get("model"))

    def _own_table(self, db: str, on_shard: bool, model_name: str | None) -> bool:
        if db == DEFAULT_DB_ALIAS:
            return True
        return on_shard and (model_name is None or model_name.lower() in ON_EVERY_SHARD)


def _is_model(given: Any) -> bool:
    """Return whether something is a model. A cache in the database asks for its table with a class that is none."""
    return isinstance(given, type) and issubclass(given, Model)


def _shards() -> tuple[str, ...]:
    """Return the shards, also while another setting is wrong: the system checks ask the router before they say so."""
    try:
        return conf.current().shards
    except ImproperlyConfigured:
        return conf.read(getattr(settings, "SHARDING", {}), settings.DATABASES)[0].shards


def _own_database(hints: Mapping[str, Any], *, of: Callable[[Any], Any] = bool) -> str | None:
    """Return the database of the instance for which Django asks, if it has one and its model is one ``of`` a kind."""
    instance = hints.get("instance")
    return instance._state.db if instance is not None and of(type(instance)) else None


def _labels_on_shards() -> list[str]:
    return [model._meta.label_lower for model in (*registry.models(), *reference_models.models())]


def _is_on_shards(app_label: str, model_name: str, historical: Any) -> bool:
    """
    Today's code decides, so that a model which became sharded later has its table on a new shard from the beginning.

    A model that today's code no longer has was sharded if it ever had a bucket, under this name or another.
    """
    label = f"{app_label}.{model_name.lower()}"
    if registry.is_sharded(label) or reference_models.is_label(label):
        return True
    try:
        apps.get_model(app_label, model_name)
    except LookupError:
        fields = historical._meta.local_fields if _is_model(historical) else []
        return any(isinstance(field, BucketField) for field in fields) or lineage.was_sharded(label)
    return False
