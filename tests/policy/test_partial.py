"""fan_out(on_error="partial"): every kind of answer names the shards whose rows it lacks, or is no partial answer."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import OperationalError, ProgrammingError, connections, transaction
from django.db.models import Avg, Count, Min, Prefetch, Sum

from aggregator import KeysetPaginator, attach, executor, fan_out, join
from aggregator.partial_results import (
    PartialAggregate,
    PartialAsyncIterator,
    PartialCount,
    PartialIterator,
    PartialPaginator,
)
from aggregator.policy import Policy, Record
from sharding.errors import PartialRefused, ShardsUnavailable
from tests import servers
from tests.downtime import down
from tests.layouts import CLUSTER, SHOP_ONLY, tenant_on
from tests.messages import whole
from tests.shop.models import Customer, Order

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)

TOTALS = {alias: [*range(place, 16, 4)] for place, alias in enumerate(CLUSTER)}
THREE = sorted(total for alias in CLUSTER if alias != "shard_b" for total in TOTALS[alias])
REFUSAL = "No part of an answer to this shop.Order query will do: "


def partial() -> Any:
    return fan_out(Order.objects, on_error="partial").order_by("total")


def _is_named(missing: Any, *aliases: str) -> None:
    assert list(missing) == list(aliases)
    assert all(isinstance(error, OperationalError) for error in missing.values())


@pytest.mark.parametrize("alias", ["default", "shard_a", "shard_b", "shard_c"])
def test_rows(alias: str) -> None:
    rest = sorted(total for each in CLUSTER if each != alias for total in TOTALS[each])
    orders = partial()
    with _down(alias):
        assert [order.total for order in orders] == rest
    _is_named(orders.missing, alias)


def _down(alias: str) -> Any:
    return down(alias)


def test_rows_with_nobody_missing() -> None:
    orders = partial()
    assert len(orders) == 16
    assert orders.missing == {}
    assert orders.count().missing == {}


def test_each_evaluation_speaks_for_itself() -> None:
    orders = partial()
    with down("shard_b"):
        assert len(orders) == 12
        assert orders.filter(total__gt=3).count() == 9
    again = orders.all()
    assert len(again) == 16
    assert again.missing == {}
    _is_named(orders.missing, "shard_b")


def test_two_shards_missing() -> None:
    orders = partial()
    with down("shard_b"), down("shard_a"):
        assert [order.status for order in orders[:3]] == ["default", "shard_c", "default"]
        number = orders.count()
    _is_named(number.missing, "shard_a", "shard_b")


def test_nobody_left() -> None:
    """An answer of nobody is no part of one."""
    with down("shard_a"), down("shard_b"), down("shard_c"):
        orders = fan_out(Order.objects, on_error="partial", shards=["shard_a", "shard_b"])
        with pytest.raises(ShardsUnavailable) as caught:
            list(orders)
        _is_named(caught.value.failures, "shard_a", "shard_b")
        with pytest.raises(ShardsUnavailable) as caught:
            list(fan_out(Order.objects, on_error="partial", shards=["shard_c"]))
        _is_named(caught.value.failures, "shard_c")


def test_a_count() -> None:
    with down("shard_b"):
        number = partial().count()
    assert (type(number), number) == (PartialCount, 12)
    _is_named(number.missing, "shard_b")
    copy = pickle.loads(pickle.dumps(number))
    assert (copy, list(copy.missing)) == (12, ["shard_b"])


def test_a_count_of_rows_that_were_fetched() -> None:
    orders = partial()
    with down("shard_b"):
        list(orders)
    number = orders.count()
    assert number == 12
    _is_named(number.missing, "shard_b")


def test_an_aggregate() -> None:
    with down("shard_b"):
        found = partial().aggregate(Sum("total"), Min("total"), Count("id"))
    assert type(found) is PartialAggregate
    assert found == {"total__sum": sum(THREE), "total__min": THREE[0], "id__count": 12}
    _is_named(found.missing, "shard_b")
    assert list(pickle.loads(pickle.dumps(found)).missing) == ["shard_b"]


@pytest.mark.parametrize("alias", ["shard_a", "shard_b"])
def test_groups(alias: str) -> None:
    """Finished by a statement on one of the shards that are left."""
    groups = fan_out(Order.objects, on_error="partial").values("status").annotate(mean=Avg("total")).order_by("status")
    with down(alias):
        found = {group["status"]: group["mean"] for group in groups}
    assert found == {each: Decimal(sum(TOTALS[each])) / 4 for each in CLUSTER if each != alias}
    _is_named(groups.missing, alias)


def test_an_inner_query() -> None:
    with down("shard_b"):
        number = partial()[:14].count()
    assert number == 12
    _is_named(number.missing, "shard_b")


def test_an_iterator() -> None:
    with down("shard_b"):
        rows = partial().iterator(chunk_size=2)
        assert type(rows) is PartialIterator
        assert [order.total for order in rows] == THREE
    _is_named(rows.missing, "shard_b")


def test_an_asynchronous_iterator() -> None:
    async def ask() -> Any:
        rows = partial().aiterator(chunk_size=2)
        assert type(rows) is PartialAsyncIterator
        return [order.total async for order in rows], rows.missing

    with down("shard_b"):
        totals, missing = async_to_sync(ask)()
    assert totals == THREE
    _is_named(missing, "shard_b")


def test_a_page() -> None:
    with down("shard_b"):
        page: Any = PartialPaginator(partial(), 5).page(2)
        assert [order.total for order in page] == THREE[5:10]
    assert len(page.object_list) == 5
    _is_named(page.missing, "shard_b")
    _is_named(page.paginator.count.missing, "shard_b")


def test_a_page_of_which_the_number_is_partial() -> None:
    with down("shard_b"):
        page: Any = PartialPaginator(partial(), 5).page(2)
        assert page.paginator.num_pages == 3
    assert len(page) == 5
    _is_named(page.missing, "shard_b")


def test_a_page_with_nobody_missing() -> None:
    page: Any = PartialPaginator(partial(), 5).page(4)
    assert (len(page), page.missing) == (1, {})


def test_a_page_by_cursor() -> None:
    paginator: Any = KeysetPaginator(partial(), 5)
    with down("shard_b"):
        first = paginator.page()
        second = paginator.page(first.next_cursor)
    assert [order.total for order in second] == THREE[5:10]
    _is_named(first.missing, "shard_b")
    _is_named(second.missing, "shard_b")
    assert paginator.page(second.previous_cursor).missing == {}


WHOLE: dict[str, Callable[[Any], Any]] = {
    "get()": lambda orders: orders.get(total=0),
    "first()": lambda orders: orders.first(),
    "last()": lambda orders: orders.last(),
    "earliest()": lambda orders: orders.earliest("total"),
    "latest()": lambda orders: orders.latest("total"),
    "an index": lambda orders: orders[0],
    "every second": lambda orders: orders[:4:2],
    "in_bulk()": lambda orders: orders.order_by().in_bulk(),
    "no row exists": lambda orders: orders.filter(total=99).exists(),
}


@pytest.mark.parametrize("read", WHOLE.values(), ids=WHOLE.keys())
def test_what_cannot_say_what_it_lacks_is_an_error(read: Callable[[Any], Any]) -> None:
    with down("shard_b"), pytest.raises(ShardsUnavailable) as caught:
        read(partial())
    _is_named(caught.value.failures, "shard_b")


def test_a_row_that_exists_is_enough() -> None:
    with down("shard_b"):
        assert partial().filter(total=0).exists()
        orders = partial().filter(total=99)
        assert list(orders) == []
        with pytest.raises(ShardsUnavailable):
            orders.exists()


def test_prefetching_does_not_hide_what_is_missing() -> None:
    customer = Customer.objects.create(tenant_id=tenant_on("shard_b"), name="Ada")
    Order.objects.create(tenant_id=customer.tenant_id, customer=customer)
    lookup = Prefetch("orders", fan_out(Order.objects, on_error="partial"))
    customers = list(Customer.objects.filter(tenant_id=customer.tenant_id).prefetch_related(lookup))
    assert len(customers[0].orders.all()) == 1
    asked = fan_out(Order.objects, on_error="partial")
    asked._add_hints(instance=customer)  # type: ignore[attr-defined]
    with down("shard_b"), pytest.raises(ShardsUnavailable):
        list(asked)


ATTACHED: dict[str, Callable[[], Any]] = {
    "inside": lambda: fan_out(attach(Order.objects.all(), "customer"), on_error="partial"),
    "outside": lambda: attach(fan_out(Order.objects, on_error="partial"), "customer"),
    "again": lambda: fan_out(attach(fan_out(Order.objects, on_error="partial"), "customer"), on_error="partial"),
    "twice": lambda: attach(fan_out(attach(Order.objects, "customer"), on_error="partial"), "customer__region"),
}


@pytest.mark.parametrize("attached", ATTACHED.values(), ids=ATTACHED.keys())
def test_rows_with_attached_objects(attached: Callable[[], Any]) -> None:
    customer = Customer.objects.create(tenant_id=tenant_on("default"), name="Ada")
    Order.objects.filter(total=0, tenant_id=customer.tenant_id).update(customer=customer)
    with down("shard_b"):
        orders = pickle.loads(pickle.dumps(attached()))
        rows = attached().iterator()
        with pytest.raises(ShardsUnavailable):
            attached().first()
        assert len(orders) == len(list(rows)) == 12
    _is_named(orders.missing, "shard_b")
    _is_named(rows.missing, "shard_b")
    found = attached().get(total=0)
    assert Order.customer.is_cached(found)
    assert found.customer == customer
    assert attached().order_by("total").first() == found


def test_attached_rows_that_are_whole_again() -> None:
    orders = fan_out(attach(fan_out(Order.objects, on_error="partial"), "customer"))
    assert type(orders) is type(attach(Order.objects.all(), "customer"))
    with down("shard_b"), pytest.raises(ShardsUnavailable):
        len(orders)


JOINS: dict[str, Callable[[], Any]] = {
    "left": lambda: join(partial(), fan_out(Customer.objects), on=("customer", "id")),
    "right": lambda: join(Order.objects.filter(tenant_id=tenant_on("default")), partial(), on="status", how="left"),
}


@pytest.mark.parametrize("joined", JOINS.values(), ids=JOINS.keys())
def test_joins_hide_nothing(joined: Callable[[], Any]) -> None:
    """Of a pair nobody could tell that it is there because the row that belongs to it is missing."""
    list(joined())
    with down("shard_b"), pytest.raises(ShardsUnavailable):
        list(joined())


@pytest.mark.parametrize("write", ["update", "delete"])
def test_writes_are_refused(write: str) -> None:
    orders = fan_out(Order.objects, on_error="partial")
    message = whole(f"{REFUSAL}{write}() writes to all shards or to none.")
    with pytest.raises(PartialRefused, match=message) as caught:
        orders.update(total=7) if write == "update" else orders.delete()
    assert caught.value.model == "shop.Order"
    assert fan_out(Order.objects).count() == 16


@pytest.mark.parametrize("read", [list, lambda orders: orders.count(), lambda orders: orders.iterator()])
def test_blocks_are_refused(read: Callable[[Any], Any]) -> None:
    message = whole(
        f"{REFUSAL}an atomic block is lost with a shard that takes part in it. Ask outside of the block, or without "
        f'on_error="partial".'
    )
    with transaction.atomic(using="default"), pytest.raises(PartialRefused, match=message):
        read(partial())


def test_an_error_of_the_statement_is_nobodys_absence() -> None:
    if servers.engine == "sqlite":
        expected: type[Exception] = OperationalError
    else:
        expected = ProgrammingError
    with connections["shard_b"].schema_editor() as editor:
        editor.execute("ALTER TABLE shop_order RENAME COLUMN weight TO burden")
    try:
        with pytest.raises(expected) as caught:
            list(fan_out(Order.objects, on_error="partial"))
        assert caught.value.__notes__ == ["on shard 'shard_b'"]
    finally:
        with connections["shard_b"].schema_editor() as editor:
            editor.execute("ALTER TABLE shop_order RENAME COLUMN burden TO weight")


def test_half_of_what_a_shard_has_is_in_no_answer() -> None:
    """Where rows of two tables are fetched in turn, a shard is in the answer with both or with none."""

    def fail(connection: Any) -> None:
        if connection.alias == "shard_b":
            raise OperationalError("gone")

    with executor.participating(connections["default"], CLUSTER, Policy(on_error="partial", record=Record())) as found:
        assert len(executor.run(found, lambda connection: connection.alias)) == 4
        with pytest.raises(ShardsUnavailable) as caught:
            executor.run(found, fail)
    _is_named(caught.value.failures, "shard_b")


def test_a_partial_answer_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with down("shard_b"), caplog.at_level(logging.WARNING, "aggregator"):
        list(partial())
    assert [record.getMessage() for record in caplog.records] == [
        "An answer is given without the rows of shard_b (OperationalError)."
    ]


def test_a_queryset_can_be_stored() -> None:
    with down("shard_b"):
        orders = pickle.loads(pickle.dumps(partial()))
    assert type(orders) is type(partial())
    assert len(orders) == 12
    _is_named(orders.missing, "shard_b")


def test_the_outer_call_counts() -> None:
    entire = fan_out(partial())
    assert type(entire) is type(fan_out(Order.objects))
    with down("shard_b"):
        with pytest.raises(ShardsUnavailable):
            list(entire)
        assert len(fan_out(fan_out(Order.objects), on_error="partial")) == 12


def test_an_object_that_may_be_on_a_shard_that_is_missing() -> None:
    found = Order.objects.get(tenant_id=tenant_on("shard_b"))
    with down("shard_b"):
        with pytest.raises(OperationalError):
            partial().contains(found)
        assert partial().contains(Order.objects.get(tenant_id=tenant_on("shard_c")))
