"""
The CHECK of ids that hold their bucket, where a column becomes such an id, or is one no more.

Django makes the check with a column that is new. When a column is altered, it looks for the checks of its own kinds of
fields only.
"""

from __future__ import annotations

from typing import Any

from sharding import registry

#: For the name of a column, so that one that is only renamed keeps its check.
COLUMN = "__column_name__"


class IdChecks:
    """Mixin of PostgreSQL's DatabaseSchemaEditor."""

    connection: Any

    def _field_db_check(self, field: Any, field_db_params: Any) -> Any:
        check = field_db_params["check"]
        if check is None or not hasattr(field, "bucket_in"):
            return super()._field_db_check(field, field_db_params)  # type: ignore[misc]
        return check.replace(self.connection.ops.quote_name(field.column), COLUMN)

    def _alter_field(
        self,
        model: Any,
        old_field: Any,
        new_field: Any,
        old_type: Any,
        new_type: Any,
        old_db_params: Any,
        new_db_params: Any,
        strict: bool = False,
    ) -> None:
        if hasattr(old_field, "bucket_in") and old_db_params["check"] and not new_db_params["check"]:
            self._drop_check(model, old_field)
        super()._alter_field(  # type: ignore[misc]
            model, old_field, new_field, old_type, new_type, old_db_params, new_db_params, strict
        )

    def _drop_check(self, model: Any, field: Any) -> None:
        # Django looks for checks of this column alone, and this one is about the bucket, too.
        columns = {field.column, model._meta.get_field(registry.BUCKET_COLUMN).column}
        own = {constraint.name for constraint in model._meta.constraints}
        with self.connection.cursor() as cursor:
            found = self.connection.introspection.get_constraints(cursor, model._meta.db_table)
        for name, each in found.items():
            if each["check"] and set(each["columns"]) == columns and name not in own:
                self.execute(self._delete_check_sql(model, name))  # type: ignore[attr-defined]
