"""
Aggregates over an inner query: count() of a slice or of DISTINCT rows, aggregate() after annotate().
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db.models.sql.constants import MULTI, SINGLE

from aggregator import bounds, compilers, executor, finishing, gather, partials, planner, policy
from aggregator.merge import Row
from aggregator.planner import Plan, Tier
from sharding.backends.compilers import native_class
from sharding.backends.hook import FanOutRequest
from sharding.errors import CannotMerge, GlobalJoin


def aggregate_compiler(request: FanOutRequest) -> Any:
    """Return the compiler of an aggregate over an inner query."""
    if len(request.aliases) == 1:
        native = request.native()
        made: Any = type(native)
        checked = _checked(made)(native.query, native.connection, native.using, native.elide_empty)
        checked.request = request
        return bounds.bounded(request, checked)
    connection = gather.home_of(request)
    native_type: Any = native_class(connection, compilers.AGGREGATE)
    return _aggregating(native_type)(request, connection)


def inner_compiler(request: FanOutRequest) -> Any:
    """Return the compiler of the inner query alone, as if it were asked for by itself."""
    query: Any = request.query
    return compilers.select_compiler(replace(request, name=compilers.SELECT, query=query.inner_query.clone()))


def plan_of(request: FanOutRequest, inner: Any) -> Plan:
    """Return the plan of the aggregates, once the inner compiler's clauses are resolved."""
    query: Any = request.query
    return planner.plan_outer(query, inner.plan, sliced=query.inner_query.is_sliced)


class CheckedAggregate:
    """One shard owns all buckets today: what several could not answer is refused, and Django's statement is sent."""

    request: FanOutRequest

    def as_sql(self, *args: Any, **kwargs: Any) -> Any:
        try:
            inner = inner_compiler(self.request)
            with inner.connection.sharded_statements():
                inner.pre_sql_setup()
            plan_of(self.request, inner)
        except (CannotMerge, GlobalJoin) as refusal:
            gather.compiler(self.request, refusal).plan_only()
        return super().as_sql(*args, **kwargs)  # type: ignore[misc]


class Aggregating:
    """Every shard aggregates the rows of its own inner query, unless these must be merged first."""

    query: Any
    connection: Any
    elide_empty: bool
    drops_order = False
    plan: Plan

    def __init__(self, request: FanOutRequest, connection: Any) -> None:
        self.request = request
        super().__init__(request.query, connection, connection.alias, request.elide_empty)  # type: ignore[call-arg]

    def execute_sql(self, result_type: Any = MULTI, *args: Any, **kwargs: Any) -> Any:
        compiler: Any = self
        compiler.col_count, compiler.has_extra_select = len(self.query.annotation_select), False
        try:
            row = self._row()
        except EmptyResultSet:
            row = None
        except (CannotMerge, GlobalJoin) as refusal:
            return gather.become(self, refusal).execute_sql(result_type)
        if result_type == SINGLE:
            return row
        return iter([]) if row is None else [[row]]

    def _row(self) -> Row:
        inner = inner_compiler(self.request)
        asked = policy.of(self.request.query)
        with executor.participating(self.request.door, self.request.aliases, asked) as connections:
            inner.order_matters = False
            # As Django does for a subquery; what is prepared now is what is sent.
            inner.pre_sql_setup(with_col_aliases=True)
            self.plan = plan_of(self.request, inner)
            select = list(self.query.annotation_select.values())
            if not planner.counts_rows(select):
                statements = partials.of_rows(self, select, inner.as_sql(with_col_aliases=True), connections)
                return next(partials.answered(self, statements, connections))
            if inner.plan.tier is Tier.MERGE and not inner.plan.distinct:
                number = self._counted(inner, connections)
            else:
                # Django would cut hidden columns off a subquery.
                inner.query.subquery = False
                number = sum(1 for _ in inner.rows())
            return (number,) * len(select)

    def _counted(self, inner: Any, connections: Any) -> int:
        """Count on the shards: as many rows each as the slice can need."""
        sql, params = inner.as_sql(with_col_aliases=True)
        task = finishing.fetching(f"SELECT COUNT(*) FROM ({sql}) subquery", params)
        number: int = sum(rows[0][0] for rows in executor.run(connections, task))
        if inner.high is not None:
            number = min(number, inner.high)
        skipped: int = inner.low
        return max(0, number - skipped)

    def explain_query(self) -> Iterator[str]:
        for alias in self.request.aliases:
            yield f"-- {alias}"
            yield from self.request.native(alias, self.request.query.clone()).explain_query()


@cache
def _aggregating(native: Any) -> Any:
    return type(f"Aggregating{native.__name__}", (Aggregating, native), {})


@cache
def _checked(native: Any) -> Any:
    return type(f"Checked{native.__name__}", (CheckedAggregate, native), {})
