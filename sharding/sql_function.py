"""
The migration operation that makes a function of the databases of the cluster, where they have functions.
"""

from __future__ import annotations

from typing import Any

from django.db import router
from django.db.migrations.operations.base import Operation


class CreateFunction(Operation):
    """Create a function on the control database and every PostgreSQL shard."""

    reduces_to_sql = True
    reversible = True

    def __init__(self, name: str, arguments: str, sql: str) -> None:
        self.name = name
        self.arguments = arguments
        self.sql = sql

    def state_forwards(self, app_label: str, state: Any) -> None:
        """No model is concerned."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if self._is_for(app_label, schema_editor):
            schema_editor.execute(f"CREATE FUNCTION {self.name}({self.arguments}) {self.sql}")

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if self._is_for(app_label, schema_editor):
            schema_editor.execute(f"DROP FUNCTION {self.name}({self.arguments})")

    def _is_for(self, app_label: str, schema_editor: Any) -> bool:
        connection = schema_editor.connection
        is_allowed = router.allow_migrate(connection.alias, app_label, model_name="fence")
        return connection.vendor == "postgresql" and is_allowed

    def describe(self) -> str:
        return f"Create the function {self.name}()"
