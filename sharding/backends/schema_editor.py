"""
What our schema editors add to Django's: raw statements over sharded tables, and tables of a shard whose foreign keys
lead to tables that the shard does not have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DEFAULT_DB_ALIAS, router

from sharding import conf
from sharding.lookups import states


class ClusterSchemaEditor:
    """
    Mixin of DatabaseSchemaEditor.

    Old migrations may give a sharded model a foreign key to a global model with a constraint (it was global itself
    then). On a shard the column is made without the constraint: PostgreSQL would refuse it for want of the other
    table, and SQLite would accept it and then refuse every row.
    """

    connection: Any
    collect_sql: bool

    def execute(self, sql: Any, params: Any = ()) -> None:
        # Schema statements name sharded tables on purpose.
        with self.connection.sharded_statements():
            super().execute(sql, params)  # type: ignore[misc]

    def create_model(self, model: Any) -> None:
        with self._without_missing_targets(model._meta.local_fields):
            super().create_model(model)  # type: ignore[misc]
        self._forget_lookup(model)

    def delete_model(self, model: Any, handle_autom2m: bool = True) -> None:
        if not handle_autom2m:
            # On SQLite a table that is altered is copied, and the old one deleted so.
            super().delete_model(model, handle_autom2m=False)  # type: ignore[misc]
            return
        super().delete_model(model)  # type: ignore[misc]
        self._forget_lookup(model)

    def _forget_lookup(self, model: Any) -> None:
        """The table of a lookup was made or dropped: whatever it held before, it has no entries now."""
        if self.connection.alias == DEFAULT_DB_ALIAS and not self.collect_sql:
            states.mark_empty(self.connection, model._meta.db_table)

    def add_field(self, model: Any, field: Any) -> None:
        with self._without_missing_targets([*model._meta.local_fields, field]):
            super().add_field(model, field)  # type: ignore[misc]

    def alter_field(self, model: Any, old_field: Any, new_field: Any, strict: bool = False) -> None:
        with self._without_missing_targets([*model._meta.local_fields, old_field, new_field]):
            super().alter_field(model, old_field, new_field, strict)  # type: ignore[misc]

    @contextmanager
    def _without_missing_targets(self, fields: Iterable[Any]) -> Iterator[None]:
        """Inside, foreign keys among ``fields`` to tables that are not on this shard ask for no constraint."""
        alias = self.connection.alias
        changed = []
        if alias in conf.current().shards:
            changed = [field for field in fields if _asks_for_constraint(field) and not _has_target(alias, field)]
        for field in changed:
            field.db_constraint = False
        try:
            yield
        finally:
            for field in changed:
                field.db_constraint = True


def _asks_for_constraint(field: Any) -> bool:
    return bool(field.remote_field) and bool(getattr(field, "db_constraint", False))


def _has_target(alias: str, field: Any) -> bool:
    return router.allow_migrate_model(alias, field.remote_field.model)
