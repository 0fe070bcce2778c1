"""
The one seam: which compiler answers a query that is sent to `default`, or to a shard by name.

Django asks ``connection.ops.compiler(name)`` for a compiler at every execution. Queries of global models get Django's
own, untouched; queries of sharded models get one on the connection of the shard that owns their rows.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from django.db.models.sql import Query

from sharding import cluster_map, locality, registry, routing, scopes
from sharding.backends import hook, inserts, updates
from sharding.backends.hook import FanOutRequest
from sharding.errors import GlobalJoin, ShardKeyMissing, WrongShard
from sharding.registry import Entry

INSERT = "SQLInsertCompiler"
UPDATE = "SQLUpdateCompiler"
DELETE = "SQLDeleteCompiler"


class DoorCompiler:
    """Stands where a compiler class would: called with a query, it returns the compiler that answers it."""

    def __init__(self, name: str, native: Any) -> None:
        self.name = name
        self.native = native

    def __call__(self, query: Query, connection: Any, using: str | None, elide_empty: bool = True) -> Any:
        # RawQuery has no model: its SQL is sent as it stands.
        model = getattr(query, "model", None)
        entry = registry.entry(model)
        if entry is None:
            native = self.native if model is None else _guarded(self.native)
            return native(query, connection, using, elide_empty)
        alias = routing.native_alias()
        if alias is not None:
            owner = cluster_map.connection_of(alias)
            return owner.ops.native_compiler(self.name)(query, owner, alias, elide_empty)
        if using is None:
            # A subquery, which is compiled for the connection of the statement around it.
            return _nested(self.native)(query, connection, None, elide_empty)
        query = scopes.apply(query, entry)
        if self.name == INSERT:
            return inserts.compiler(self.native)(query, connection, using, elide_empty)
        return self._routed(query, connection, entry, elide_empty)

    def _routed(self, query: Query, connection: Any, entry: Entry, elide_empty: bool) -> Any:
        buckets = routing.buckets_of(query)
        locality.check(query, entry, buckets)
        if buckets is not None and not buckets:
            return _empty(self.native)(query, connection, connection.alias, elide_empty)
        if self.name == UPDATE:
            query = updates.checked(query, entry, buckets)
        if buckets is not None and len(buckets) == 1:
            (bucket,) = buckets
            return owned(self.name, query, cluster_map.current().owner(bucket), connection, elide_empty)
        owners = cluster_map.current()
        probe = False
        if buckets is None:
            probe = not getattr(query, "fan_out", None) and not _inner_fan_out(query)
            if probe and not routing.is_probe():
                return _unbounded(self.native)(query, connection, connection.alias, elide_empty)
            aliases = owners.aliases
        else:
            aliases = owners.owners_of(buckets)
        return hook.fan_out(FanOutRequest(self.name, query, connection, aliases, buckets, elide_empty, probe))


class ShardCompiler:
    """Stands where a compiler class would, for a shard that is addressed by name."""

    def __init__(self, name: str, native: Any) -> None:
        self.name = name
        self.native = native

    def __call__(self, query: Query, connection: Any, using: str | None, elide_empty: bool = True) -> Any:
        # RawQuery has no model: its SQL is sent as it stands.
        entry = registry.entry(getattr(query, "model", None))
        if entry is None or routing.native_alias() is not None:
            return self.native(query, connection, using, elide_empty)
        if using is None:
            return _nested(self.native)(query, connection, None, elide_empty)
        query = scopes.apply(query, entry)
        if self.name == INSERT:
            _refuse_foreign(entry, connection.alias, inserts.place(query, entry))
        elif self.name in {UPDATE, DELETE}:
            buckets = routing.buckets_of(query)
            if self.name == UPDATE:
                query = updates.checked(query, entry, buckets)
            if buckets:
                _refuse_foreign(entry, connection.alias, cluster_map.current().owners_of(buckets))
        return _owned(self.native)(query, connection, using, elide_empty)


def owned(name: str, query: Query, alias: str, door: Any, elide_empty: bool) -> Any:
    """Return Django's own compiler on the connection of ``alias``, which takes part in the door's atomic block."""
    connection = door if alias == door.alias else cluster_map.connection_of(alias)
    compiler = _owned(native_class(connection, name))(query, connection, alias, elide_empty)
    compiler.door = door
    return compiler


def native_class(connection: Any, name: str) -> Any:
    """Return Django's own compiler class for a connection, whether or not its ENGINE is one of ours."""
    native = getattr(connection.ops, "native_compiler", connection.ops.compiler)
    return native(name)


