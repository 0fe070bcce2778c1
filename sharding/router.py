"""
The router answers which tables exist where, and keeps a migration in the database that it runs on.

Which shard owns a row is decided in the database backend.
"""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS

from sharding import conf, lineage, reference_models, registry, routing
from sharding.control import ON_EVERY_SHARD
from sharding.fields import BucketField

APP = "sharding"


class ShardRouter:
    """Put sharded and reference tables on the control database and on every shard, and nothing else on a shard."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        """
        Return the database that is being migrated, and None (no opinion) outside of migrations.

        So a RunPython that names no database queries the one it runs on; a row's own database goes before.
        """
        alias = routing.native_alias()
        if alias is None or alias == DEFAULT_DB_ALIAS:
            return None
        instance = hints.get("instance")
        return None if instance is not None and instance._state.db else alias

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, model_name: str | None = None, **hints: Any) -> bool | None:
        """
        Return True or False for a shard, and None (no opinion) for other databases.

        RunPython and RunSQL give no model: on a shard they run for apps with sharded or reference models, unless their
        ``hints`` say ``{"sharded": False}`` or name a model with ``{"model_name": …}``.
        """
        on_shard = db in conf.current().shards
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
        fields = historical._meta.local_fields if historical is not None else []
        return any(isinstance(field, BucketField) for field in fields) or lineage.was_sharded(label)
    return False
