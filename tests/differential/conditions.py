"""
Random WHERE clauses over orders, as trees of plain values.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.db.models import Exists, F, OuterRef, Q
from hypothesis import strategies as st

from tests.differential.data import COUNTRIES, LABELS, NAMES, PRODUCTS, REGIONS, STATUSES, TENANTS
from tests.shop.models import Country, Customer, Line, Order, Region

#: What reads rows of other buckets, so that fan_out() must be written.
ELSEWHERE = frozenset({"subquery", "foreign subquery", "foreign exists", "global join", "global subquery"})


@dataclass(frozen=True)
class Leaf:
    construct: str
    lookup: str
    value: Any

    def q(self) -> Q:
        if self.lookup == "SUBQUERY":
            return Q(customer__in=Customer.objects.filter(name=self.value))
        if self.lookup == "COUNTRIES":
            return Q(customer__country__in=Country.objects.filter(currency__digits__lte=self.value))
        if self.lookup == "FOREIGN":
            return Q(status__in=Order.objects.filter(tenant_id=self.value).values("status"))
        if self.lookup == "AMOUNTS":
            return Q(quantity__in=Line.objects.filter(product=self.value).values("amount"))
        if self.lookup == "EXISTS ELSEWHERE":
            return Q(Exists(Line.objects.filter(amount=OuterRef("quantity"), product=self.value)))
        if self.lookup == "REGIONS":
            return Q(customer__region__in=Region.objects.filter(name__gte=self.value))
        if self.lookup == "EXISTS":
            return Q(Exists(Line.objects.filter(order_id=OuterRef("pk"), amount__gte=self.value)))
        return Q(**{self.lookup: F(self.value[2:]) if str(self.value).startswith("F:") else self.value})

    def constructs(self) -> set[str]:
        return {self.construct}


@dataclass(frozen=True)
class Node:
    connector: str
    children: tuple[Any, ...]

    def q(self) -> Q:
        if self.connector == "NOT":
            return ~self.children[0].q()
        result = self.children[0].q()
        for child in self.children[1:]:
            result = (
                result & child.q()
                if self.connector == "AND"
                else (result | child.q() if self.connector == "OR" else result ^ child.q())
            )
        return result

    def constructs(self) -> set[str]:
        return {self.connector}.union(*(child.constructs() for child in self.children))


def _leaf(construct: str, lookup: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Leaf]:
    return st.builds(Leaf, st.just(construct), st.just(lookup), values)


_tenants = st.sampled_from(TENANTS)
_amounts = st.integers(0, 3)
_moments = st.sampled_from([datetime.datetime(2013, month, 1, 12, tzinfo=datetime.UTC) for month in (1, 2, 3)])
_totals = st.sampled_from([Decimal(0), Decimal("2.50"), Decimal("5"), Decimal("9.99")])

leaves = st.one_of(
    _leaf("compare", "status", st.sampled_from(STATUSES)),
    _leaf("in", "status__in", st.lists(st.sampled_from(STATUSES), max_size=3)),
    _leaf("in", "quantity__in", st.lists(_amounts, max_size=3)),
    _leaf("compare", "quantity__gte", _amounts),
    _leaf("compare", "quantity__lt", _amounts),
    _leaf("null", "quantity__isnull", st.booleans()),
    _leaf("null", "created__isnull", st.booleans()),
    _leaf("compare", "total__gt", _totals),
    _leaf("range", "total__range", st.tuples(_totals, _totals)),
    _leaf("range", "quantity__range", st.tuples(_amounts, _amounts)),
    _leaf("float", "weight__lte", st.sampled_from([0.0, 0.5, 2.0])),
    _leaf("float", "weight__gt", st.sampled_from([0.0, 0.5, 2.0])),
    _leaf("date", "created__gte", _moments),
    _leaf("date", "created__lt", _moments),
    _leaf("date", "customer__joined__year", st.just(2013)),
    _leaf("text", "status__contains", st.sampled_from(["e", "a", "t"])),
    _leaf("text", "customer__name__gt", st.sampled_from(NAMES)),
    _leaf("expression", "quantity__gt", st.just("F:total")),
    _leaf("expression", "total__lte", st.just("F:quantity")),
    _leaf("expression", "weight__lt", st.just("F:quantity")),
    _leaf("join", "customer__name", st.sampled_from(NAMES)),
    _leaf("join", "customer__joined__isnull", st.booleans()),
    _leaf("join to many", "lines__amount__gte", _amounts),
    _leaf("join to many", "lines__product", st.sampled_from(PRODUCTS)),
    _leaf("many to many", "tags__label", st.sampled_from(LABELS)),
    _leaf("many to many", "tags__label__gt", st.sampled_from(LABELS)),
    _leaf("many to many", "tags__label__lte", st.sampled_from(LABELS)),
    _leaf("key", "tenant_id", _tenants),
    _leaf("key", "tenant_id", _tenants),
    _leaf("keys", "tenant_id__in", st.lists(_tenants, min_size=1, max_size=4)),
    _leaf("keys", "tenant_id__in", st.lists(_tenants, min_size=3, max_size=6)),
    _leaf("exists", "EXISTS", _amounts),
    _leaf("exists", "EXISTS", _amounts),
    _leaf("reference", "customer__country__code", st.sampled_from(COUNTRIES)),
    _leaf("reference", "customer__country__currency__digits__gte", _amounts),
    _leaf("reference", "customer__country__currency__isnull", st.booleans()),
    _leaf("reference", "COUNTRIES", _amounts),
    _leaf("reference to many", "customer__country__neighbours__code", st.sampled_from(COUNTRIES)),
    _leaf("reference to many", "customer__country__neighbours__code", st.sampled_from(COUNTRIES)),
    _leaf("subquery", "SUBQUERY", st.sampled_from(NAMES)),
    _leaf("subquery", "SUBQUERY", st.sampled_from(NAMES)),
    _leaf("foreign subquery", "FOREIGN", _tenants),
    _leaf("foreign subquery", "AMOUNTS", st.sampled_from(PRODUCTS)),
    _leaf("foreign exists", "EXISTS ELSEWHERE", st.sampled_from(PRODUCTS)),
    _leaf("foreign exists", "EXISTS ELSEWHERE", st.sampled_from(PRODUCTS)),
    _leaf("global join", "customer__region__name", st.sampled_from(REGIONS)),
    _leaf("global join", "customer__region__isnull", st.booleans()),
    _leaf("global subquery", "REGIONS", st.sampled_from(REGIONS)),
    _leaf("global subquery", "REGIONS", st.sampled_from(REGIONS)),
)


def _grown(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Node]:
    several = st.lists(children, min_size=2, max_size=3).map(tuple)
    return st.one_of(
        st.builds(Node, st.just("AND"), several),
        st.builds(Node, st.just("OR"), several),
        st.builds(Node, st.just("OR"), several),
        st.builds(Node, st.just("NOT"), st.tuples(children)),
    )


conditions = st.recursive(leaves, _grown, max_leaves=6)
