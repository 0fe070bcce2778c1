"""Pages by cursors, on three kinds of cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.core import signing
from django.core.exceptions import FieldError
from django.db import connections
from django.db.models import Count, Exists, F, OuterRef, QuerySet, Window
from django.db.models.functions import Random, Rank
from django.test.utils import CaptureQueriesContext

from aggregator import KeysetPaginator, fan_out
from aggregator.page_keys import keys_of
from sharding.errors import InvalidCursor
from sharding.testing import cluster
from tests import servers
from tests.clocks import change_time
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


def signer() -> signing.Signer:
    return signing.Signer(salt="aggregator.pagination")


def ours() -> list[Any]:
    """What a cursor of these pages says."""
    cursor = KeysetPaginator(orders(), 5, ordering=["total"]).page().next_cursor
    assert cursor is not None
    said: list[Any] = signer().unsign_object(cursor)
    return said


CURSORS = {
    "empty": lambda: "",
    "malformed": lambda: "no cursor at all",
    "not text": lambda: 7,
    "forged": forged,
    "of another order": cursor_of_others,
    "of the other direction": lambda: KeysetPaginator(orders(), 1, ordering=["-total"]).page().next_cursor,
    "signed for something else": lambda: signing.Signer(salt="other").sign_object(ours()),
    "another shape": lambda: signer().sign_object({"a": 1}),
    "too short": lambda: signer().sign_object(ours()[:-1]),
    "of another model": lambda: KeysetPaginator(fan_out(Customer.objects), 1, ordering=["id"]).page().next_cursor,
}


@pytest.mark.parametrize("make", CURSORS.values(), ids=CURSORS.keys())
def test_cursors_of_strangers(make: Any) -> None:
    cursor = make()
    message = whole(f"The cursor {cursor!r} was not made for these pages. Start again at the first page.")
    with pytest.raises(InvalidCursor, match=message) as caught:
        KeysetPaginator(orders(), 5, ordering=["total"]).page(cursor)
    assert caught.value.cursor == cursor


def test_a_cursor_of_keys_that_had_another_type() -> None:
    """As after a migration: the names are the same."""
    before, after = (
        KeysetPaginator(orders().annotate(key=F(name)), 1, ordering=["key"]) for name in ("status", "total")
    )
    cursor = before.page().next_cursor
    assert cursor is not None
    assert before.page(cursor).items
    with pytest.raises(InvalidCursor):
        after.page(cursor)


def test_the_same_page_has_the_same_cursors_at_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    paginator = KeysetPaginator(orders(), 5, ordering=["total"])
    first = paginator.page().next_cursor
    later = time.time() + 3600
    change_time(monkeypatch, "django.core.signing", time=lambda: later)
    assert paginator.page().next_cursor == first


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


@pytest.mark.parametrize("name", ["customer__name", "nonsense"])
def test_what_is_no_field(name: str) -> None:
    message = whole(f"KeysetPaginator cannot order shop.Customer by {name!r}: it names no field or annotation.")
    with pytest.raises(FieldError, match=message):
        KeysetPaginator(fan_out(Customer.objects), 5, ordering=[name])


@pytest.mark.parametrize("item", ["?", Random(), Random().desc(), F("total") + Random()], ids=repr)
def test_random_order(item: Any) -> None:
    message = whole(
        f"KeysetPaginator cannot order shop.Order by {item!r}: a random order is another one on every page. Order by "
        f"fields or expressions of them."
    )
    with pytest.raises(FieldError, match=message):
        KeysetPaginator(orders(), 5, ordering=[item])


def test_an_order_that_is_none() -> None:
    message = whole("KeysetPaginator orders shop.Order by names of fields and expressions, not by 7.")
    with pytest.raises(FieldError, match=message):
        KeysetPaginator(orders(), 5, ordering=[7])


def test_an_order_that_repeats_rows() -> None:
    with pytest.raises(ValueError, match="a join to several rows repeats"):
        KeysetPaginator(orders(), 5, ordering=["lines__amount"])


CONSTRUCTS = {
    "union()": lambda: Order.objects.filter(tenant_id=1).union(Order.objects.filter(tenant_id=1)),
    "distinct() on fields": lambda: orders().order_by("status").distinct("status"),
    "annotations by window functions": lambda: orders().annotate(rank=Window(Rank(), order_by="total")),
}


@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_what_a_filter_changes(construct: str) -> None:
    message = whole(
        f"KeysetPaginator filters the rows that come before a page away, which would change what {construct} gives. "
        f"Page a queryset without that."
    )
    with pytest.raises(ValueError, match=message):
        KeysetPaginator(CONSTRUCTS[construct](), 5)


def test_counts() -> None:
    number = orders().count()
    assert KeysetPaginator(orders(), 5).count == number
    assert KeysetPaginator(orders().filter(total=1), 5, count="exact").count == orders().filter(total=1).count()
    assert KeysetPaginator(orders(), 5, count=None).count is None
    with pytest.raises(ValueError, match=whole("count must be 'exact', 'estimated' or None, not 'about'.")):
        KeysetPaginator(orders(), 5, count="about")  # type: ignore[arg-type]


@pytest.mark.skipif(servers.engine != "postgresql", reason="SQLite estimates nothing")
def test_estimates(layout: tuple[str, ...]) -> None:
    for alias in layout:
        with connections[alias].sharded_statements(), connections[alias].cursor() as cursor:
            cursor.execute("ANALYZE shop_order")
    # Of a table that was just analysed, and is read whole, the estimate is right.
    assert KeysetPaginator(orders(), 5, count="estimated").count == orders().count()
    with CaptureQueriesContext(connections[layout[0]]) as captured:
        some = KeysetPaginator(orders().filter(total=1), 5, count="estimated").count
    assert 0 < (some or 0) < orders().count()
    assert [query["sql"].split("(")[0] for query in captured.captured_queries] == ["EXPLAIN "]
    assert KeysetPaginator(orders().none(), 5, count="estimated").count == 0


@pytest.mark.skipif(servers.engine != "sqlite", reason="PostgreSQL estimates")
def test_estimates_of_sqlite() -> None:
    message = whole("sqlite estimates no number of rows. Take count='exact', or None.")
    with pytest.raises(ValueError, match=message):
        KeysetPaginator(orders(), 5, count="estimated")


def test_instances_keep_nothing_of_the_pages() -> None:
    order = KeysetPaginator(orders(), 1, ordering=["-total"]).page().items[0]
    assert set(order.__dict__) == set(Order.objects.using("reference").first().__dict__)


def test_the_default_order_of_a_related_model() -> None:
    """Named without a field, a relation stands for the target's own order, or its key."""
    names = [key.name for key in keys_of(fan_out(Line.objects), ["-order", "order_id"])]
    assert names == ["-F(order)", "F(order_id)", "F(id)"]


