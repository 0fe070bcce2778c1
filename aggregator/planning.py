"""
The part of the compilers that plans: it looks at the clauses of a statement as soon as Django has resolved them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aggregator import gather, ordering, partials, planner, ranks
from aggregator.lengths import INTERVAL, Length
from aggregator.planner import Parts, Plan, Tier
from aggregator.ranks import Kind, Oracle
from sharding import cluster_map
from sharding.backends.hook import FanOutRequest
from sharding.errors import CannotMerge, GlobalJoin


class Planning:
    """Mixin of Django's SQLCompiler: it plans as soon as the clauses are resolved."""

    query: Any
    connection: Any
    plan: Plan
    order: ordering.Order
    #: By what DISTINCT compares, by positions.
    equalities: dict[int, Kind]
    #: The columns that DISTINCT does not compare, since hidden ones stand for them.
    ignored: set[int]
    oracle: Oracle
    groups: list[Any]
    request: FanOutRequest

    def plan_only(self) -> None:
        """
        Resolve the clauses and make the plan, without sending anything.

        Raises:
            CannotMerge: there is none.
        """
        try:
            self._plan_only()
        except (CannotMerge, GlobalJoin) as refusal:
            gather.become(self, refusal).plan_only()

    def _plan_only(self) -> None:
        compiler: Any = self
        refcounts = self.query.alias_refcount.copy()
        try:
            with self.connection.sharded_statements():
                compiler.pre_sql_setup()
                if self.plan.tier is Tier.GATHER:
                    return
                if self.plan.tier is Tier.PARTIALS:
                    partials.verify(self)
                else:
                    # Joins that ordering or select_related() make.
                    compiler.get_from_clause()
        finally:
            self.query.reset_refcounts(refcounts)
        self.verify_collations([cluster_map.connection_of(alias) for alias in self.request.aliases])

    def collapse_group_by(self, expressions: list[Any], having: Any) -> list[Any]:
        self.groups = list(dict.fromkeys(expressions))
        return super().collapse_group_by(expressions, having)  # type: ignore[misc,no-any-return]

    def get_extra_select(self, order_by: list[Any], select: list[Any]) -> list[Any]:
        compiler: Any = self
        extra: list[Any] = super().get_extra_select(order_by, select)  # type: ignore[misc]
        self.groups = []
        compiler.get_group_by([*select, *extra], order_by)
        self.plan = planner.plan(
            Parts(
                self.query,
                [expression for expression, _, _ in select],
                [ordering.expression for ordering, _ in order_by],
                compiler.having,
                self.groups,
                compiler.qualify,
            )
        )
        return self.sorted_select(order_by, [*select, *extra], extra)

    def sorted_select(self, order_by: list[Any], select: list[Any], extra: list[Any]) -> list[Any]:
        self.equalities, self.ignored = {}, set()
        sorts = self.plan.tier is Tier.MERGE and not self.drops_order
        self.order = ordering.order_of(self, order_by if sorts else (), select)
        if self.plan.distinct:
            self._find_equalities(select)
        return extra

    @property
    def drops_order(self) -> bool:
        # Django ignores Meta.ordering where rows are grouped.
        compiler: Any = self
        return bool(compiler._meta_ordering) and bool(self.groups)

    def _find_equalities(self, select: list[Any]) -> None:
        columns = [column for expression, _, _ in select for column in ordering.columns_of(expression)]
        for position, column in enumerate(columns):
            if ordering.type_of(self, column) == INTERVAL:
                self.order.place(self, Length(column))
                self.ignored.add(position)
            construct = f"DISTINCT over {ordering.named(column)}, whose type is unknown"
            kind = ordering.kind_of(self, column, ordering.EQUAL, construct)
            if kind is not None:
                self.equalities[position] = kind

    def verify_collations(self, connections: Sequence[Any]) -> None:
        """
        Find out what depends on the databases' collations: the columns that a shard is asked to compare.

        Raises:
            CannotMerge: the databases do not compare alike.
        """
        self.oracle = ranks.oracle(self.query, self.connection, connections, self.order.kinds, self.equalities)
