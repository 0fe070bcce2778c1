"""What attach() returns goes on being a queryset; and what it refuses."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import FieldError
from django.db.models import Prefetch
from django.db.models.query import ModelIterable

from aggregator import KeysetPaginator, attach, attaching, fan_out
from sharding.testing.statements import assert_statements, statements
from tests.messages import whole
from tests.related_rows import DANGLING, related_rows_on
from tests.shop.models import Customer, Order, Region
from tests.two_sides import LAYOUTS

pytestmark = pytest.mark.django_db(databases="__all__")
Layout = tuple[str, ...]


@pytest.fixture(scope="module", params=LAYOUTS.values(), ids=list(LAYOUTS), autouse=True)
def layout(request: Any, django_db_setup: None, django_db_blocker: Any) -> Iterator[Layout]:
    with django_db_blocker.unblock(), related_rows_on(request.param):
        yield request.param


def customers() -> Any:
    return fan_out(Customer.objects).order_by("id")


CHAINED: dict[str, Callable[[Any], list[Any]]] = {
    "filter": lambda found: list(found.filter(name="c1")),
    "exclude": lambda found: list(found.exclude(name="c1")),
    "for_key": lambda found: list(found.for_key(3)),
    "order": lambda found: list(found.order_by("-name", "id")),
    "slice": lambda found: list(found[3:7]),
    "index": lambda found: [found[2]],
    "get": lambda found: [found.get(email="1@4")],
    "first": lambda found: [found.first()],
    "in_bulk": lambda found: list(found.in_bulk([each.pk for each in customers()[:3]]).values()),
    "iterator": lambda found: list(found.iterator()),
    "iterator in chunks": lambda found: list(found.iterator(chunk_size=3)),
    "attached again": lambda found: list(attach(attach(found, "region"), "country")),
    "fanned out afterwards": lambda found: list(fan_out(attach(Customer.objects, "region"))),
    "a copy": lambda found: list(copy.deepcopy(found)),
    "pickled": lambda found: list(pickle.loads(pickle.dumps(found))),
    "pickled and filtered": lambda found: list(pickle.loads(pickle.dumps(found)).for_key(3)),
    "page": lambda found: KeysetPaginator(found, 3).page().items,
    "with prefetch": lambda found: list(found.prefetch_related("orders")),
    "by prefetch": lambda found: [
        each.customer for each in fan_out(Order.objects).prefetch_related(Prefetch("customer", found)) if each.customer
    ],
    "prefetched rows": lambda found: [
        order.customer
        for each in customers().prefetch_related("orders")
        for order in attach(each.orders, "customer__region")
    ],
    "async for": lambda found: async_to_sync(_listed)(found),
    "aiterator": lambda found: async_to_sync(_listed)(found.aiterator(chunk_size=3)),
}


async def _listed(found: Any) -> list[Any]:
    return [each async for each in found]


@pytest.mark.parametrize("use", CHAINED.values(), ids=CHAINED)
def test_it_stays_a_queryset(use: Callable[[Any], list[Any]]) -> None:
    found = use(attach(customers(), "region"))
    regions = {None: None, DANGLING: None, **{each.pk: each for each in Region.objects.all()}}
    with assert_statements({}):
        assert [each.region for each in found] == [regions[each.region_id] for each in found]
    assert found


def test_nothing_is_attached_where_no_instance_is_made(layout: Layout) -> None:
    found = attach(customers(), "region")
    with statements() as sent:
        assert (found.count(), found.exists()) == (40, True)
        assert found.filter(name="c1").update(joined=None) == 8
    assert not any("shop_region" in sql for _, sql in sent.sent)


def test_prefetched_rows_are_left_as_they_are() -> None:
    customer = customers().prefetch_related("orders").get(email="1@4")
    with assert_statements({}):
        assert attach(customer.orders, "customer") is not customer.orders.all()
        assert not isinstance(customer.orders.all(), attaching.Attaching)


class Loud(ModelIterable):
    def __iter__(self) -> Iterator[Any]:
        for instance in super().__iter__():
            instance.name = instance.name.upper()
            yield instance


def test_instances_of_a_queryset_with_an_iterable_of_its_own() -> None:
    source = customers()
    source._iterable_class = Loud
    found = attach(source, "region").filter(region=1)
    assert {(each.name, each.region.name) for each in found} == {("C0", "region 1")}


def test_writes() -> None:
    assert attach(customers(), "region").filter(name="c4").delete()[1]["shop.Customer"] == 8


def test_it_is_lazy() -> None:
    with assert_statements({}):
        attach(customers(), "region").filter(name="c1")[:3]


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no path": (
        lambda: attach(customers()),
        TypeError,
        'attach() needs the names of foreign keys, such as attach(queryset, "customer__region").',
    ),
    "no queryset": (
        lambda: attach([], "region"),  # type: ignore[arg-type]
        TypeError,
        "attach() takes a queryset or a manager, such as Order.objects, not [].",
    ),
    "values before": (
        lambda: attach(customers().values("id"), "region"),
        TypeError,
        "attach() works on instances. Give it a queryset without values() or values_list().",
    ),
    "values after": (
        lambda: attach(customers(), "region").values("id"),
        TypeError,
        "attach() gives instances their related objects, and values() and values_list() make no instances. "
        "Call them on the queryset that attach() was given.",
    ),
    "values_list after": (
        lambda: attach(customers(), "region").values_list("id", flat=True),
        TypeError,
        "attach() gives instances their related objects, and values() and values_list() make no instances. "
        "Call them on the queryset that attach() was given.",
    ),
    "no such field": (
        lambda: attach(fan_out(Order.objects), "customer__planet"),
        FieldError,
        "attach() cannot follow 'customer__planet': shop.Customer has no field 'planet'.",
    ),
    "no foreign key": (
        lambda: attach(customers(), "name"),
        FieldError,
        "attach() cannot follow 'name': shop.Customer has no foreign key 'name'. For other relations there is "
        "prefetch_related().",
    ),
    "a column's name": (
        lambda: attach(customers(), "region_id"),
        FieldError,
        "attach() cannot follow 'region_id': shop.Customer has no foreign key 'region_id'. For other relations there "
        "is prefetch_related().",
    ),
    "a reverse relation": (
        lambda: attach(Region.objects, "customers"),
        FieldError,
        "attach() cannot follow 'customers': shop.Region has no foreign key 'customers'. For other relations there is "
        "prefetch_related().",
    ),
    "a key that was not loaded": (
        lambda: list(attach(customers().only("name"), "region")),
        FieldError,
        "attach() needs the column 'region_id' of shop.Customer, which was not loaded. Name it in only(), or take it "
        "out of defer().",
    ),
}


@pytest.mark.parametrize(("ask", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(ask: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=whole(message)):
        ask()
