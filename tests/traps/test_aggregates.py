"""Aggregates of a whole from those of its parts."""

from __future__ import annotations

import math
from decimal import Decimal
from statistics import mean
from typing import Any

import pytest
from django.db.models import (
    Aggregate,
    Avg,
    BigIntegerField,
    Count,
    FloatField,
    Max,
    Min,
    Q,
    StdDev,
    Sum,
    Value,
    Variance,
)
from django.db.models.functions import Cast

from tests.aggregates import listing
from tests.shop.models import Order
from tests.traps.naive import joined, of_each_shard, orders, require
from tests.two_sides import answers, save

pytestmark = pytest.mark.django_db(databases="__all__")


def test_average_of_averages(tenants: list[int]) -> None:
    orders(tenants, [10], [1, 1, 1], [2], field="quantity")

    def ask(of: Any) -> Any:
        return of(Order).aggregate(x=Avg("quantity"))["x"]

    assert require(ask, mean(of_each_shard(ask))) == 3.0


def test_average_without_its_group(tenants: list[int]) -> None:
    """The group is not selected, and the parts must be put together by it all the same."""
    rows = [("x", 1, 0), ("x", 5, 1), ("y", 2, 0), ("y", 2, 2)]
    save(Order, [Order(tenant_id=tenants[at], status=name, quantity=value) for name, value, at in rows])

    def ask(of: Any) -> Any:
        groups = of(Order).values("status").annotate(x=Avg("quantity"))
        return sorted(groups.values_list("x", flat=True))

    assert require(ask, sorted(joined(of_each_shard(ask)))) == [2.0, 3.0]


def test_average_has_the_digits_of_the_database(tenants: list[int]) -> None:
    orders(tenants, [Decimal(1)], [Decimal(2)], [Decimal(2)], field="total")

    def ask(of: Any) -> Any:
        return str(of(Order).aggregate(x=Avg("total"))["x"])

    assert require(ask, str(Decimal(5) / 3)) == "1.6666666666666667"


@pytest.mark.parametrize("kind", [Variance, StdDev])
def test_sum_of_squares_loses_variance(tenants: list[int], kind: Any) -> None:
    """The squares of 1e9 + {1, 2, 3} have no digit left for what is different."""
    orders(tenants, [1], [2], [3], field="quantity")
    far = Cast("quantity", FloatField()) + Value(1e9)

    def ask(of: Any) -> Any:
        return round(of(Order).aggregate(x=kind(far, sample=True))["x"], 9)

    values = [1e9 + 1, 1e9 + 2, 1e9 + 3]
    squares, total = sum(value * value for value in values), sum(values)
    naive = (squares - total * total / 3) / 2
    assert require(ask, naive if kind is Variance else math.sqrt(max(naive, 0))) == 1.0


def test_sum_of_distinct_counts(tenants: list[int]) -> None:
    orders(tenants, "ab", "bc", "ca")

    def ask(of: Any) -> Any:
        return of(Order).aggregate(n=Count("status", distinct=True))["n"]

    assert require(ask, sum(of_each_shard(ask))) == 3


def test_sum_of_distinct_counts_in_groups(tenants: list[int]) -> None:
    rows = [("x", 1, 0), ("x", 1, 1), ("x", 2, 1), ("y", 1, 2)]
    save(Order, [Order(tenant_id=tenants[at], status=name, quantity=value) for name, value, at in rows])

    def ask(of: Any) -> Any:
        groups = of(Order).values("status").annotate(n=Count("quantity", distinct=True)).order_by("status")
        return list(groups.values_list("status", "n"))

    sums: dict[str, int] = {}
    for name, number in joined(of_each_shard(ask)):
        sums[name] = sums.get(name, 0) + number
    assert require(ask, [list(pair) for pair in sorted(sums.items())]) == [["x", 2], ["y", 1]]


def test_sum_of_distinct_sums(tenants: list[int]) -> None:
    orders(tenants, [1, 2], [2, 3], [3], field="quantity")

    def ask(of: Any) -> Any:
        return of(Order).aggregate(x=Sum("quantity", distinct=True))["x"]

    assert require(ask, sum(of_each_shard(ask))) == 6


def test_sum_of_large_numbers_keeps_all_digits(tenants: list[int]) -> None:
    """The sum of bigint is numeric; as floats, or in 64 bits, it would be another number."""
    orders(tenants, [1], [2], [4], field="quantity")
    large = Cast("quantity", BigIntegerField()) + Value(2**61 + 1, BigIntegerField())

    def ask(of: Any) -> Any:
        return of(Order).aggregate(x=Sum(large * 3))["x"]

    naive = int(sum(float(each) for each in of_each_shard(ask)))
    assert require(ask, naive) == 9 * (2**61 + 1) + 21


