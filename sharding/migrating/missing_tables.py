"""
Tables that a shard lacks because their model was global when the shard was migrated, and has become sharded since.

Django records a migration as applied also where the router left its tables out, so no migration makes them later.
"""

from __future__ import annotations

from typing import Any

from django.db import router
from django.db.migrations.loader import MigrationLoader

from sharding import conf


def create_missing_tables(connection: Any) -> list[str]:
    """
    Create, empty and as the applied migrations left them, the sharded tables that this shard lacks.

    Returns:
        The names of the created tables, in the order of creation.
    """
    if connection.alias not in conf.current().shards:
        return []
    loader = MigrationLoader(connection)
    applied = [key for key in loader.applied_migrations if key in loader.graph.nodes]
    if not applied:
        return []
    state = loader.project_state(applied)
    existing = set(connection.introspection.table_names())
    if not any(_may_lack(connection.alias, model, existing) for model in state.models.values()):
        return []
    missing = [model for model in state.apps.get_models() if _lacks(connection.alias, model, existing)]
    if missing:
        with connection.schema_editor() as editor:
            for model in missing:
                editor.create_model(model)
    return [model._meta.db_table for model in missing]


def _may_lack(alias: str, model: Any, existing: set[str]) -> bool:
    """Tell from the state of a model, which is cheap, whether rendering all models can be worth its time."""
    if model.options.get("proxy") or not model.options.get("managed", True):
        return False
    table = model.options.get("db_table") or f"{model.app_label}_{model.name_lower}"
    return table not in existing and router.allow_migrate(alias, model.app_label, model_name=model.name_lower)


def _lacks(alias: str, model: Any, existing: set[str]) -> bool:
    options = model._meta
    creatable = options.managed and not options.proxy
    return creatable and options.db_table not in existing and router.allow_migrate_model(alias, model)
