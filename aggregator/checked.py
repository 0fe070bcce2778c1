"""
The compilers of statements that one shard answers: for one bucket, and for several, all of which one shard owns today.
The latter is planned as for several shards.

So code that works now goes on working when a bucket moves. What is sent is Django's own statement.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from aggregator import deep_offsets, gather
from aggregator.compiled import compilable
from aggregator.planner import Tier
from aggregator.planning import Planning
from sharding.backends.hook import FanOutRequest
from sharding.errors import CannotMerge, GlobalJoin


def checked_compiler(request: FanOutRequest) -> Any:
    """Return the compiler of a request to one shard."""
    native = request.native()
    made: Any = type(native)
    # Another tier may compile it in turn.
    query = compilable(native.query)
    checked = _checked(made)(query, native.connection, native.using, native.elide_empty)
    checked.request = request
    return checked


def alone_compiler(request: FanOutRequest) -> Any:
    """Return the compiler of a request whose rows are all in one bucket."""
    compiler: Any = request.native()
    native: Any = type(compiler)
    compiler.__class__ = _alone(native)
    compiler.request = request
    return compiler


class Alone:
    """One shard has all rows of the query, and what it joins elsewhere is gathered."""

    request: FanOutRequest

    def execute_sql(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().execute_sql(*args, **kwargs)  # type: ignore[misc]
        except (CannotMerge, GlobalJoin) as refusal:
            return gather.become(self, refusal).execute_sql(*args, **kwargs)


class Checked(Planning):
    """One shard owns all buckets today: what several could not answer is refused, and Django's statement is sent."""

    _executes = False

    def execute_sql(self, *args: Any, **kwargs: Any) -> Any:
        self._executes = True
        deep_offsets.check(self.query, self.query.low_mark)
        try:
            return super().execute_sql(*args, **kwargs)  # type: ignore[misc]
        except (CannotMerge, GlobalJoin) as refusal:
            return gather.become(self, refusal).execute_sql(*args, **kwargs)

    def as_sql(self, *args: Any, **kwargs: Any) -> Any:
        sql = super().as_sql(*args, **kwargs)  # type: ignore[misc]
        try:
            if self.plan.tier is Tier.PARTIALS:
                self.plan_only()
            elif self._executes and self.plan.tier is Tier.MERGE:
                # str(query) asks no database.
                self.verify_collations([self.connection])
        except CannotMerge as refusal:
            self.refused(refusal)
        return sql

    def get_extra_select(self, order_by: list[Any], select: list[Any]) -> list[Any]:
        try:
            return super().get_extra_select(order_by, select)
        except CannotMerge as refusal:
            self.refused(refusal)
            native: Any = super(Planning, self)
            found: list[Any] = native.get_extra_select(order_by, select)
            return found

    def refused(self, refusal: CannotMerge) -> None:
        """Go on with a statement that is not merged, if several shards could answer it otherwise."""
        gathering = gather.compiler(self.request, refusal)
        gathering.plan_only()
        self.plan = gathering.plan


@cache
def _checked(native: Any) -> Any:
    return type(f"Checked{native.__name__}", (Checked, native), {})


@cache
def _alone(native: Any) -> Any:
    return type(f"Alone{native.__name__}", (Alone, native), {})
