"""
INSERT, UPDATE and DELETE of reference models: on the control database first, then the resulting rows on every shard.

The control database computes (defaults, expressions, ids, triggers before the write) and its row locks admit one writer
at a time; what it stored is read back by RETURNING and copied by value, so that all copies are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import DEFAULT_DB_ALIAS, transaction

from sharding import cluster_map, conf, reference_copies, reference_models, reference_rows, routing
from sharding.backends import not_migrated
from sharding.backends.database_errors import original
from sharding.backends.failures import is_connection_failure
from sharding.errors import ReferenceKeyChanged, ShardsUnavailable, WrongShard
from sharding.reference_rows import Row, Table

INSERT = "SQLInsertCompiler"
UPDATE = "SQLUpdateCompiler"
DELETE = "SQLDeleteCompiler"
WRITES = frozenset({INSERT, UPDATE, DELETE})


def compiler(name: str, native: Any) -> Any:
    """Return the compiler of a reference model's writes over Django's own."""
    return {INSERT: _inserting, UPDATE: _updating, DELETE: _deleting}[name](native)


@cache
def refusing(native: Any) -> type[Any]:
    """Return the compiler of a write that is addressed to one shard by name."""

    class RefusingCompiler(native):  # type: ignore[misc]
        def execute_sql(self, *args: Any, **kwargs: Any) -> Any:
            raise _one_copy(self.query.get_meta().label, self.connection.alias)

        def execute_returning_sql(self, *args: Any, **kwargs: Any) -> Any:
            raise _one_copy(self.query.get_meta().label, self.connection.alias)

    return _named(RefusingCompiler, native)


def go_everywhere(model: Any) -> bool:
    """Return whether writes of a model go to the shards as well. Without shards, and in migrations, none do."""
    if model is None or not reference_models.is_reference(model):
        return False
    return bool(conf.current().shards) and routing.native_alias() is None


class ReferenceWriting:
    """Mixin of Django's compilers on the connection of `default`."""

    query: Any
    connection: Any

    @contextmanager
    def together(self) -> Iterator[None]:
        """Inside, what is written is written on all databases, or on none."""
        door = self.connection
        # SQLite has no two-phase commit. Without it on PostgreSQL, nothing may be written partly.
        in_turn = door.committing_one_by_one() if door.vendor == "sqlite" else nullcontext()
        with in_turn, transaction.atomic(using=door.alias, savepoint=False):
            reference_rows.write_plainly(door)
            yield

    def write(self, sql: str, params: Any, returned: Sequence[str] = (), *, copy: Any = None) -> list[Row]:
        """
        Execute a statement on the control database and its result on the shards; return the ``returned`` columns.

        Args:
            copy: ``reference_rows.insert`` or ``update``, for the rows as they are now; left out, they are deleted.
        """
        table = reference_rows.table_of(self.query.get_meta().model)
        door = self.connection
        travelling = reference_rows.as_stored(door, table.columns)
        answered = ", ".join(f"{door.ops.quote_name(column)}" for column in returned)
        with door.sharded_statements(), door.cursor() as cursor:
            cursor.execute(f"{sql} RETURNING {', '.join(filter(None, [answered, travelling]))}", params)
            rows = [tuple(row) for row in cursor.fetchall()]
        if rows:
            self._copy(table, [row[len(returned) :] for row in rows], copy or reference_rows.remove)
        return [row[: len(returned)] for row in rows]

    def _copy(self, table: Table, rows: Sequence[Row], copy: Any) -> None:
        for alias in reference_copies.shards_to_write(self.connection, table.name):
            try:
                with _writing_on(self.connection, alias) as shard:
                    copy(shard, table, rows)
            except Exception as error:
                if is_connection_failure(error):
                    raise self._unavailable(alias, error) from error
                unmigrated = not_migrated.lacking(error, table.name, cluster_map.connection_of(alias))
                if unmigrated is not None:
                    raise unmigrated from error.__cause__
                error.add_note(f"on shard {alias!r}")
                raise

    def _unavailable(self, alias: str, error: Exception) -> ShardsUnavailable:
        error = original(error)
        return ShardsUnavailable(
            f"A write of the reference model {self.query.get_meta().label} goes to every shard, and {alias} did not "
            f"answer ({type(error).__name__}), so nothing is written. Repeat it when {alias} is up; .failures has its "
            f"error.",
            failures={alias: error},
        )

    def converted(self, rows: list[Row], fields: Sequence[Any]) -> list[Any]:
        """Return rows as Django's compiler returns those of RETURNING."""
        compiler: Any = self
        table = self.query.get_meta().db_table
        converters = compiler.get_converters([field.get_col(table) for field in fields])
        return list(compiler.apply_converters(rows, converters)) if converters else list(rows)


