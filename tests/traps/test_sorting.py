"""The order in which rows are merged: hidden columns, ties, NULLs, and values that Python sorts otherwise."""

from __future__ import annotations

import heapq
import math
from operator import itemgetter
from typing import Any

import pytest
from django.db.models import F, GenericIPAddressField, JSONField
from django.db.models.functions import Cast, Collate

from aggregator import fan_out
from tests.ranks.comparing import Named, everywhere
from tests.shop.models import Order
from tests.traps.naive import joined, of_each_shard, orders, require
from tests.two_sides import save

pytestmark = pytest.mark.django_db(databases="__all__")


def test_hidden_sort_columns_are_stripped(tenants: list[int]) -> None:
    """Rows are sorted by what is not selected: without it they cannot be merged, and with it they are too wide."""
    rows = [("x", 1, 0), ("z", 5, 0), ("a", 3, 1), ("b", 4, 1)]
    save(Order, [Order(tenant_id=tenants[at], status=name, quantity=number) for name, number, at in rows])

    def ask(of: Any) -> Any:
        return of(Order).order_by("quantity").values_list("status")

    assert require(ask, joined(of_each_shard(ask))) == [["x"], ["a"], ["b"], ["z"]]
    assert next(fan_out(Order.objects).order_by("quantity").values_list("status").iterator()) == ("x",)


def test_ties_are_broken_by_the_primary_key(tenants: list[int]) -> None:
    """Otherwise rows would be on two pages, or on none."""
    save(Order, [Order(tenant_id=tenants[number % 3], status="same") for number in range(9)])
    found = [row.pk for start in range(0, 9, 2) for row in fan_out(Order.objects).order_by("status")[start : start + 2]]
    expected = [row.pk for row in Order.objects.using("reference").order_by("status", "pk")]
    lists = of_each_shard(lambda of: of(Order).order_by("status", "pk").values_list("status", "pk"))

    def naive(lists: list[Any]) -> list[Any]:
        return [pk for _, pk in heapq.merge(*lists, key=itemgetter(0))]

    assert found == expected
    # By the sort key alone, the order would depend on that of the shards.
    assert naive(lists) != naive(lists[::-1])


@pytest.mark.parametrize(
    "order",
    [
        F("quantity").asc(),
        F("quantity").desc(),
        F("quantity").asc(nulls_first=True),
        F("quantity").desc(nulls_last=True),
    ],
    ids=["ascending", "descending", "first", "last"],
)
def test_nulls_stand_where_the_database_puts_them(tenants: list[int], order: Any) -> None:
    orders(tenants, [1, None, 4], [None, 2], [3, -5], field="quantity")

    def ask(of: Any) -> Any:
        return of(Order).order_by(order).values_list("quantity", flat=True)

    values = joined(of_each_shard(ask))
    # As zero, which is the usual way to make None sortable in Python.
    naive = sorted(values, key=lambda value: value or 0, reverse=order.descending)
    assert require(ask, naive).count(None) == 2


def test_nan_sorts_above_infinity(tenants: list[int]) -> None:
    columns = [[math.nan, 2.0], [math.inf, 0.5], [-math.inf, math.nan]]
    orders(tenants, *columns, field="weight")

    def ask(of: Any) -> Any:
        return [str(value) for value in of(Order).order_by("weight").values_list("weight", flat=True)]

    naive = [str(value) for value in sorted(joined(columns))]
    assert require(ask, naive) == ["-inf", "0.5", "2.0", "inf", "nan", "nan"]


def sorted_by_the_server(tenants: list[int], field: Any, columns: list[list[str]]) -> list[Any]:
    """Compare the order of text that is cast to a type, of which Python would sort the text."""
    orders(tenants, *columns)

    def ask(of: Any) -> Any:
        return of(Order).order_by(Cast("status", field)).values_list("status", flat=True)

    return require(ask, sorted(joined(columns)))


def test_enums_sort_by_their_labels(tenants: list[int]) -> None:
    everywhere("CREATE TYPE trap_mood AS ENUM ('sad', 'ok', 'happy')")
    found = sorted_by_the_server(tenants, Named("trap_mood"), [["happy", "sad"], ["ok"], ["sad"]])
    assert found == ["sad", "sad", "ok", "happy"]


def test_addresses_sort_by_their_numbers(tenants: list[int]) -> None:
    found = sorted_by_the_server(tenants, GenericIPAddressField(), [["9.1.1.1"], ["10.0.0.1"], ["::1"]])
    assert found == ["9.1.1.1", "10.0.0.1", "::1"]


def test_json_sorts_by_types(tenants: list[int]) -> None:
    assert sorted_by_the_server(tenants, JSONField(), [["10", '"b"'], ["9"], ["[]"]]) == ["[]", '"b"', "9", "10"]


def test_arrays_sort_element_by_element(tenants: list[int]) -> None:
    assert sorted_by_the_server(tenants, Named("int[]"), [["{10}"], ["{9,1}"], ["{9}"]]) == ["{9}", "{9,1}", "{10}"]


@pytest.mark.debian
def test_text_sorts_by_the_collation_of_the_database(tenants: list[int]) -> None:
    orders(tenants, ["_", "-z", "B"], ["ä", "a", "Z"], ["A", "b"])

    def ask(of: Any) -> Any:
        return of(Order).order_by("status").values_list("status", flat=True)

    require(ask, sorted(["_", "-z", "B", "ä", "a", "Z", "A", "b"]))


@pytest.mark.debian
def test_text_sorts_by_a_collation_that_is_named(tenants: list[int]) -> None:
    words = ["_", "-z", "B", "ä", "a", "Z", "A", "b"]
    orders(tenants, words[:3], words[3:6], words[6:])

    def ask(of: Any) -> Any:
        return of(Order).order_by(Collate("status", "und-x-icu")).values_list("status", flat=True)

    assert require(ask, sorted(words)) == ["_", "-z", "a", "A", "ä", "b", "B", "Z"]
