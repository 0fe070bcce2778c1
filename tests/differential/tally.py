"""
What the programs of a run covered, and what was refused.
"""

from __future__ import annotations

from collections import Counter

import sharding
from tests.differential.execution import matching_tenants
from tests.differential.programs import Read, Write
from tests.shop.models import Order

#: Constructs that must never be refused.
CORE = frozenset(
    {
        "AND",
        "OR",
        "NOT",
        "compare",
        "in",
        "null",
        "range",
        "float",
        "date",
        "text",
        "expression",
        "join",
        "key",
        "keys",
        "exists",
        "reference",
        "reference to many",
        "one-key",
        "several-keys",
        "all-shards",
        "order",
        "order-desc",
        "nulls-first",
        "nulls-last",
        "order-by-join",
        "slice",
        "offset",
        "distinct",
        "values",
        "values_list",
        "instances",
        "group",
        "having",
        "order-by-aggregate",
        "aggregate",
        "count",
        "exists()",
        "first",
        "last",
        "Count",
        "Sum",
        "Min",
        "Max",
        "Avg",
        "StdDev",
        "StdDev sample",
        "StdDev filter",
        "Variance",
        "Variance sample",
        "BitXor",
        "BitOr",
        "BoolAnd",
        "BoolOr",
        "StringAgg distinct",
        "update",
        "delete",
        "bulk_create",
        "save",
        "get_or_create",
        "foreign key",
        "change a country",
        "delete a country",
        "make a country",
        "subquery",
        "foreign subquery",
        "foreign exists",
        "global join",
        "global subquery",
        "join to many",
        "many to many",
        *("window", "rank", "row number", "lag", "running sum", "ntile", "first value", "average"),
        *("filter by a window", "distinct on", "union", "intersection", "difference"),
        *("over a slice", "over distinct rows", "over groups", "ArrayAgg"),
    }
)
LEAST_OF_EACH = 50
MOST_REFUSED = 0.02
LEAST_OVER_SHARDS = 0.60


class Tally:
    def __init__(self) -> None:
        self.programs = 0
        self.refused = 0
        self.over_shards = 0
        self.constructs: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()

    def note(self, program: Read | Write) -> None:
        self.programs += 1
        self.constructs.update(program.constructs())
        shards = {sharding.shard_of(tenant, model=Order) for tenant in matching_tenants(program)}
        self.over_shards += len(shards) > 1

    def note_refusal(self, program: Read | Write, reason: str) -> None:
        self.refused += 1
        self.refusals[reason] += 1
        assert not program.constructs() <= CORE, f"a program of core constructs was refused: {reason}\n{program}"

    def verify(self, *, least_of_each: int = LEAST_OF_EACH) -> None:
        """Check that the run was worth its name."""
        names = CORE | self.constructs.keys()
        rare = {name: self.constructs[name] for name in names if self.constructs[name] < least_of_each}
        assert not rare, f"constructs that occur too seldom: {rare}"
        assert self.refused <= MOST_REFUSED * self.programs, self.report()
        assert self.over_shards >= LEAST_OVER_SHARDS * self.programs, self.report()

    def report(self) -> str:
        lines = [
            f"{self.programs} programs, {self.over_shards / self.programs:.0%} over two or more shards with matching "
            f"rows, {self.refused / self.programs:.1%} refused",
            "constructs: " + ", ".join(f"{name} {count}" for name, count in self.constructs.most_common()),
            "refused: " + (", ".join(f"{name} {count}" for name, count in self.refusals.most_common()) or "none"),
        ]
        return "\n".join(lines)
