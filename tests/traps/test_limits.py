"""Limits and offsets: what a shard may cut off, and what only the merged rows tell."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.paginator import Paginator
from django.db.models import Avg, Count, Sum

from aggregator import KeysetPaginator, explain, fan_out
from tests.shop.models import Order
from tests.traps.naive import joined, of_each_shard, orders, require
from tests.two_sides import save

pytestmark = pytest.mark.django_db(databases="__all__")


def test_limit_is_not_pushed_below_group_by(tenants: list[int]) -> None:
    """The group that is largest over all is the largest on no shard."""
    orders(tenants, "xxxyy", "zzzyy", "wwwyy")

    def ask(of: Any) -> Any:
        return of(Order).values("status").annotate(n=Count("id")).order_by("-n", "status")[:1]

    naive = max(joined(of_each_shard(ask)), key=lambda row: row["n"])
    assert require(ask, [naive]) == [{"status": "y", "n": 6}]


def test_limit_is_not_pushed_below_having(tenants: list[int]) -> None:
    orders(tenants, "xxy", "xzz", "xww")

    def ask(of: Any) -> Any:
        return of(Order).values("status").annotate(n=Count("id")).filter(n__gte=3).order_by("status")[:1]

    assert require(ask, joined(of_each_shard(ask))) == [{"status": "x", "n": 4}]


def test_limit_by_an_average_is_not_pushed(tenants: list[int]) -> None:
    """The best average is the best on no shard."""
    rows = [("x", 9, 0), ("x", 0, 1), ("x", 0, 1), ("y", 8, 0), ("y", 8, 1), ("z", 0, 0), ("z", 9, 1)]
    save(Order, [Order(tenant_id=tenants[at], status=name, quantity=value) for name, value, at in rows])

    def ask(of: Any) -> Any:
        return of(Order).values("status").annotate(mean=Avg("quantity")).order_by("-mean", "status")[:1]

    assert require(ask, joined(of_each_shard(ask))[:1]) == [{"status": "y", "mean": 8.0}]


def test_offset_is_applied_once(tenants: list[int]) -> None:
    orders(tenants, "adg", "beh", "cfi")

    def ask(of: Any) -> Any:
        return of(Order).order_by("status").values_list("status", flat=True)[2:5]

    assert require(ask, sorted(joined(of_each_shard(ask)))) == ["c", "d", "e"]


def test_a_shard_sends_offset_and_limit(tenants: list[int]) -> None:
    """All rows of a page may lie on one shard, and all that come before it, too."""
    orders(tenants, "abcdef", "z", "z")
    queryset = fan_out(Order.objects).order_by("status")[3:5]
    [statement] = explain(queryset).steps.statements
    assert statement.sql.endswith(" LIMIT 5")

    def ask(of: Any) -> Any:
        return of(Order).order_by("status").values_list("status", flat=True)[3:5]

    def third(of: Any) -> Any:
        return of(Order).order_by("status").values_list("status", flat=True)[1:2]

    assert require(ask, sorted(joined(of_each_shard(third)))) == ["d", "e"]


def test_limit_is_pushed_where_groups_lie_on_one_shard(tenants: list[int]) -> None:
    orders(tenants, [1, 2], [3, 3], [9], field="quantity")

    def ask(of: Any) -> Any:
        return of(Order).values("tenant_id").annotate(total=Sum("quantity")).order_by("-total")[:2]

    [statement] = explain(ask(lambda model: fan_out(model.objects))).steps.statements
    assert " LIMIT 2" in statement.sql
    naive = joined(of_each_shard(ask))
    assert [row["total"] for row in require(ask, naive)] == [9, 6]


def test_count_of_a_slice_is_no_sum(tenants: list[int]) -> None:
    orders(tenants, "abc", "abc", "abc")

    def ask(of: Any) -> Any:
        return of(Order).order_by("status")[2:7].count()

    assert require(ask, sum(of_each_shard(ask))) == 5


def test_count_of_a_page_without_a_group_twice(tenants: list[int]) -> None:
    """A paginator counts groups, of which shards have the same ones."""
    orders(tenants, "ab", "bc", "ca")

    def ask(of: Any) -> Any:
        return Paginator(of(Order).values("status").annotate(n=Count("id")).order_by("status"), 2).count

    assert require(ask, sum(of_each_shard(ask))) == 3


def test_deep_pages_do_not_shift(tenants: list[int]) -> None:
    """A row that is inserted before the page moves the pages by numbers, and not those by cursors."""
    orders(tenants, "bd", "ce", "fg")
    queryset = fan_out(Order.objects).order_by("status")
    pages = KeysetPaginator(queryset, 3)
    first = pages.page()
    assert [row.status for row in first.items] == ["b", "c", "d"]
    orders(tenants, "a")
    assert [row.status for row in pages.page(first.next_cursor).items] == ["e", "f", "g"]
    assert [row.status for row in Paginator(queryset, 3).page(2)] == ["d", "e", "f"]
