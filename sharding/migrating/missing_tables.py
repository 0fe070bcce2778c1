"""
Tables that a shard lacks because their model was global when the shard was migrated, and has become sharded, or a
reference model, since.

Django records a migration as applied also where the router left its tables out, so no migration makes them later.
"""

from __future__ import annotations

from typing import Any

from django.db import router
from django.db.migrations.loader import MigrationLoader

from sharding import conf, reference_models, reference_sync


def create_missing_tables(connection: Any) -> list[str]:
    """
    Create, as the applied migrations left them, the tables that this shard lacks.

    Sharded ones are empty, and reference tables have the control database's rows: a later migration may add a foreign
    key with a constraint to them.

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
                for table in _with_links(model):
                    if reference_models.is_reference(table):
                        reference_sync.fill(connection, table)
    return [model._meta.db_table for model in missing]


def _with_links(model: Any) -> list[Any]:
    """Return a model and the many-to-many tables that are created with it."""
    links = [field.remote_field.through for field in model._meta.local_many_to_many]
    return [model, *(link for link in links if link._meta.auto_created)]


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
