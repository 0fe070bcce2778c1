"""Which columns join() compares, and which of their values it finds equal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.exceptions import FieldError
from django.db import connections

from aggregator import fan_out, join
from sharding.testing.statements import assert_statements, statements
from tests.messages import whole
from tests.related_rows import related_rows_on
from tests.shop.models import Customer, Ledger, Note, Order, Region
from tests.two_sides import LAYOUTS

pytestmark = pytest.mark.django_db(databases="__all__")
Layout = tuple[str, ...]


@pytest.fixture(scope="module", params=LAYOUTS.values(), ids=list(LAYOUTS), autouse=True)
def layout(request: Any, django_db_setup: None, django_db_blocker: Any) -> Iterator[Layout]:
    with django_db_blocker.unblock(), related_rows_on(request.param):
        yield request.param


def customers() -> Any:
    return fan_out(Customer.objects).order_by("id")


def orders() -> Any:
    return fan_out(Order.objects).order_by("id")


def keys(pairs: Any) -> list[tuple[Any, Any]]:
    return [(left.pk, right and right.pk) for left, right in pairs]


def test_several_columns() -> None:
    found = keys(join(orders(), orders(), on={"tenant_id": "tenant_id", "quantity": "quantity"}, batch_size=9))
    rows = list(Order.objects.using("reference").values_list("pk", "tenant_id", "quantity"))
    assert Counter(found) == Counter((a, b) for a, *one in rows for b, *other in rows if one == other)


def test_several_columns_name_the_shard(layout: Layout) -> None:
    Ledger.objects.create(tenant_id=3, number=1)
    order = Order.objects.filter(tenant_id=3, quantity=1)
    with statements() as sent:
        found = list(join(order, Ledger.objects, on={"tenant_id": "tenant_id", "quantity": "number"}))
    assert {right.pk for _, right in found} == {(3, 1)}
    assert sum(sent.counts.values()) == 2


def test_no_keys_no_query(layout: Layout) -> None:
    with assert_statements(dict.fromkeys(layout, 1)):
        assert list(join(customers().filter(region=None), Region.objects, on=("region", "id"))) == []


def test_one_query_names_so_many_keys_of_several_columns(layout: Layout) -> None:
    Region.objects.bulk_create([Region(pk=pk, name="x") for pk in range(100, 400)])
    regions = Region.objects.filter(name="x")
    with assert_statements({"default": 3}):
        found = keys(join(regions, regions, on={"id": "id", "name": "name"}))
    assert sorted(found) == [(pk, pk) for pk in range(100, 400)]


#: Types under which a database finds "one" equal to the other text.
LOOSE = {"sqlite": ("varchar(40) COLLATE NOCASE", "ONE"), "postgresql": ("char(40)", "one" + 37 * " ")}


def test_text_is_equal_when_it_is_the_same_whatever_the_database_says() -> None:
    sql_type, name = LOOSE[connections["plain"].vendor]
    with connections["plain"].cursor() as cursor:
        cursor.execute("DROP TABLE shop_region")
        cursor.execute(f"CREATE TABLE shop_region (id bigint PRIMARY KEY, name {sql_type})")
    regions = Region.objects.using("plain")
    regions.create(pk=1, name=name)
    note = Note.objects.create(pk=100, text="one")
    assert [each.name for each in regions.filter(name=note.text)] == [name]
    assert keys(join(Note.objects.filter(pk=100), regions, on=("text", "name"), how="left")) == [(100, None)]


@pytest.mark.parametrize("reverse", [False, True], ids=["text to UUID", "UUID to text"])
def test_text_and_uuids(reverse: bool) -> None:
    order = orders()[0]
    other = Note.objects.create(pk=100, text=str(order.pk))
    Note.objects.create(pk=101, text="no UUID")
    Note.objects.create(pk=102, text=str(order.pk).upper())
    texts = Note.objects.filter(pk__gte=100)
    if reverse:
        assert keys(join(orders(), texts, on=("id", "text"))) == [(order.pk, other.pk)]
    else:
        assert keys(join(texts, Order.objects, on=("text", "id"))) == [(other.pk, order.pk)]


@pytest.mark.parametrize("reverse", [False, True], ids=["text to integer", "integer to text"])
def test_text_and_integers(reverse: bool) -> None:
    """Only the text that Python writes for a number equals it, from both sides."""
    texts = ("3", "03", "3.0", " 3", "x", "", "9" * 30)
    Region.objects.bulk_create([Region(pk=pk, name=text) for pk, text in enumerate(texts, start=100)])
    named = Region.objects.filter(pk__gte=100)
    three = Customer.objects.filter(tenant_id=3)
    found = (
        [left.name for _, left in join(three, named, on=("tenant_id", "name"))]
        if reverse
        else [left.name for left, _ in join(named, three, on=("name", "tenant_id"))]
    )
    assert found == ["3"] * 5


@pytest.mark.parametrize("reverse", [False, True], ids=["decimal to integer", "integer to decimal"])
def test_decimals_are_not_rounded(reverse: bool) -> None:
    for total in ("2", "2.5"):
        Order.objects.create(tenant_id=1, total=total)
    priced = fan_out(Order.objects).filter(total__gt=0)
    regions = Region.objects.filter(pk=2)
    found = (
        [order.total for _, order in join(regions, priced, on=("id", "total"))]
        if reverse
        else [order.total for order, _ in join(priced, regions, on=("total", "id"))]
    )
    assert found == [2]


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "on": (
        lambda: join(customers(), Region.objects, on=3),  # type: ignore[call-overload]
        TypeError,
        "on must be the name of a field of both sides, a tuple of the left one's and the right one's, or a mapping of "
        "left ones to right ones, not 3.",
    ),
    "on nothing": (
        lambda: join(customers(), Region.objects, on={}),
        TypeError,
        "on must be the name of a field of both sides, a tuple of the left one's and the right one's, or a mapping of "
        "left ones to right ones, not {}.",
    ),
    "no such column": (
        lambda: join(customers(), Region.objects, on=("region", "code")),
        FieldError,
        "join() compares columns, and shop.Region has no column 'code'. It has id, name.",
    ),
    "a reverse relation": (
        lambda: join(Region.objects, customers(), on=("customers", "id")),
        FieldError,
        "join() compares columns, and shop.Region has no column 'customers'. It has id, name.",
    ),
    "a key of two columns": (
        lambda: join(fan_out(Ledger.objects), Region.objects, on="pk"),
        FieldError,
        "join() compares columns, and shop.Ledger has no column 'pk'. It has bucket, tenant_id, number, text.",
    ),
    "other kinds": (
        lambda: join(customers(), Region.objects, on=("joined", "id")),
        FieldError,
        "join() cannot compare shop.Customer.joined (DateField) with shop.Region.id (BigAutoField). Join by two "
        "integers, texts, UUIDs, decimals, dates or the like; integers also equal decimals and text, and UUIDs text.",
    ),
    "floats": (
        lambda: join(orders(), orders(), on="weight"),
        FieldError,
        "join() cannot compare shop.Order.weight (FloatField) with shop.Order.weight (FloatField). Join by two "
        "integers, texts, UUIDs, decimals, dates or the like; integers also equal decimals and text, and UUIDs text.",
    ),
    "a left key that was not loaded": (
        lambda: list(join(customers().only("name"), Region.objects, on=("region", "id"))),
        FieldError,
        "join() needs the column 'region_id' of shop.Customer, which was not loaded. Name it in only(), or take it out "
        "of defer().",
    ),
    "a right key that was not loaded": (
        lambda: list(join(Region.objects, customers().defer("region"), on=("id", "region"))),
        FieldError,
        "join() needs the column 'region_id' of shop.Customer, which was not loaded. Name it in only(), or take it out "
        "of defer().",
    ),
}


@pytest.mark.parametrize(("ask", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(ask: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=whole(message)):
        ask()