def test_a_cursor_survives_moves(layout: tuple[str, ...]) -> None:
    """Every bucket changes its owner between two pages."""
    paginator = KeysetPaginator(fan_out(Ledger.objects), 5, ordering=["text", "-number"])
    pages = [paginator.page()]
    rows = list(Ledger.objects.using("reference").all())
    fan_out(Ledger.objects).delete()
    with cluster.owners(*layout[1:], "shard_c" if len(layout) == 1 else layout[0]):
        for row in rows:
            row._state.db = None
        Ledger.objects.bulk_create(rows)
        while pages[-1].next_cursor:
            pages.append(paginator.page(pages[-1].next_cursor))
        fan_out(Ledger.objects).delete()
    expected = Ledger.objects.using("reference").order_by("text", "-number", "-tenant_id")
    assert [row.pk for page in pages for row in page] == [row.pk for row in expected]


@pytest.mark.skipif(servers.engine == "sqlite", reason="the plans are PostgreSQL's")
@pytest.mark.parametrize("ordering", [["pk"], ["-pk"], ["tenant_id", "-number"]], ids=str)
def test_a_late_page_is_a_range_of_an_index(ordering: list[str], layout: tuple[str, ...]) -> None:
    paginator = KeysetPaginator(fan_out(Ledger.objects), 5, ordering=ordering)
    cursor = paginator.page().next_cursor
    for alias in layout:
        with CaptureQueriesContext(connections[alias]) as captured:
            paginator.page(cursor)
        sent = next(query["sql"] for query in captured.captured_queries if "shop_ledger" in query["sql"])
        with connections[alias].sharded_statements(), connections[alias].cursor() as plans:
            plans.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
            plans.execute(f"EXPLAIN {sent}")
            plan = "\n".join(line for (line,) in plans.fetchall())
            plans.execute("RESET enable_seqscan; RESET enable_bitmapscan")
        assert "Index Cond: (" in plan, plan