def test_sum_of_floats_is_a_float_and_close(tenants: list[int]) -> None:
    """It depends on the order of addition, in one database as well."""
    orders(tenants, [0.1, 1e16], [0.2, -1e16], [0.3], field="weight")
    found, expected = answers(lambda of: of(Order).filter(weight__lt=1, weight__gt=0).aggregate(x=Sum("weight"))["x"])
    assert isinstance(found, float)
    assert math.isclose(found, expected, rel_tol=1e-12)


def test_aggregates_of_nothing(tenants: list[int]) -> None:
    """One row without GROUP BY: zero for counts, and NULL for all else."""

    def ask(of: Any) -> Any:
        return of(Order).aggregate(n=Count("id"), s=Sum("total"), a=Avg("total"), low=Min("total"), high=Max("status"))

    naive = {"n": 0, "s": 0, "a": 0, "low": 0, "high": ""}
    assert require(ask, naive) == {"n": 0, "s": None, "a": None, "low": None, "high": None}


def test_groups_of_nothing(tenants: list[int]) -> None:
    def ask(of: Any) -> Any:
        return of(Order).values("status").annotate(n=Count("id"))

    assert require(ask, [{"status": None, "n": 0}]) == []


def test_the_least_of_a_shard_without_rows(tenants: list[int]) -> None:
    """NULL of an empty shard is no value: not the least, and not zero."""
    orders(tenants, [5], [7], field="quantity")

    def ask(of: Any) -> Any:
        return of(Order).aggregate(x=Min("quantity"))["x"]

    assert require(ask, min(each or 0 for each in of_each_shard(ask))) == 5


def test_sum_with_a_default_counts_it_once(tenants: list[int]) -> None:
    def ask(of: Any) -> Any:
        return of(Order).aggregate(x=Sum("quantity", default=5))["x"]

    assert require(ask, sum(of_each_shard(ask))) == 5


def test_expressions_over_aggregates_are_no_sums(tenants: list[int]) -> None:
    orders(tenants, [6], [1, 1], [4], field="quantity")

    def ask(of: Any) -> Any:
        return of(Order).aggregate(x=Sum("quantity") / Count("id"))["x"]

    assert require(ask, sum(of_each_shard(ask))) == 3


def test_filters_of_aggregates_are_those_of_the_shards(tenants: list[int]) -> None:
    rows = [("x", 1, 0), ("y", 9, 0), ("x", 2, 1), ("y", 9, 2)]
    save(Order, [Order(tenant_id=tenants[at], status=name, quantity=value) for name, value, at in rows])

    def ask(of: Any) -> Any:
        return of(Order).aggregate(x=Avg("quantity", filter=Q(status="x")))["x"]

    # An average of averages, of which one is of nothing.
    naive = sum(each or 0 for each in of_each_shard(ask)) / 3
    assert require(ask, naive) == 1.5


def test_lists_are_ordered_over_all_shards(tenants: list[int]) -> None:
    orders(tenants, "ca", "db", "e")

    def ask(of: Any) -> Any:
        return of(Order).aggregate(x=listing("ArrayAgg", "status", order=("status", "pk")))["x"]

    assert require(ask, joined(of_each_shard(ask))) == ["a", "b", "c", "d", "e"]


def test_different_texts_are_listed_once(tenants: list[int]) -> None:
    orders(tenants, "ab", "bc", "a")

    def ask(of: Any) -> Any:
        return of(Order).aggregate(x=listing("StringAgg", "status", order=("status",), distinct=True))["x"]

    assert require(ask, ", ".join(of_each_shard(ask))) == "a, b, c"


class Median(Aggregate):
    """A percentile, which Django has no class for."""

    function = "PERCENTILE_CONT"
    template = "%(function)s(0.5) WITHIN GROUP (ORDER BY %(expressions)s)"
    output_field = FloatField()


def test_median_of_medians(tenants: list[int]) -> None:
    orders(tenants, [1, 1, 1, 1, 8], [9], [10], field="quantity")

    def ask(of: Any) -> Any:
        return of(Order).aggregate(x=Median("quantity"))["x"]

    assert require(ask, sorted(of_each_shard(ask))[1]) == 1.0


def test_medians_of_groups(tenants: list[int]) -> None:
    rows = [("x", 1, 0), ("x", 1, 0), ("x", 9, 1), ("y", 2, 1), ("y", 4, 2)]
    save(Order, [Order(tenant_id=tenants[at], status=name, quantity=value) for name, value, at in rows])

    def ask(of: Any) -> Any:
        return sorted(of(Order).values("status").annotate(x=Median("quantity")).values_list("status", "x"))

    assert require(ask, sorted(joined(of_each_shard(ask)))) == [["x", 1.0], ["y", 3.0]]