@cache
def _owned(native: Any) -> type[Any]:
    class OwnedCompiler(native):  # type: ignore[misc]
        """Django's compiler, which joins the door's atomic block before it is executed."""

        #: Looking it up by the connection costs a microsecond.
        door: Any = None

        def as_sql(self, *args: Any, **kwargs: Any) -> Any:
            with _sharded_statement(self.connection):
                return super().as_sql(*args, **kwargs)

        def get_from_clause(self) -> Any:
            # Ordering and select_related() make their joins while the query is compiled.
            locality.check_compiled(self.query, self.klass_info, registry.entry(self.query.model))
            return super().get_from_clause()

        def execute_sql(self, *args: Any, **kwargs: Any) -> Any:
            with sending(self.connection, self.door):
                return super().execute_sql(*args, **kwargs)

        if hasattr(native, "execute_returning_sql"):

            def execute_returning_sql(self, *args: Any, **kwargs: Any) -> Any:
                with sending(self.connection, self.door):
                    return super().execute_returning_sql(*args, **kwargs)

    OwnedCompiler.__name__ = f"Owned{native.__name__}"
    return OwnedCompiler


class sending:
    """Inside, one statement over sharded tables goes to ``connection``, as a part of the door's atomic block."""

    __slots__ = ("_connection", "_door")

    def __init__(self, connection: Any, door: Any = None) -> None:
        self._connection = connection
        self._door = door or connection.door

    def __enter__(self) -> None:
        connection = self._connection
        self._door.enlist(connection.alias)
        connection.sharded_depth += 1

    def __exit__(self, *exc_info: object) -> None:
        self._connection.sharded_depth -= 1


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
def _nested(native: Any) -> type[Any]:
    class NestedCompiler(native):  # type: ignore[misc]
        """Django's compiler for a subquery over a sharded model, which only a sharded statement may contain."""

        def as_sql(self, *args: Any, **kwargs: Any) -> Any:
            if not self.connection.sharded_depth:
                entry = registry.get(self.query.model)
                raise GlobalJoin(
                    f"A query of a global model contains a subquery over {entry.label}, and sharded and global tables "
                    f"live on different servers. Evaluate the inner query first: list(inner).",
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
def _guarded(native: Any) -> type[Any]:
    class GuardedCompiler(native):  # type: ignore[misc]
        """Django's compiler for a global model, which refuses joins to sharded tables."""

        def get_from_clause(self) -> Any:
            locality.check_compiled(self.query, self.klass_info, None)
            return super().get_from_clause()

        def get_combinator_sql(self, *args: Any) -> Any:
            locality.check_parts(self.query)
            return super().get_combinator_sql(*args)

    GuardedCompiler.__name__ = f"Guarded{native.__name__}"
    return GuardedCompiler


@cache
def _unbounded(native: Any) -> type[Any]:
    class UnboundedCompiler(native):  # type: ignore[misc]
        """Compiles a query that names no shard key (for str(query)), and refuses to execute it."""

        def as_sql(self, *args: Any, **kwargs: Any) -> Any:
            with _sharded_statement(self.connection):
                return super().as_sql(*args, **kwargs)

        def execute_sql(self, *args: Any, **kwargs: Any) -> Any:
            raise unbounded(registry.get(self.query.model))

        def execute_returning_sql(self, *args: Any, **kwargs: Any) -> Any:
            raise unbounded(registry.get(self.query.model))

    UnboundedCompiler.__name__ = f"Unbounded{native.__name__}"
    return UnboundedCompiler


@cache
def _empty(native: Any) -> type[Any]:
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
            return 0 if result is None and native.__name__ == DELETE else result

    EmptyCompiler.__name__ = f"Empty{native.__name__}"
    return EmptyCompiler


def unbounded(entry: Entry) -> ShardKeyMissing:
    name = entry.model._meta.object_name
    return ShardKeyMissing(
        f"This {name} query names no {entry.key}, so its shard is unknown. Filter on {entry.key}, "
        f"or ask every shard with aggregator.fan_out().",
        model=entry.label,
        field=entry.key,
    )


def _inner_fan_out(query: Query) -> bool:
    return bool(getattr(getattr(query, "inner_query", None), "fan_out", None))


def _refuse_foreign(entry: Entry, alias: str, owners: Any) -> None:
    for owner in owners:
        if owner != alias:
            raise WrongShard(
                f"This write of {entry.label} is addressed to {alias!r}, but {owner!r} owns its bucket. "
                f"Leave out using({alias!r}), and it is sent to its owner.",
                model=entry.label,
                alias=alias,
                expected=owner,
            )
