"""
Random programs, as plain values: what is asked, of which rows, in which order; or what is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.differential.conditions import conditions
from tests.differential.data import COUNTRIES, TENANTS

FIELDS = (
    "status",
    "quantity",
    "total",
    "weight",
    "created",
    "tenant_id",
    "customer__name",
    "customer__joined",
    "customer__email",
    "customer__country__code",
)
WINDOWS = ("rank", "row number", "lag", "running sum", "ntile", "first value", "average")
GROUPS = ("status", "tenant_id", "quantity", "customer__name", "created", "customer__country__name")
AGGREGATES = (
    ("Count", "id"),
    ("Count", "quantity"),
    ("Sum", "quantity"),
    ("Sum", "total"),
    ("Sum", "weight"),
    ("Min", "status"),
    ("Min", "total"),
    ("Max", "created"),
    ("Max", "customer__name"),
    ("Avg", "quantity"),
    ("Avg", "total"),
    ("Count distinct", "status"),
    ("Sum filter", "quantity"),
    ("Sum default", "quantity"),
    ("Count distinct", "quantity"),
    ("Count distinct", "customer__name"),
    ("Sum filter", "total"),
    ("Sum filter", "weight"),
    ("Sum default", "total"),
    ("Sum default", "weight"),
    ("StdDev", "weight"),
    ("StdDev", "quantity"),
    ("StdDev", "total"),
    ("StdDev sample", "quantity"),
    ("StdDev sample", "total"),
    ("StdDev filter", "weight"),
    ("StdDev filter", "quantity"),
    ("Variance", "quantity"),
    ("Variance", "total"),
    ("Variance sample", "weight"),
    ("Variance sample", "total"),
    ("BitXor", "quantity"),
    ("BitXor", "tenant_id"),
    ("BitOr", "quantity"),
    ("BitOr", "tenant_id"),
    ("BoolAnd", "quantity"),
    ("BoolAnd", "total"),
    ("BoolOr", "total"),
    ("BoolOr", "weight"),
    ("ArrayAgg", "total"),
    ("ArrayAgg", "customer__name"),
    ("ArrayAgg", "weight"),
    ("StringAgg distinct", "status"),
    ("StringAgg distinct", "customer__name"),
)


@dataclass(frozen=True)
class Read:
    """One question."""

    reach: str
    keys: tuple[int, ...]
    where: Any
    #: rows, values, values_list, group, aggregate, count, exists, first, last, and those of gathered.py
    shape: str
    fields: tuple[str, ...] = ()
    #: (field, descending, nulls: "", "first" or "last")
    order: tuple[tuple[str, bool, str], ...] = ()
    distinct: bool = False
    bounds: tuple[int, int] | None = None
    aggregates: tuple[tuple[str, str], ...] = ()
    having: int | None = None
    order_by_aggregate: bool = False
    windows: tuple[str, ...] = ()

    def constructs(self) -> set[str]:
        found = {self.reach} | (self.where.constructs() if self.where else set())
        shapes = {"rows": "instances", "exists": "exists()"}
        found.add(shapes.get(self.shape, self.shape))
        found |= {"order-desc" if descending else "order" for _, descending, _ in self.order}
        found |= {f"nulls-{nulls}" for _, _, nulls in self.order if nulls}
        found |= {"order-by-join" for name, _, _ in self.order if "__" in name}
        found |= {name for name, _ in self.aggregates} | {*self.windows}
        if self.bounds is not None:
            found |= {"slice", "offset"} if self.bounds[0] else {"slice"}
        flags = {"distinct": self.distinct, "having": self.having is not None}
        return (
            found
            | {name for name, is_set in flags.items() if is_set}
            | ({"order-by-aggregate"} if self.order_by_aggregate else set())
        )


@dataclass(frozen=True)
class Write:
    """A few changes inside one atomic block, which is rolled back when the rows have been compared."""

    changes: tuple[tuple[str, Any], ...]
    savepoint: bool

    def constructs(self) -> set[str]:
        found = {name for name, _ in self.changes} | ({"savepoint"} if self.savepoint else set())
        for name, detail in self.changes:
            if name in {"update", "delete"}:
                found |= {detail[0]} | (detail[2].constructs() if detail[2] else set())
        return found


_reaches = st.sampled_from(["all-shards"] * 6 + ["several-keys"] * 3 + ["one-key"])
_keys = st.lists(st.sampled_from(TENANTS), min_size=3, max_size=6, unique=True).map(tuple)
_where = st.one_of(st.none(), conditions, conditions, conditions, conditions)
_bounds = st.one_of(
    st.none(), st.tuples(st.just(0), st.integers(1, 12)), st.tuples(st.integers(1, 9), st.integers(1, 12))
)
_order = st.lists(
    st.tuples(st.sampled_from(FIELDS), st.booleans(), st.sampled_from(["first", "", "last"])),
    min_size=1,
    max_size=2,
    unique_by=lambda each: each[0],
).map(tuple)
_maybe_order = st.one_of(st.just(()), _order, _order)
_some_fields = st.lists(st.sampled_from(FIELDS), min_size=1, max_size=3, unique=True).map(tuple)
_some_groups = st.lists(st.sampled_from(GROUPS), min_size=1, max_size=2, unique=True).map(tuple)
_some_aggregates = st.lists(st.sampled_from(AGGREGATES), min_size=3, max_size=8, unique=True).map(tuple)


def _plain(shape: str) -> st.SearchStrategy[Read]:
    return st.builds(
        Read,
        reach=_reaches,
        keys=_keys,
        where=_where,
        shape=st.just(shape),
        fields=_some_fields,
        order=_maybe_order,
        distinct=st.booleans(),
        bounds=_bounds,
    )


_grouped = st.builds(
    Read,
    reach=_reaches,
    keys=_keys,
    where=_where,
    shape=st.just("group"),
    fields=_some_groups,
    bounds=_bounds,
    aggregates=_some_aggregates,
    having=st.one_of(st.none(), st.integers(0, 3)),
    order_by_aggregate=st.booleans(),
)
_aggregated = st.builds(
    Read, reach=_reaches, keys=_keys, where=_where, shape=st.just("aggregate"), aggregates=_some_aggregates
)


def _gathered(shape: str) -> st.SearchStrategy[Read]:
    return st.builds(
        Read,
        reach=_reaches,
        keys=_keys,
        where=_where,
        shape=st.just(shape),
        fields=_some_fields,
        bounds=_bounds,
    )


_windows = st.builds(
    Read,
    reach=_reaches,
    keys=_keys,
    where=_where,
    shape=st.just("window"),
    fields=_some_fields,
    bounds=_bounds,
    windows=st.lists(st.sampled_from(WINDOWS), min_size=1, max_size=4, unique=True).map(tuple),
)

_limited = st.tuples(st.sampled_from(["all-shards", "several-keys"]), _keys, st.one_of(st.none(), conditions))
_changes = st.one_of(
    st.tuples(st.just("update"), _limited),
    st.tuples(st.just("update"), _limited),
    st.tuples(st.just("delete"), _limited),
    st.tuples(st.just("bulk_create"), _keys),
    st.tuples(st.just("save"), st.integers(0, 50)),
    st.tuples(st.just("get_or_create"), st.tuples(st.sampled_from(TENANTS), st.integers(0, 5))),
    st.tuples(st.just("change a country"), st.sampled_from(COUNTRIES)),
    st.tuples(st.just("delete a country"), st.sampled_from(COUNTRIES)),
    st.tuples(st.just("make a country"), st.integers(0, 5)),
    st.tuples(st.just("make a country"), st.integers(0, 5)),
)
_writes = st.builds(Write, changes=st.lists(_changes, min_size=1, max_size=3).map(tuple), savepoint=st.booleans())
_few_keys = st.lists(st.sampled_from(TENANTS), min_size=1, max_size=3, unique=True).map(tuple)
_ways = st.sampled_from(["update", "add", "bulk_update"])
_foreign_keys = st.tuples(st.just("foreign key"), st.tuples(_few_keys, st.integers(0, 3), _ways))
_foreign_key_writes = st.builds(Write, changes=st.tuples(_foreign_keys, _changes), savepoint=st.booleans())

#: What is tried, and how many in a thousand programs are of that kind.
SHARES: dict[str, tuple[st.SearchStrategy[Any], int]] = {
    "rows": (_plain("rows"), 120),
    "values": (_plain("values"), 80),
    "values_list": (_plain("values_list"), 80),
    "count": (_plain("count"), 50),
    "exists": (_plain("exists"), 40),
    "first": (_plain("first"), 50),
    "last": (_plain("last"), 50),
    "window": (_windows, 120),
    "filter by a window": (_gathered("filter by a window"), 25),
    "distinct on": (_gathered("distinct on"), 30),
    "union": (_gathered("union"), 30),
    "intersection": (_gathered("intersection"), 25),
    "difference": (_gathered("difference"), 25),
    "over a slice": (_gathered("over a slice"), 30),
    "over distinct rows": (_gathered("over distinct rows"), 25),
    "over groups": (_gathered("over groups"), 30),
    "group": (_grouped, 180),
    "aggregate": (_aggregated, 160),
    "write": (_writes, 190),
    "foreign keys": (_foreign_key_writes, 40),
}
