"""
The migration operation that makes the sequence of sharded ids.
"""

from __future__ import annotations

from typing import Any

from django.db import router
from django.db.migrations.operations.base import Operation

from sharding.minting import BLOCK, SEQUENCE


class CreateIdSequence(Operation):
    """Create the sequence that numbers the ids of ShardBigIntegerField, on the control database and every shard."""

    reduces_to_sql = True
    reversible = True

    def state_forwards(self, app_label: str, state: Any) -> None:
        """No model is concerned."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if not router.allow_migrate(schema_editor.connection.alias, app_label, model_name="idsequence"):
            return
        if schema_editor.connection.vendor == "postgresql":
            schema_editor.execute(f"CREATE SEQUENCE {SEQUENCE} INCREMENT BY {BLOCK}")
        else:
            schema_editor.execute(f"CREATE TABLE {SEQUENCE} (value integer NOT NULL)")
            schema_editor.execute(f"INSERT INTO {SEQUENCE} VALUES (0)")

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if not router.allow_migrate(schema_editor.connection.alias, app_label, model_name="idsequence"):
            return
        kind = "SEQUENCE" if schema_editor.connection.vendor == "postgresql" else "TABLE"
        schema_editor.execute(f"DROP {kind} {SEQUENCE}")

    def describe(self) -> str:
        return "Create the sequence of sharded ids"
