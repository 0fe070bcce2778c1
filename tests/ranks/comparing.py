"""
What every kind of value must pass: orders, slices and DISTINCT of many rows, compared with one database.

A value is written as text into ``Customer.name`` and cast; the empty text stands for NULL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.db import connections
from django.db.models import F, Field, QuerySet, Value
from django.db.models.functions import NullIf

from tests import servers
from tests.shop.models import Customer
from tests.two_sides import TENANTS, answers, save

Ask = Callable[[Any], Any]


class Named(Field):
    """A column of any type."""

    def __init__(self, kind: str = "") -> None:
        self.kind = kind
        super().__init__()

    def db_type(self, connection: Any) -> str:
        return self.kind

    def clone(self) -> Named:
        return Named(self.kind)


def write(values: Sequence[str]) -> None:
    """Give each value a customer, those of one tenant with few different emails less than there are values."""
    rows = [
        Customer(tenant_id=number % len(TENANTS), name=value, email=f"{number}@x")
        for number, value in enumerate(values)
    ]
    save(Customer, rows)


def everywhere(sql: str) -> None:
    """Run a statement that makes a type or a collation, in every database that is compared."""
    for alias in (*servers.SHARDS, "reference"):
        with connections[alias].cursor() as cursor:
            cursor.execute(sql)


def given() -> Any:
    return NullIf("name", Value(""))


def questions(x: Any) -> dict[str, Ask]:
    """Return what is asked about an expression; the order of each answer is total."""

    def rows(customers: Any, *order: Any) -> QuerySet[Any]:
        return customers(Customer).annotate(x=x).order_by(*order).values_list("id", "x")

    return {
        "ascending": lambda customers: rows(customers, "x", "id"),
        "descending": lambda customers: rows(customers, "-x", "-id"),
        "nulls first": lambda customers: rows(customers, F("x").asc(nulls_first=True), "id"),
        "nulls last": lambda customers: rows(customers, F("x").desc(nulls_last=True), "id"),
        "second key": lambda customers: rows(customers, "-tenant_id", "x", "id"),
        "mixed keys": lambda customers: rows(customers, "x", "-tenant_id", "id"),
        "twice": lambda customers: rows(customers, "x", F("x").desc(nulls_first=True), "id"),
        "slice": lambda customers: rows(customers, "x", "id")[37:160],
        "first and last": lambda customers: [rows(customers, "x", "id").first(), rows(customers, "x", "id").last()],
        "not selected": lambda customers: list(customers(Customer).order_by(x, "id").values_list("id", flat=True)),
        "streamed": lambda customers: list(rows(customers, "-x", "id").iterator(chunk_size=20)),
        "streamed slice": lambda customers: list(rows(customers, "x", "id")[50:155].iterator(chunk_size=7)),
    }


def distinct(x: Any) -> dict[str, Ask]:
    """Return what is asked about different values; which one of equal ones stands for them is left open."""

    def values(customers: Any) -> QuerySet[Any]:
        return customers(Customer).values_list(x, flat=True).distinct().order_by(x)

    return {
        "values": values,
        "slice": lambda customers: values(customers)[2:9],
        "reversed": lambda customers: values(customers).reverse(),
        "count": lambda customers: [values(customers).count()],
        "streamed": lambda customers: list(values(customers).iterator(chunk_size=5)),
    }


def require_equal(asked: dict[str, Ask], same: Callable[[Any], Any] = lambda value: value) -> None:
    """Compare the answers to all questions; NaN, which is not the same as itself in Python, is compared as text."""
    wrong = {}
    for name, ask in asked.items():
        found, expected = ([same(_without_nan(each)) for each in answer] for answer in answers(ask))
        if found != expected or not expected:
            places = [at for at, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1]]
            wrong[name] = (len(found), len(expected), found[places[0]] if places else None)
    assert wrong == {}


def _without_nan(answer: Any) -> Any:
    if isinstance(answer, list):
        return [_without_nan(each) for each in answer]
    return answer if answer == answer else str(answer)
