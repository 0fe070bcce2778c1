"""Pages by cursors, on three kinds of cluster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core import signing
from django.core.exceptions import FieldError
from django.db.models import Count, Exists, OuterRef, QuerySet

from aggregator import KeysetPaginator, fan_out
from sharding.errors import InvalidCursor
from tests.messages import whole
from tests.shop.models import Customer, Ledger, Line, Order
from tests.two_sides import LAYOUTS, rows_on

pytestmark = pytest.mark.django_db(databases="__all__")


@pytest.fixture(scope="module", params=LAYOUTS.values(), ids=list(LAYOUTS), autouse=True)
def layout(request: Any, django_db_setup: None, django_db_blocker: Any) -> Iterator[tuple[str, ...]]:
    with django_db_blocker.unblock(), rows_on(request.param):
        yield request.param


def orders() -> QuerySet[Any]:
    return fan_out(Order.objects)


ORDERINGS = {
    "ties": ["total"],
    "descending": ["-total"],
    "two fields": ["status", "-total"],
    "mixed directions": ["-status", "total", "-tenant_id"],
    "the id alone": [],
    "the id by name": ["-pk"],
}


@pytest.mark.parametrize("ordering", ORDERINGS.values(), ids=ORDERINGS.keys())
@pytest.mark.parametrize("per_page", [1, 7, 1000])
def test_every_row_once_forth_and_back(ordering: list[str], per_page: int) -> None:
    paginator = KeysetPaginator(orders(), per_page, ordering=ordering)
    last = "-id" if ordering and ordering[-1].startswith("-") else "id"
    expected = [order.pk for order in Order.objects.using("reference").order_by(*ordering, last)]
    pages = [paginator.page()]
    while pages[-1].next_cursor:
        pages.append(paginator.page(pages[-1].next_cursor))
    assert [order.pk for page in pages for order in page.items] == expected
    assert [len(page.items) for page in pages[:-1]] == [per_page] * (len(pages) - 1)
    assert pages[0].previous_cursor is None
    for before, page in zip(pages[-2::-1], pages[:0:-1], strict=True):
        assert page.previous_cursor is not None
        back = paginator.page(page.previous_cursor)
        assert [order.pk for order in back.items] == [order.pk for order in before.items]
        assert back.next_cursor is not None
        assert (back.previous_cursor is None) == (before is pages[0])


def test_rows_written_meanwhile_shift_no_page() -> None:
    paginator = KeysetPaginator(orders().order_by("-total"), 5)
    first = paginator.page()
    Order.objects.create(tenant_id=1, total=1000)
    orders().filter(pk=first.items[0].pk).delete()
    assert first.next_cursor is not None
    second = paginator.page(first.next_cursor)
    expected = Order.objects.using("reference").order_by("-total", "-id")[5:10]
    assert [order.pk for order in second.items] == [order.pk for order in expected]


def test_a_composite_key() -> None:
    paginator = KeysetPaginator(fan_out(Ledger.objects), 10, ordering=["-pk"])
    first = paginator.page()
    assert first.next_cursor is not None
    found = first.items + paginator.page(first.next_cursor).items
    assert [each.pk for each in found] == [each.pk for each in Ledger.objects.using("reference").order_by("-pk")][:20]


def test_one_shard_key_is_one_shards_business() -> None:
    paginator = KeysetPaginator(Order.objects.filter(tenant_id=3).order_by("total"), 2)
    first = paginator.page()
    assert first.next_cursor is not None
    assert len(paginator.page(first.next_cursor).items) == 2


def test_no_rows() -> None:
    page = KeysetPaginator(orders().filter(total=-1), 5).page()
    assert (page.items, page.next_cursor, page.previous_cursor) == ([], None, None)


def cursor_of_others() -> str:
    cursor = KeysetPaginator(orders(), 1, ordering=["status"]).page().next_cursor
    assert cursor is not None
    return cursor


def forged() -> str:
    cursor = cursor_of_others()
    return ("A" if cursor[0] != "A" else "B") + cursor[1:]


CURSORS = {
    "empty": lambda: "",
    "malformed": lambda: "no cursor at all",
    "not text": lambda: 7,
    "forged": forged,
    "of another order": cursor_of_others,
    "of the other direction": lambda: KeysetPaginator(orders(), 1, ordering=["-total"]).page().next_cursor,
    "signed for something else": lambda: signing.dumps(["f", "shop.order", "total", "id", "1", "1"], salt="other"),
    "another shape": lambda: signing.dumps({"a": 1}, salt="aggregator.pagination"),
    "too short": lambda: signing.dumps(["f", "shop.order", "total", "id"], salt="aggregator.pagination"),
    "an unreadable value": lambda: signing.dumps(
        ["f", "shop.order", "total", "id", "x", "1"], salt="aggregator.pagination"
    ),
}


@pytest.mark.parametrize("make", CURSORS.values(), ids=CURSORS.keys())
def test_cursors_of_strangers(make: Any) -> None:
    cursor = make()
    message = whole(f"The cursor {cursor!r} was not made for these pages. Start again at the first page.")
    with pytest.raises(InvalidCursor, match=message) as caught:
        KeysetPaginator(orders(), 5, ordering=["total"]).page(cursor)
    assert caught.value.cursor == cursor


@pytest.mark.parametrize("per_page", [0, -1])
def test_pages_without_rows(per_page: int) -> None:
    with pytest.raises(ValueError, match=whole(f"per_page must be at least 1, not {per_page}.")):
        KeysetPaginator(orders(), per_page)


def test_a_slice() -> None:
    message = whole("KeysetPaginator makes the slices itself. Give it a queryset that is not sliced.")
    with pytest.raises(ValueError, match=message):
        KeysetPaginator(orders()[:10], 5)


def test_rows_that_a_join_repeats() -> None:
    message = whole(
        "KeysetPaginator cannot tell apart the rows that a join to several rows repeats, and would skip some. Add "
        "distinct() to the queryset, or filter by Exists()."
    )
    joined = orders().filter(lines__amount__gte=1)
    for queryset in (joined, orders().filter(tags__label="red"), fan_out(Customer.objects).filter(orders=None)):
        with pytest.raises(ValueError, match=message):
            KeysetPaginator(queryset, 5)
    expected = Order.objects.using("reference").filter(lines__amount__gte=1).distinct().order_by("total", "id")
    paginator = KeysetPaginator(joined.distinct(), 5, ordering=["total"])
    pages = [paginator.page()]
    while pages[-1].next_cursor:
        pages.append(paginator.page(pages[-1].next_cursor))
    assert [order.pk for page in pages for order in page] == [order.pk for order in expected]


def test_joins_that_repeat_no_row() -> None:
    for queryset in (
        fan_out(Line.objects).filter(order__customer__name="A0"),
        orders().annotate(n=Count("lines")),
        orders().filter(Exists(Line.objects.filter(order=OuterRef("pk")))),
        orders().exclude(lines__amount=1),
        orders().select_related("customer").prefetch_related("lines"),
    ):
        assert len(KeysetPaginator(queryset, 1000).page()) == queryset.count()


def test_values() -> None:
    message = whole("KeysetPaginator pages instances. Give it a queryset without values() or values_list().")
    with pytest.raises(ValueError, match=message):
        KeysetPaginator(orders().values("id"), 5)


def test_a_field_with_nulls() -> None:
    message = whole(
        "KeysetPaginator cannot order shop.Order by '-weight', which may be NULL: nothing is greater or smaller than "
        "NULL. Order by fields with null=False."
    )
    with pytest.raises(FieldError, match=message):
        KeysetPaginator(orders().order_by("-weight"), 5)


@pytest.mark.parametrize("name", ["customer__name", "nonsense"])
def test_what_is_no_field(name: str) -> None:
    message = whole(f"KeysetPaginator cannot order shop.Customer by {name!r}: it is no field of its own.")
    with pytest.raises(FieldError, match=message):
        KeysetPaginator(fan_out(Customer.objects), 5, ordering=[name])


def test_random_order() -> None:
    message = whole("KeysetPaginator orders shop.Order by names of fields, not by '?'.")
    with pytest.raises(FieldError, match=message):
        KeysetPaginator(orders().order_by("?"), 5)