@contextmanager
def _writing_on(door: Any, alias: str) -> Iterator[Any]:
    shard = cluster_map.connection_of(alias)
    with routing.native(alias):
        door.enlist(alias)
        yield shard


@cache
def _inserting(native: Any) -> type[Any]:
    class ReferenceInsertCompiler(ReferenceWriting, native):  # type: ignore[misc]
        def execute_sql(self, returning_fields: Any = None) -> list[Any]:
            fields = list(returning_fields or ())
            columns = [field.column for field in fields]
            rows: list[Row] = []
            with self.together():
                for sql, params in self.as_sql():
                    rows += self.write(sql, params, columns, copy=reference_rows.insert)
            return self.converted(rows, fields) if fields else []

    return _named(ReferenceInsertCompiler, native)


@cache
def _updating(native: Any) -> type[Any]:
    class ReferenceUpdateCompiler(ReferenceWriting, native):  # type: ignore[misc]
        def execute_sql(self, result_type: Any) -> int:
            with self.together():
                own = self._written(())
                # Of several tables of one model, the first with a value counts, as it does for Django.
                others = [
                    query.get_compiler(self.using).execute_sql(result_type)
                    for query in self.query.get_related_updates()
                ]
            counts = [*([] if own is None else [len(own)]), *filter(None, others)]
            return counts[0] if counts else 0

        def execute_returning_sql(self, returning_fields: Any) -> list[Any]:
            fields = list(returning_fields or ())
            with self.together():
                rows = self._written([field.column for field in fields]) or []
            return self.converted(rows, fields)

        def _written(self, columns: Sequence[str]) -> list[Row] | None:
            """Return a row of the columns for each row that was written, or None when there is nothing to set."""
            _refuse_keys(self.query)
            try:
                sql, params = self.as_sql()
            except EmptyResultSet:
                return []
            return self.write(sql, params, columns, copy=reference_rows.update) if sql else None

    return _named(ReferenceUpdateCompiler, native)


@cache
def _deleting(native: Any) -> type[Any]:
    class ReferenceDeleteCompiler(ReferenceWriting, native):  # type: ignore[misc]
        def execute_sql(self, result_type: Any) -> int:
            with self.together():
                try:
                    sql, params = self.as_sql()
                except EmptyResultSet:
                    return 0
                return len(self.write(sql, params))

    return _named(ReferenceDeleteCompiler, native)


def _named(made: type[Any], native: Any) -> type[Any]:
    made.__name__ = f"Reference{native.__name__}"
    return made


def _one_copy(label: str, alias: str) -> WrongShard:
    return WrongShard(
        f"This write of {label} is addressed to {alias!r}, but a reference model is written on all databases at once. "
        f"Leave out using({alias!r}).",
        model=label,
        alias=alias,
        expected=DEFAULT_DB_ALIAS,
    )


def _refuse_keys(query: Any) -> None:
    for field, _, _ in query.values:
        if field in query.get_meta().pk_fields:
            label = query.get_meta().label
            raise ReferenceKeyChanged(
                f"This update would set {label}.{field.name}, the primary key of a reference model, by which the "
                f"copies of a row are found. Create the row again under the new key, and delete the old one.",
                model=label,
                field=field.name,
            )
