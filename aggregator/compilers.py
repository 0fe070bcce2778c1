"""
The compilers that answer a statement from several shards; the door asks for them by the hook.

Each is Django's own compiler on one of the connections, compiles once for all shards, and then runs the statement on
each. For a single shard the same is planned and refused, and Django's own statement is sent, unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, partial
from itertools import chain
from operator import itemgetter
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db.models.expressions import OrderBy
from django.db.models.sql.compiler import PositionRef
from django.db.models.sql.constants import GET_ITERATOR_CHUNK_SIZE, MULTI, SINGLE

from aggregator import (
    batches,
    bounds,
    deep_offsets,
    executor,
    finishing,
    gather,
    merge,
    ordering,
    partials,
    policy,
    streaming,
)
from aggregator.asking import Asking
from aggregator.checked import alone_compiler, checked_compiler
from aggregator.compiled import compilable
from aggregator.merge import Row, SortKey
from aggregator.planner import Tier
from aggregator.planning import Planning
from aggregator.rounds import in_rounds
from sharding import locality, ownership, registry
from sharding.backends import whole_rows
from sharding.backends.compilers import native_class
from sharding.backends.hook import FanOutRequest
from sharding.errors import CannotMerge, GlobalJoin

SELECT = "SQLCompiler"
AGGREGATE = "SQLAggregateCompiler"

#: How many rows QuerySet.get() asks for, without an order, only to count them in its error.
ROWS_OF_GET = 21


def compiler_for(request: FanOutRequest) -> Any:
    """Return the compiler that answers a request of the door. This function is the hook."""
    request = bounds.reachable(request)
    if request.name not in {SELECT, AGGREGATE}:
        from aggregator.writes import write_compiler

        return write_compiler(request)
    if request.refused is not None:
        return gather.compiler(request, request.refused)
    if not request.merged:
        return bounds.bounded(request, alone_compiler(request))
    if request.name == SELECT:
        return select_compiler(request)
    from aggregator.aggregation import aggregate_compiler

    return aggregate_compiler(request)


def select_compiler(request: FanOutRequest) -> Any:
    if len(request.aliases) == 1:
        return bounds.bounded(request, checked_compiler(request))
    connection = gather.home_of(request)
    native_type: Any = native_class(connection, SELECT)
    return _merging(native_type)(request, connection)


class Merging(Planning):
    """Several shards answer, and their rows or partial results become one answer."""

    col_count: int
    has_extra_select: bool
    select: Any

    def __init__(self, request: FanOutRequest, connection: Any) -> None:
        query = compilable(request.limited(request.query))
        if query is request.query:
            query = query.clone()
        # Every shard's first rows may be skipped rows, so the offset is applied to the merged ones.
        self.low, self.high = query.low_mark, query.high_mark
        query.low_mark = 0
        self.request = request
        self._prepared: Any = None
        #: False where rows are only counted or aggregated.
        self.order_matters = True
        #: Whether the order must be total, since each batch of rows begins after the one before.
        self.in_batches = False
        super().__init__(query, connection, connection.alias, request.elide_empty)  # type: ignore[call-arg]

    # What is sent

    def pre_sql_setup(self, with_col_aliases: bool = False) -> Any:
        if self._prepared is None:
            self._prepared = super().pre_sql_setup(with_col_aliases)  # type: ignore[misc]
        return self._prepared

    def get_select(self, with_col_aliases: bool = False) -> Any:
        make = super().get_select  # type: ignore[misc]
        return make(True) if with_col_aliases else whole_rows.select(self, make)

    def set_clauses(self, *clauses: Any) -> None:
        """Let these be what pre_sql_setup() returns: the extra columns, ORDER BY and GROUP BY."""
        self._prepared = clauses

    def as_sql(self, *args: Any, **kwargs: Any) -> Any:
        try:
            with self.connection.sharded_statements():
                return super().as_sql(*args, **kwargs)  # type: ignore[misc]
        except (CannotMerge, GlobalJoin) as refusal:
            if self._prepared is not None:
                raise
            # str(query), before anything is executed.
            return gather.become(self, refusal).as_sql(*args, **kwargs)

    def get_from_clause(self) -> Any:
        # Ordering and select_related() make their joins while the query is compiled.
        compiler: Any = self
        locality.check_compiled(self.query, compiler.klass_info, registry.entry(self.query.model))
        return super().get_from_clause()  # type: ignore[misc]

    def sorted_select(self, order_by: list[Any], select: list[Any], extra: list[Any]) -> list[Any]:
        if self.drops_order:
            compiler: Any = self
            order_by.clear()
            compiler._meta_ordering = None
        if self.plan.tier is Tier.MERGE and (self.in_batches or (self._is_sliced() and not self._order_is_free())):
            # The list is the one from which Django writes ORDER BY.
            order_by.extend(self._ties(order_by, select))
        super().sorted_select(order_by, select, extra)
        return [*extra, *self.order.hidden]

    def _is_sliced(self) -> bool:
        return bool(self.low) or self.high is not None

    def _order_is_free(self) -> bool:
        query = self.query
        if not self.order_matters:
            return True
        if query.order_by or query.extra_order_by or (query.default_ordering and query.get_meta().ordering):
            return False
        # exists() and get(), for which sorting could cost the database its best plan.
        columns = query.default_cols or query.select or query.distinct
        return not columns or (not self.low and self.high == ROWS_OF_GET)

    def _ties(self, order_by: list[Any], select: list[Any]) -> Iterator[Any]:
        """Yield what makes pages consistent: the primary key, or all that is selected, as the last sort keys."""
        compiler: Any = self
        present = {compiler.compile(ordering.expression)[0] for ordering, _ in order_by}
        # In the last key's direction, so that an index on both serves, and reversing a query reverses ties.
        descending = order_by[-1][0].descending if order_by else not self.query.standard_ordering
        for expression in self._tie_expressions(select):
            if compiler.compile(expression)[0] in present:
                continue
            if not self.in_batches and not ordering.is_sortable(self, expression):
                continue
            order = OrderBy(expression, descending=descending)
            # As a reference to the SELECT clause it adds nothing to GROUP BY.
            yield order, (*compiler.compile(order), isinstance(expression, PositionRef))

    def _tie_expressions(self, select: list[Any]) -> Iterator[Any]:
        if self.groups or self.query.distinct:
            columns = [(column, alias) for each, _, alias in select for column in ordering.columns_of(each)]
            for ordinal, (column, alias) in enumerate(columns, start=1):
                yield position_of(ordinal, alias, column)
            return
        base = self.query.get_initial_alias()
        for field in self.query.get_meta().pk_fields:
            yield field.get_col(base)

    # What comes back

    def execute_sql(
        self, result_type: Any = MULTI, chunked_fetch: bool = False, chunk_size: int = GET_ITERATOR_CHUNK_SIZE
    ) -> Any:
        try:
            return self._execute(result_type, chunked_fetch, chunk_size)
        except (CannotMerge, GlobalJoin) as refusal:
            return gather.become(self, refusal).execute_sql(result_type, chunked_fetch, chunk_size)

    def _execute(self, result_type: Any, chunked_fetch: bool, chunk_size: int) -> Any:
        deep_offsets.check(self.query, self.low)
        chunked = chunked_fetch and self.connection.features.can_use_chunked_reads
        chunked = result_type == MULTI and (chunked or batches.are_meant(self.connection, chunk_size))
        try:
            rows = self.rows(chunk_size if chunked else None)
        except EmptyResultSet:
            return iter([]) if result_type == MULTI else None
        if self.has_extra_select:
            # Django counts expressions, and a composite primary key is one expression of several columns.
            width = ordering.width(self.select)
            rows = map(itemgetter(slice(width)), rows)
        if result_type == MULTI:
            return streaming.regrouped(rows, chunk_size) if chunked else [list(rows)]
        if result_type == SINGLE:
            return next(rows, None)
        for _ in rows:
            pass
        return None

    def rows(self, chunk_size: int | None = None) -> Iterator[Row]:
        """
        Ask every shard, and return the rows of the answer, with the hidden columns.

        With a chunk size, rows are fetched from the servers only as they are needed.

        Raises:
            EmptyResultSet: the statement can match no row.
        """
        door, aliases = self.request.door, self.request.aliases
        statement = None
        with executor.participating(door, aliases, policy.of(self.request.query)) as connections:
            self.in_batches = chunk_size is not None and any(map(batches.are_needed, connections))
            if self.in_batches:
                # A move may begin before the last of them is sent.
                ownership.make_careful(self.query)
            refcounts = self.query.alias_refcount.copy()
            try:
                self.pre_sql_setup()
                if self.plan.tier is Tier.PARTIALS:
                    return partials.rows(self, connections)
                if self.in_batches:
                    statement = batches.statement_of(self)
                sql, params = self.as_sql()
            finally:
                self.query.reset_refcounts(refcounts)
            self.verify_collations(connections)
            lazily = partial(self._merged_lazily, executor.asking_now())
            # Ranks tell which of all rows are equal only when all rows are at hand.
            if statement is not None and chunk_size is not None:
                share = streaming.share(chunk_size, connections)
                return lazily([batches.chunks(statement, each, share) for each in connections])
            if chunk_size is not None and not self.in_batches and not self.oracle.equality:
                return streaming.stream(connections, sql, params, chunk_size, lazily)
            if self.high is not None and self.oracle.is_idle and self.connection.vendor == "postgresql":
                # Each shard sends as many rows as the slice may take of it, and most of them are left.
                size = self.high // (2 * len(connections)) + 1
                return self._merged(executor.run(connections, finishing.reading(sql, params, size)), self.order.keys)
            lists = executor.run(connections, finishing.fetching(sql, params))
            return self._merged(lists, *self.oracle.read(self.order.keys, lists))

    def _merged_lazily(self, asking: Asking, chunks: Sequence[Iterator[list[Row]]]) -> Iterator[Row]:
        if not self.order.keys:
            return self._merged(list(map(chain.from_iterable, chunks)))

        def keys(held: Sequence[Sequence[Row]]) -> Sequence[SortKey]:
            with executor.again(asking):
                return self.oracle.read(self.order.keys, held)[0]

        return self._merged([in_rounds(chunks, keys)])

    def _merged(self, streams: Sequence[Any], keys: Any = (), identities: Any = None) -> Iterator[Row]:
        low, high, distinct = self.low, self.high, self.plan.distinct
        same = {**(identities or {}), **dict.fromkeys(self.ignored, lambda value: None)}
        return merge.merged(streams, keys, distinct=distinct, identities=same, low=low, high=high)

    def explain_query(self) -> Iterator[str]:
        """Yield the plan of every shard under its name."""
        self.plan_only()
        if self.plan.tier is Tier.GATHER:
            # It has become another.
            yield from self.explain_query()
            return
        for alias in self.request.aliases:
            yield f"-- {alias}"
            # Each shard is asked for as many rows as the slice needs in the worst case: with the offset's.
            yield from self.request.native(alias, self.query.clone()).explain_query()


def position_of(ordinal: int, alias: str | None, expression: Any) -> Any:
    # The stubs know nothing of its constructor.
    make: Any = PositionRef
    return make(ordinal, alias, expression)


@cache
def _merging(native: Any) -> Any:
    return type(f"Merging{native.__name__}", (Merging, native), {})
