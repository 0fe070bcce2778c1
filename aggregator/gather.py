"""
The compilers of statements that no other tier answers: Django's own statement over the rows of all shards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db.models.sql.constants import GET_ITERATOR_CHUNK_SIZE, MULTI, SINGLE

from aggregator import collations, executor, finishing, gathering, policy
from aggregator.compiled import compilable
from aggregator.gathered_tables import Reads, Recording, recorded
from aggregator.gathering import Statement
from aggregator.merge import Row
from aggregator.planner import Plan, Tier
from sharding import cluster_map
from sharding.backends import hook
from sharding.backends.compilers import asks_every_shard, native_class
from sharding.backends.hook import FanOutRequest
from sharding.errors import ShardsDisagree


def compiler(request: FanOutRequest, refusal: Exception) -> Any:
    """Return the compiler that gathers the rows which a request needs, since ``refusal`` is said of all other tiers."""
    if isinstance(refusal, ShardsDisagree):
        raise refusal
    connection = home_of(request)
    native: Any = native_class(connection, request.name)
    return _gathering(native)(request, connection, refusal)


def become(merging: Any, refusal: Exception) -> Any:
    """Let a compiler that cannot merge gather instead: Django goes on working with it."""
    if isinstance(refusal, ShardsDisagree):
        raise refusal
    native: Any = native_class(merging.connection, merging.request.name)
    merging.__class__ = _gathering(native)
    merging.__init__(merging.request, merging.connection, refusal)
    return merging


def home_of(request: FanOutRequest) -> Any:
    """Return the connection to compile for: not the door's own, whose compilers would ask for a fan-out in turn."""
    alias = next((alias for alias in request.aliases if alias != request.door.alias), request.door.alias)
    return cluster_map.connection_of(alias)


class Gathering(Recording):
    """Sends what Django would send, to a database that is given the rows which others have."""

    query: Any
    connection: Any
    has_extra_select: bool
    col_count: int

    def __init__(self, request: FanOutRequest, connection: Any, refusal: Exception) -> None:
        self.request = request
        self.refusal = refusal
        self.construct: str = getattr(refusal, "construct", "a join to a global model")
        self.plan = Plan(Tier.GATHER, f"the rows are gathered in one place because of {self.construct}")
        query = compilable(request.query.clone())
        self._explained: Any = query.explain_info
        query.explain_info = None
        super().__init__(query, connection, connection.alias, request.elide_empty)  # type: ignore[call-arg]

    def plan_only(self) -> None:
        """
        Find out what would be read, without sending anything.

        Raises:
            CannotMerge: it is not to be had in one place.
        """
        with suppress(EmptyResultSet):
            self.reads()

    def as_sql(self, *args: Any, **kwargs: Any) -> Any:
        if self.connection.gathering is not None:
            return super().as_sql(*args, **kwargs)  # type: ignore[misc]
        # str(query), for one.
        with recorded(self.query, self.connection, everywhere=self._everywhere):
            return super().as_sql(*args, **kwargs)  # type: ignore[misc]

    def execute_sql(
        self, result_type: Any = MULTI, chunked_fetch: bool = False, chunk_size: int = GET_ITERATOR_CHUNK_SIZE
    ) -> Any:
        if not hasattr(self, "has_extra_select"):
            self.has_extra_select = False
        try:
            rows = self.rows()
        except EmptyResultSet:
            return iter([]) if result_type == MULTI else None
        if result_type == MULTI:
            return [[row[: self.col_count] for row in rows] if self.has_extra_select else rows]
        return rows[0][: self.col_count] if rows and result_type == SINGLE else None

    def rows(self) -> list[Row]:
        """
        Return the rows of the answer.

        Raises:
            CannotMerge: what is read is not to be had in one place.
            GatherTooLarge: it is too much.
        """
        sql, params, reads = self.reads()
        door, asked = self.request.door, self._asked()
        home = self.place(reads)
        involved = list(dict.fromkeys([*asked, home.alias]))
        # What needs the control database can be finished nowhere else.
        with executor.participating(door, involved, policy.of(self.query), anywhere=home is not door):
            connections = [cluster_map.connection_of(alias) for alias in asked]
            fields = [field for table in reads.tables(sql, home) for field in table.fields]
            compared = list({each.alias: each for each in (*connections, home)}.values())
            for collation in collations.named_in(sql, fields):
                collations.require_same(self.query, compared, collation)
            if self.has_all_rows(home):
                return executor.run([home], finishing.fetching(sql, params))[0]
            gathered = gathering.in_memory if home.vendor == "sqlite" else gathering.on_a_server
            tables = reads.tables(sql, home)
            return gathered(
                home, connections, Statement(sql, params, tables, self.query.model._meta.label, self.construct)
            )

    def explain_query(self) -> Iterator[str]:
        """Yield why rows are gathered, and each shard's plan for finding them."""
        sql, _, reads = self.reads()
        yield f"-- {self.plan.reason}"
        prefix = self.connection.ops.explain_query_prefix(self._explained.format, **self._explained.options)
        statements = gathering.fetching(self.connection, reads.tables(sql, self.connection))
        with executor.participating(self.request.door, self._asked()) as connections:
            tasks = [finishing.fetching(f"{prefix} {statement}", params) for statement, params in statements]
            answers = [executor.run(connections, task) for task in tasks]
        for place, alias in enumerate(self._asked()):
            yield f"-- {alias}"
            yield from (" ".join(map(str, row)) for answer in answers for row in answer[place])

    def reads(self) -> tuple[str, Any, Reads]:
        """Return the statement, and what it reads of each table."""
        # To plan, and again to execute.
        planned, self.query = self.query, compilable(self.query)
        try:
            with recorded(self.query, self.connection, everywhere=self._everywhere) as reads:
                sql, params = self.as_sql()
        finally:
            self.query = planned
        if reads.is_scoped():
            # The scope limits a query, but neither its subqueries nor what it joins.
            raise self.refusal
        reads.needs_control()
        return sql, params, reads

    def place(self, reads: Reads) -> Any:
        """Return the connection of the database on which the statement is run."""
        return self.request.door if reads.needs_control() else self.connection

    def has_all_rows(self, home: Any) -> bool:
        """Return whether a database has all rows that are read, and no others of their tables."""
        is_shared = self._everywhere and len(cluster_map.current().aliases) > 1
        return self._asked() == (home.alias,) and not is_shared

    def _asked(self) -> tuple[str, ...]:
        if not self._everywhere:
            return self.request.aliases
        return hook.restricted(self.query, cluster_map.current().aliases)

    @property
    def _everywhere(self) -> bool:
        """Whether fan_out() was written: then the rest of a statement may read what is anywhere."""
        return asks_every_shard(self.query)


@cache
def _gathering(native: Any) -> Any:
    return type(f"Gathering{native.__name__}", (Gathering, native), {})
