"""
Django's own compilers, with what the seam adds: a part in the door's atomic block, and a look at joins and subqueries.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import OperationalError
from django.db.models.sql import Query

from sharding import cluster_map, locality, registry
from sharding.backends import identities, lookup_writes, whole_rows
from sharding.backends.database_errors import unavailable
from sharding.backends.failures import was_not_reached
from sharding.errors import GlobalJoin, ShardKeyMissing
from sharding.registry import Entry


def owned(name: str, query: Query, alias: str, door: Any, elide_empty: bool) -> Any:
    """Return Django's own compiler on the connection of ``alias``, which takes part in the door's atomic block."""
    connection = door if alias == door.alias else cluster_map.connection_of(alias)
    made = lookup_writes.keeping(name, query, owned_class(native_class(connection, name)))
    compiler = made(query, connection, alias, elide_empty)
    compiler.door = door
    return compiler


def native_class(connection: Any, name: str) -> Any:
    """Return Django's own compiler class for a connection, whether or not its ENGINE is one of ours."""
    native = getattr(connection.ops, "native_compiler", connection.ops.compiler)
    return native(name)


@cache
def owned_class(native: Any) -> type[Any]:
    class OwnedCompiler(native):  # type: ignore[misc]
        """Django's compiler, which joins the door's atomic block before it is executed."""

        #: Looking it up by the connection costs a microsecond.
        door: Any = None

        def as_sql(self, *args: Any, **kwargs: Any) -> Any:
            with _sharded_statement(self.connection):
                return super().as_sql(*args, **kwargs)

        def get_select(self, with_col_aliases: bool = False) -> Any:
            make = super().get_select
            return make(True) if with_col_aliases else whole_rows.select(self, make)

        def get_from_clause(self) -> Any:
            # Ordering and select_related() make their joins while the query is compiled.
            locality.check_compiled(self.query, self.klass_info, registry.entry(self.query.model))
            return super().get_from_clause()

        def sending(self) -> sending:
            return sending(self.connection, self.door)

        def execute_sql(self, *args: Any, **kwargs: Any) -> Any:
            with sending(self.connection, self.door):
                return super().execute_sql(*args, **kwargs)

        if hasattr(native, "execute_returning_sql"):

            def execute_returning_sql(self, *args: Any, **kwargs: Any) -> Any:
                with sending(self.connection, self.door):
                    try:
                        return super().execute_returning_sql(*args, **kwargs)
                    except EmptyResultSet:
                        # Django catches it in execute_sql() alone. Here it may come of the key, which save() adds.
                        return []

    OwnedCompiler.__name__ = f"Owned{native.__name__}"
    return OwnedCompiler


class sending:
    """
    Inside, one statement over sharded tables goes to ``connection``, as a part of the door's atomic block.

    Raises:
        ShardsUnavailable: it is a shard's, and the shard does not answer. An OperationalError as well.
    """

    __slots__ = ("_connection", "_door")

    def __init__(self, connection: Any, door: Any = None) -> None:
        self._connection = connection
        self._door = door or connection.door

    def __enter__(self) -> None:
        connection = self._connection
        try:
            identities.require(connection)
            self._door.enlist(connection.alias)
        except Exception as error:
            self._tell(error)
            raise
        connection.sharded_depth += 1

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._connection.sharded_depth -= 1
        if error is not None:
            self._tell(error)

    def _tell(self, error: BaseException) -> None:
        # Enlisting one shard may fail on another.
        alias = self._connection.alias
        if isinstance(error, OperationalError) and was_not_reached(error, alias):
            raise unavailable(alias, error) from (error.__cause__ or error)


class _sharded_statement:
    """Inside, subqueries over sharded tables may be compiled for ``connection``."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.sharded_depth += 1

    def __exit__(self, *exc_info: object) -> None:
        self._connection.sharded_depth -= 1


@cache
def nested_class(native: Any) -> type[Any]:
    class NestedCompiler(native):  # type: ignore[misc]
        """Django's compiler for a subquery over a sharded model, which only a sharded statement may contain."""

        def as_sql(self, *args: Any, **kwargs: Any) -> Any:
            if not self.connection.sharded_depth:
                entry = registry.get(self.query.model)
                raise GlobalJoin(
                    f"A query that the control database answers contains a subquery over {entry.label}, and sharded "
                    f"rows live on other servers. Evaluate the inner query first: list(inner).",
                    model=entry.label,
                    tables=[entry.table],
                )
            return super().as_sql(*args, **kwargs)

        def get_from_clause(self) -> Any:
            locality.check_compiled(self.query, self.klass_info, registry.entry(self.query.model))
            return super().get_from_clause()

    NestedCompiler.__name__ = f"Nested{native.__name__}"
    return NestedCompiler


