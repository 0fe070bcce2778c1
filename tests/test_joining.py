"""join() gives the pairs of one database's JOIN, on three kinds of cluster and over several databases."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db.models import F, Window
from django.db.models.functions import RowNumber
from django.db.models.signals import post_init

from aggregator import attach, fan_out, join
from sharding.errors import ShardKeyMissing
from sharding.testing.statements import assert_statements, statements
from tests.messages import whole
from tests.related_rows import DANGLING, related_rows_on
from tests.shop.models import Customer, Note, Order, Region
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


def test_sharded_with_global() -> None:
    found = list(join(customers(), Region.objects, on=("region", "id")))
    expected = Customer.objects.using("reference").select_related("region").filter(region__isnull=False).order_by("id")
    assert keys(found) == [(each.pk, each.region_id) for each in expected if each.region_id != DANGLING]
    assert {right.name for _, right in found} == {"region 1", "region 2", "region 3"}


def test_left_keeps_nulls_and_dangling_keys_in_the_order_of_the_left_side() -> None:
    found = join(customers(), Region.objects, on=("region_id", "pk"), how="left", batch_size=7)
    expected = Customer.objects.using("reference").order_by("id").values_list("pk", "region_id")
    assert keys(found) == [(pk, None if key == DANGLING else key) for pk, key in expected]


@pytest.mark.parametrize(("size", "batches"), [(1000, 1), (15, 3)])
def test_the_right_side_is_asked_once_for_each_batch(layout: Layout, size: int, batches: int) -> None:
    expected = dict.fromkeys(layout, 1)
    expected["default"] = expected.get("default", 0) + batches
    with assert_statements(expected):
        list(join(customers(), Region.objects, on=("region", "id"), batch_size=size))


def test_a_sharded_right_side_is_routed_by_its_ids(layout: Layout) -> None:
    with statements() as sent:
        found = list(join(Note.objects.order_by("id"), Order.objects, on=("order", "id")))
    assert [left.order_id for left, _ in found] == [right.pk for _, right in found]
    assert len(found) == 10
    assert sum('FROM "shop_order"' in sql for _, sql in sent.sent) == len(layout)


def test_a_sharded_right_side_is_routed_by_its_key() -> None:
    """The right side's shards are those of the keys: tenant 3 has one."""
    note = Note.objects.create(pk=100, text="3")
    with statements() as sent:
        found = list(join(Note.objects.filter(pk=note.pk), Customer.objects, on=("text", "tenant_id")))
    assert {right.tenant_id for _, right in found} == {3}
    assert len(found) == 5
    assert sum('FROM "shop_customer"' in sql for _, sql in sent.sent) == 1


def test_a_sharded_right_side_without_its_key_needs_the_opt_in() -> None:
    with pytest.raises(ShardKeyMissing):
        list(join(Note.objects, Order.objects, on=("id", "quantity")))
    assert list(join(Note.objects, orders(), on=("id", "quantity")))


def test_equal_keys_multiply() -> None:
    found = Counter(keys(join(orders(), orders(), on="quantity")))
    rows = list(Order.objects.using("reference").values_list("pk", "quantity"))
    assert found == Counter((one, other) for one, a in rows for other, b in rows if a == b)
    assert sum(found.values()) == 400


def test_rows_of_one_left_row_are_in_the_order_of_the_right_side() -> None:
    found = keys(join(orders(), orders().reverse(), on="quantity", batch_size=5))
    assert found == sorted(found, key=lambda pair: (pair[0], -pair[1].int))


def test_other_databases(layout: Layout) -> None:
    """Both sides may be anywhere: here in databases with Django's own engine."""
    Region.objects.using("plain").bulk_create([Region(pk=1, name="one"), Region(pk=2, name="two")])
    with assert_statements({"reference": 1, "plain": 1}):
        found = list(join(Customer.objects.using("reference"), Region.objects.using("plain"), on=("region", "id")))
    assert Counter(right.name for _, right in found) == {"one": 8, "two": 8}


def test_sides_with_attached_rows_and_prefetch() -> None:
    left = attach(orders().filter(customer__isnull=False), "customer__region")
    for order, customer in join(left, customers().prefetch_related("orders"), on=("customer", "id"), batch_size=4):
        with assert_statements({}):
            assert order.customer == customer
            assert order in customer.orders.all()


def test_a_slice_of_the_left_side() -> None:
    assert len(list(join(customers()[3:9], Region.objects, on=("region", "id"), how="left"))) == 6


