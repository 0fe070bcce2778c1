"""
Random joins of random rows, NULLs and equal ones among them, against the JOIN of one reference database.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any, NamedTuple

import pytest
from django.db import connections
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator import fan_out, join
from sharding import ids
from sharding.testing import cluster
from tests.shop.models import Note, Order
from tests.two_sides import LAYOUTS, REFERENCE, save

PROGRAMS = int(os.environ.get("SHARDKIT_DIFFERENTIAL_PROGRAMS", 2_200)) // 22
LONG = 5_000
TENANTS = range(8)

pytestmark = [pytest.mark.django_db(databases="__all__", transaction=True), pytest.mark.differential]


class Row(NamedTuple):
    tenant: int
    quantity: int | None
    status: str


class Question(NamedTuple):
    """A join: the models of its sides, the columns, left to right, and how."""

    sides: tuple[type[Any], type[Any]]
    columns: dict[str, str]
    how: str
    batch_size: int


#: What stands for a row in the answers, since ids are stored in different ways.
LABELS = {Order: "weight", Note: "id"}
JOINS: list[tuple[tuple[type[Any], type[Any]], dict[str, str]]] = [
    ((Order, Order), {"quantity": "quantity"}),
    ((Order, Order), {"quantity": "quantity", "status": "status"}),
    ((Order, Order), {"tenant_id": "tenant_id", "quantity": "quantity"}),
    ((Order, Order), {"tenant_id": "quantity"}),
    ((Order, Note), {"status": "text"}),
    ((Note, Order), {"text": "status"}),
    ((Note, Order), {"order_id": "id"}),
    ((Order, Note), {"id": "order_id"}),
    ((Order, Note), {"id": "order_id", "status": "text"}),
]

orders = st.lists(
    st.builds(Row, st.sampled_from(TENANTS), st.none() | st.integers(0, 2), st.sampled_from("ab")), max_size=14
)
notes = st.lists(st.tuples(st.none() | st.integers(0, 15), st.sampled_from("abc")), max_size=6)
questions = st.lists(
    st.builds(
        lambda join, how, size: Question(join[0], join[1], how, size),
        st.sampled_from(JOINS),
        st.sampled_from(["inner", "left"]),
        st.sampled_from([1, 2, 3, 1000]),
    ),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize("owners", LAYOUTS.values(), ids=LAYOUTS)
def test_joins(owners: tuple[str, ...], request: pytest.FixtureRequest) -> None:
    long = request.config.getoption("--long")

    @settings(
        max_examples=LONG if long else PROGRAMS,
        derandomize=not long,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(orders, notes, questions)
    def check(orders: list[Row], notes: list[tuple[int | None, str]], questions: list[Question]) -> None:
        _load(orders, notes)
        for question in questions:
            assert _found(question) == _expected(question)

    with cluster.owners(*owners):
        check()
        _load([], [])


def _load(rows: list[Row], notes: list[tuple[int | None, str]]) -> None:
    fan_out(Order.objects)._raw_delete("default")
    Note.objects.all()._raw_delete("default")
    for model in (Order, Note):
        model.objects.using(REFERENCE).all()._raw_delete(REFERENCE)
    orders = [
        Order(tenant_id=row.tenant, quantity=row.quantity, status=row.status, weight=number)
        for number, row in enumerate(rows)
    ]
    save(Order, orders)
    dangling = ids.new_uuid(0)
    save(
        Note,
        [
            Note(pk=number, text=text, order_id=None if of is None else orders[of].pk if of < len(orders) else dangling)
            for number, (of, text) in enumerate(notes, start=1)
        ],
    )


def _found(question: Question) -> Counter[Any]:
    left, right = (fan_out(model.objects) if model is Order else model.objects.all() for model in question.sides)
    pairs: Any = join(left, right, on=question.columns, how=question.how, batch_size=question.batch_size)  # type: ignore[call-overload]
    return Counter((_label(one), _label(other)) for one, other in pairs)


def _label(row: Any) -> Any:
    return row and getattr(row, LABELS[type(row)])


def _expected(question: Question) -> Counter[Any]:
    left, right = question.sides
    conditions = " AND ".join(f"l.{one} = r.{other}" for one, other in question.columns.items())
    with connections[REFERENCE].cursor() as cursor:
        cursor.execute(
            f"SELECT l.{LABELS[left]}, r.{LABELS[right]} FROM {left._meta.db_table} l "
            f"{question.how} JOIN {right._meta.db_table} r ON {conditions}"
        )
        return Counter(cursor.fetchall())