@cache
def guarded_class(native: Any) -> type[Any]:
    class GuardedCompiler(native):  # type: ignore[misc]
        """Django's compiler for a global model, which refuses joins to sharded tables."""

        def get_select(self, with_col_aliases: bool = False) -> Any:
            make = super().get_select
            return make(True) if with_col_aliases else whole_rows.select(self, make)

        def get_from_clause(self) -> Any:
            locality.check_compiled(self.query, self.klass_info, None)
            return super().get_from_clause()

        def get_combinator_sql(self, *args: Any) -> Any:
            locality.check_parts(self.query)
            return super().get_combinator_sql(*args)

    GuardedCompiler.__name__ = f"Guarded{native.__name__}"
    return GuardedCompiler


@cache
def absent_class(native: Any) -> type[Any]:
    class AbsentCompiler(native):  # type: ignore[misc]
        """Stands for a subquery over a global model in a statement that a shard answers, which has no such table."""

        def as_sql(self, *args: Any, **kwargs: Any) -> Any:
            model = self.query.model
            raise GlobalJoin(
                f"A query that {self.connection.alias!r} answers contains a subquery over {model._meta.label}, and "
                f"global rows live in the control database. Evaluate the inner query first: list(inner).",
                model=model._meta.label,
                tables=[model._meta.db_table],
            )

    AbsentCompiler.__name__ = f"Absent{native.__name__}"
    return AbsentCompiler


@cache
def unbounded_class(native: Any) -> type[Any]:
    class UnboundedCompiler(native):  # type: ignore[misc]
        """Compiles a query that names no shard key (for str(query)), and refuses to execute it."""

        #: A lookup that is not built yet and would know the buckets.
        unbuilt: str | None = None

        def as_sql(self, *args: Any, **kwargs: Any) -> Any:
            with _sharded_statement(self.connection):
                return super().as_sql(*args, **kwargs)

        def execute_sql(self, *args: Any, **kwargs: Any) -> Any:
            raise unbounded(registry.get(self.query.model), self.unbuilt)

        def execute_returning_sql(self, *args: Any, **kwargs: Any) -> Any:
            raise unbounded(registry.get(self.query.model), self.unbuilt)

    UnboundedCompiler.__name__ = f"Unbounded{native.__name__}"
    return UnboundedCompiler


@cache
def empty_class(native: Any) -> type[Any]:
    class EmptyCompiler(native):  # type: ignore[misc]
        """Answers a query that can match no row, without a database."""

        def __init__(self, query: Query, *args: Any) -> None:
            empty = query.clone()
            getattr(empty, "inner_query", empty).set_empty()
            super().__init__(empty, *args)

        def execute_sql(self, *args: Any, **kwargs: Any) -> Any:
            with _sharded_statement(self.connection):
                result = super().execute_sql(*args, **kwargs)
            # Collector adds up the row counts of deletes, and None is no number.
            return 0 if result is None and native.__name__ == "SQLDeleteCompiler" else result

        def execute_returning_sql(self, *args: Any, **kwargs: Any) -> Any:
            return []

    EmptyCompiler.__name__ = f"Empty{native.__name__}"
    return EmptyCompiler


def unbounded(entry: Entry, unbuilt: str | None = None) -> ShardKeyMissing:
    name = entry.model._meta.object_name
    build = "" if unbuilt is None else f" The lookup {unbuilt} would know: run `manage.py shards lookup build`."
    return ShardKeyMissing(
        f"This {name} query names no {entry.key}, so its shard is unknown. Filter on {entry.key}, "
        f"or ask every shard with aggregator.fan_out().{build}",
        model=entry.label,
        field=entry.key,
    )
