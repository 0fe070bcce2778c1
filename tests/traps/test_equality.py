"""What is equal to what, and when duplicates are dropped."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from django.db.models import Count, DurationField, FloatField, JSONField
from django.db.models.functions import Cast

from tests.ranks.comparing import Named
from tests.shop.models import Order
from tests.traps.naive import joined, of_each_shard, orders, require

pytestmark = pytest.mark.django_db(databases="__all__")


def test_distinct_after_group_by(tenants: list[int]) -> None:
    """DISTINCT is about the merged groups: those of the shards have other counts."""
    orders(tenants, "aab", "b", "cc")

    def ask(of: Any) -> Any:
        groups = of(Order).values("status").annotate(n=Count("id"))
        return groups.order_by("n").values_list("n", flat=True).distinct()

    assert require(ask, sorted(set(joined(of_each_shard(ask))))) == [2]


def test_distinct_rows_of_several_shards(tenants: list[int]) -> None:
    orders(tenants, "ab", "bc", "ca")

    def ask(of: Any) -> Any:
        return of(Order).order_by("status").values_list("status", flat=True).distinct()

    assert require(ask, sorted(joined(of_each_shard(ask)))) == ["a", "b", "c"]


def test_duplicates_are_dropped_before_rows_are_counted(tenants: list[int]) -> None:
    orders(tenants, "abc", "abd", "abe")

    def ask(of: Any) -> Any:
        return of(Order).order_by("status").values_list("status", flat=True).distinct()[1:4]

    first = sorted(joined(of_each_shard(lambda of: of(Order).values_list("status", flat=True).distinct())))
    assert require(ask, sorted(set(first[1:4]))) == ["b", "c", "d"]


def groups(tenants: list[int], field: Any, columns: list[list[str]]) -> list[int]:
    """Compare groups by text that is cast to a type, of which a shard or Python knows the text alone."""
    orders(tenants, *columns)

    def ask(of: Any) -> Any:
        found = of(Order).values(x=Cast("status", field)).annotate(n=Count("id")).order_by("x")
        return list(found.values_list("n", flat=True))

    numbers: list[int] = require(ask, sorted(Counter(joined(columns)).values()))
    return numbers


@pytest.mark.parametrize(
    ("field", "columns", "numbers"),
    [
        (Named("numeric"), [["1.0", "1"], ["1.00"], ["2"]], [3, 1]),
        (FloatField(), [["0", "NaN"], ["-0"], ["nan"]], [2, 2]),
        (DurationField(), [["1 mon", "1 year"], ["30 days"], ["12 mons"]], [2, 2]),
        (Named("character(4)"), [["a", "b"], ["a "], ["a  "]], [3, 1]),
        (JSONField(), [["1", "2"], ["1.0"], ["1.00"]], [3, 1]),
        (Named("date"), [["2013-01-01", "2014-01-01"], ["2013-1-1"], ["20130101"]], [3, 1]),
    ],
    ids=["numbers", "floats", "intervals", "padded text", "JSON", "dates"],
)
def test_what_is_equal_is_one_group(tenants: list[int], field: Any, columns: Any, numbers: list[int]) -> None:
    assert groups(tenants, field, columns) == numbers


def test_nulls_are_one_group(tenants: list[int]) -> None:
    orders(tenants, [None, 1], [None], [None, None], field="quantity")

    def ask(of: Any) -> Any:
        return of(Order).values("quantity").annotate(n=Count("id")).order_by("quantity")

    naive = sorted(joined(of_each_shard(ask)), key=lambda row: (row["quantity"] is None, row["n"]))
    assert require(ask, naive) == [{"quantity": 1, "n": 1}, {"quantity": None, "n": 4}]
