"""
What our database wrappers add to Django's: `default` is the door of the cluster, the other aliases are its shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DEFAULT_DB_ALIAS, Error, connections

from sharding import conf, routing
from sharding.backends import failures, hook
from sharding.backends.compilers import DoorCompiler, ShardCompiler
from sharding.backends.conflicts import TellingConflicts
from sharding.backends.coordinator import Coordinator
from sharding.backends.lock_timeouts import BoundedBlocks
from sharding.backends.raw_reference_sql import refuse_missing_copies
from sharding.backends.raw_sql import CONTROL_ONLY
from sharding.backends.raw_statements import on_default
from sharding.backends.transactions import DoorTransactions
from sharding.commits import background, waiting


class ClusterOperations:
    """Mixin of DatabaseOperations: its ``compiler()`` is the seam."""

    connection: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._compilers: dict[str, Any] = {}

    def native_compiler(self, name: str) -> type[Any]:
        """Return Django's own compiler class of this engine."""
        found: type[Any] = super().compiler(name)  # type: ignore[misc]
        return found

    def compiler(self, name: str) -> Any:
        try:
            return self._compilers[name]
        except KeyError:
            self._compilers[name] = made = self._make(name)
            return made

    def _make(self, name: str) -> Any:
        native = self.native_compiler(name)
        alias = self.connection.alias
        if alias == DEFAULT_DB_ALIAS:
            return DoorCompiler(name, native)
        return ShardCompiler(name, native) if alias in conf.current().shards else native

    def sequence_reset_sql(self, style: Any, model_list: Any) -> list[str]:
        # loaddata sends these as raw SQL.
        return [f"{CONTROL_ONLY} {sql}" for sql in super().sequence_reset_sql(style, model_list)]  # type: ignore[misc]

    def execute_sql_flush(self, sql_list: Any) -> None:
        hook.clean()
        with self.connection.sharded_statements():
            super().execute_sql_flush(sql_list)  # type: ignore[misc]


class ClusterWrapper(TellingConflicts, BoundedBlocks, DoorTransactions):
    """Mixin of DatabaseWrapper."""

    execute_wrappers: list[Any]
    vendor: str
    wrap_database_errors: Any

    def __init__(self, settings_dict: dict[str, Any], alias: str = DEFAULT_DB_ALIAS) -> None:
        super().__init__(settings_dict, alias)
        #: More than 0 while a statement over sharded tables is compiled or executed on purpose.
        self.sharded_depth = 0
        self.is_door = alias == DEFAULT_DB_ALIAS
        #: Waits for the answer to a statement that was sent by itself; None while there is none.
        self.in_flight: Callable[[], None] | None = None
        #: Of a statement that is compiled for rows of all shards: it is told what each part reads.
        self.gathering: Any = None
        #: Of a shard's wrapper, ask its door's.
        self.coordinator = Coordinator()
        #: Whether prepared transactions of ours may stand in its way.
        self.is_prepared_here = not self.is_door and self.vendor == "postgresql" and alias in conf.current().shards
        if self.is_door:
            self.execute_wrappers.append(on_default)
        elif alias in conf.current().shards:
            self.execute_wrappers.append(refuse_missing_copies)
        if self.is_prepared_here:
            waiting.watch(self)

    def connect(self) -> None:
        try:
            # Here already: what wraps the driver's error in Django's drops the notes.
            with self.wrap_database_errors:
                super().connect()
        except Error as error:
            if self.alias in conf.current().shards:
                failures.note_where(error, self.alias)
            raise
        if self.is_prepared_here:
            background.begin()

    def ensure_connection(self) -> None:
        # Whoever asks for a cursor or a transaction meanwhile, an execute wrapper of another statement say.
        if self.in_flight is not None:
            self.in_flight()
        super().ensure_connection()  # type: ignore[misc]

    @property
    def door(self) -> Any:
        return self if self.is_door else connections[DEFAULT_DB_ALIAS]

    @contextmanager
    def sharded_statements(self) -> Iterator[None]:
        """Allow raw SQL over this database's own sharded tables inside."""
        self.sharded_depth += 1
        try:
            yield
        finally:
            self.sharded_depth -= 1


class ClusterIntrospection:
    """Mixin of DatabaseIntrospection: the control database's own tables can be looked at."""

    connection: Any

    def get_table_description(self, cursor: Any, table_name: str) -> Any:
        # On PostgreSQL it selects from the table.
        with self.connection.sharded_statements():
            return super().get_table_description(cursor, table_name)  # type: ignore[misc]


class ClusterCreation:
    """Mixin of DatabaseCreation: a test database is made with a bucket map, and dumped by itself."""

    connection: Any

    def create_test_db(self, *args: Any, **kwargs: Any) -> str:
        # A connection of its threads would be in the way of dropping the database.
        background.allowed = False
        name: str = super().create_test_db(*args, **kwargs)  # type: ignore[misc]
        from sharding.testing.cluster import initialise_test_database

        initialise_test_database(self.connection.alias)
        return name

    def clone_test_db(self, suffix: str, *args: Any, **kwargs: Any) -> None:
        super().clone_test_db(suffix, *args, **kwargs)  # type: ignore[misc]
        from sharding.testing.clones import tell_clone_of_control

        tell_clone_of_control(self.connection.alias, suffix)

    def serialize_db_to_string(self) -> str:
        # Every physical database is saved and restored on its own.
        with routing.native(self.connection.alias):
            return str(super().serialize_db_to_string())  # type: ignore[misc]

    def deserialize_db_from_string(self, data: str) -> None:
        with routing.native(self.connection.alias):
            super().deserialize_db_from_string(data)  # type: ignore[misc]