def test_nothing_is_asked_before_the_first_pair_and_little_for_it() -> None:
    with statements() as sent:
        pairs = join(customers(), Region.objects, on=("region", "id"), batch_size=5)
        assert not sent
        assert next(iter(pairs))
    assert sum("shop_region" in sql for _, sql in sent.sent) == 1


def test_the_left_side_is_read_as_it_is_needed() -> None:
    made: list[Any] = []
    post_init.connect(note := lambda instance, **kwargs: made.append(instance), sender=Customer)
    try:
        assert next(iter(join(customers(), Region.objects, on=("region", "id"), batch_size=5)))
    finally:
        post_init.disconnect(note, sender=Customer)
    assert len(made) == 5


def test_it_can_be_iterated_again() -> None:
    pairs = join(customers(), Region.objects, on=("region", "id"))
    assert keys(pairs) == keys(pairs) != []


def test_async() -> None:
    async def listed() -> list[Any]:
        return [pair async for pair in join(customers(), Region.objects, on=("region", "id"), batch_size=3)]

    assert keys(async_to_sync(listed)()) == keys(join(customers(), Region.objects, on=("region", "id")))


def test_leaving_async_for() -> None:
    async def first() -> Any:
        async for pair in join(customers(), Region.objects, on=("region", "id"), batch_size=3):
            return pair

    assert async_to_sync(first)() is not None


@pytest.mark.parametrize("size", [1, 3])
def test_memory_is_bounded(size: int) -> None:
    """Every left row has 200 right ones, and few of them are there at a time."""
    Region.objects.bulk_create([Region(pk=pk, name="many") for pk in range(100, 300)])
    Note.objects.bulk_create([Note(pk=pk, text="many") for pk in range(100, 104)])
    on = ("text", "name")
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most = 0

    def note(instance: Any, **kwargs: Any) -> None:
        nonlocal most
        alive.add(instance)
        most = max(most, len(alive))

    post_init.connect(note, sender=Region)
    try:
        notes = Note.objects.order_by("-pk")
        found = Counter((left.pk, right.name) for left, right in join(notes, Region.objects, on=on, batch_size=size))
    finally:
        post_init.disconnect(note, sender=Region)
    assert list(found.items()) == [((pk, "many"), 200) for pk in (103, 102, 101, 100)]
    # What is held, a chunk that is being read, and the rows in hand.
    assert most <= 11 * size + 4


WINDOW = {"n": Window(RowNumber(), order_by="id")}
RIGHT = (
    "join() asks its right side for the rows with some keys at a time, which {} would not be the same for. Leave it "
    "out, or exchange the sides."
)
REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "how": (
        lambda: join(customers(), Region.objects, on=("region", "id"), how="right"),  # type: ignore[call-overload]
        ValueError,
        "how must be 'inner' or 'left', not 'right'. For a right join, exchange the sides.",
    ),
    "batch_size": (
        lambda: join(customers(), Region.objects, on=("region", "id"), batch_size=0),
        ValueError,
        "batch_size must be from 1 to 10000, not 0.",
    ),
    "a large batch_size": (
        lambda: join(customers(), Region.objects, on=("region", "id"), batch_size=10_001),
        ValueError,
        "batch_size must be from 1 to 10000, not 10001.",
    ),
    "no queryset": (
        lambda: join(customers(), list(Region.objects.none()), on="id"),  # type: ignore[call-overload]
        TypeError,
        "join() takes a queryset or a manager, such as Order.objects, not [].",
    ),
    "values": (
        lambda: join(customers().values("id"), Region.objects, on="id"),
        TypeError,
        "join() works on instances. Give it a queryset without values() or values_list().",
    ),
    "a slice": (
        lambda: join(customers(), Region.objects.all()[:3], on=("region", "id")),
        ValueError,
        RIGHT.format("a slice"),
    ),
    "a union": (
        lambda: join(customers(), Region.objects.union(Region.objects.all()), on=("region", "id")),
        ValueError,
        RIGHT.format("union()"),
    ),
    "distinct by fields": (
        lambda: join(customers(), Region.objects.distinct("name"), on=("region", "id")),
        ValueError,
        RIGHT.format("distinct() by fields"),
    ),
    "a window": (
        lambda: join(customers(), Region.objects.annotate(**WINDOW), on=("region", "id")),
        ValueError,
        RIGHT.format("window functions"),
    ),
}


@pytest.mark.parametrize(("ask", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(ask: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=whole(message)):
        ask()


def test_annotations_stay() -> None:
    pairs = join(orders(), Region.objects.annotate(double=F("id") * 2), on=("quantity", "id"))
    assert {right.double for _, right in pairs} == {2, 4, 6}
