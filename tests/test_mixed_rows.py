"""
Rows that come from several shards are rows as any others: related rows, deferred fields, dates, plans, equality.
"""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from django.db.models import Prefetch, prefetch_related_objects

from aggregator import fan_out
from sharding import shard_of
from sharding.testing.statements import assert_no_fan_out, assert_statements
from tests import servers
from tests.layouts import CLUSTER, tenant_on
from tests.shop.models import (
    Account,
    Country,
    Customer,
    Entry,
    Ledger,
    Line,
    Member,
    Note,
    Order,
    OrderTag,
    Region,
    Tag,
)

pytestmark = pytest.mark.django_db(databases=CLUSTER)

SHARDS = ("shard_a", "shard_b", "shard_c")
EACH = dict.fromkeys(SHARDS, 1)
TWICE = dict.fromkeys(SHARDS, 2)


@dataclass(frozen=True, slots=True)
class Shop:
    """On each shard two tenants, each with a customer, two orders of theirs, and a line and a tag of each order."""

    customers: list[Customer]
    orders: list[Order]


@pytest.fixture(autouse=True)
def shop() -> Shop:
    region = Region.objects.create(name="north")
    country = Country.objects.create(code="PE", name="Peru")
    customers, orders = [], []
    for place, alias in enumerate([*SHARDS, *SHARDS]):
        tenant = tenant_on(alias, place // 3)
        customer = Customer.objects.create(
            tenant_id=tenant, name=f"c{place}", joined=date(2020 + place % 2, 3, 1), region=region, country=country
        )
        customers.append(customer)
        for number in range(2):
            created = datetime(2020 + number, 1 + place, 1, 23, 30, tzinfo=UTC)
            order = Order.objects.create(
                tenant_id=tenant, customer=customer, total=Decimal(10 * place + number), created=created
            )
            order.lines.create(product=f"p{place}{number}")
            tag = Tag.objects.create(tenant_id=tenant, label=f"t{place}{number}")
            OrderTag.objects.create(tenant_id=tenant, order=order, tag=tag)
            Note.objects.create(order=order, text=f"n{place}{number}")
            orders.append(order)
    return Shop(customers, orders)


def names(place: int) -> list[str]:
    return [f"{place}{number}" for number in range(2)]


class TestPrefetch:
    def test_reverse_foreign_key(self) -> None:
        with assert_statements(TWICE):
            orders = list(fan_out(Order.objects.order_by("total")).prefetch_related("lines"))
            found = [[line.product for line in order.lines.all()] for order in orders]
        assert found == [[f"p{place}{number}"] for place in range(6) for number in range(2)]
        assert all(line.order is order for order in orders for line in order.lines.all())

    def test_foreign_key(self, shop: Shop) -> None:
        with assert_statements(TWICE):
            orders = list(fan_out(Order.objects.order_by("total")).prefetch_related("customer"))
            found = [order.customer for order in orders]
        assert found == [customer for customer in shop.customers for _ in range(2)]
        # Rows with one key share one object.
        assert orders[0].customer is orders[1].customer

    def test_many_to_many(self) -> None:
        with assert_statements(TWICE):
            orders = list(fan_out(Order.objects.order_by("total")).prefetch_related("tags"))
            found = [[tag.label for tag in order.tags.all()] for order in orders]
        assert found == [[f"t{place}{number}"] for place in range(6) for number in range(2)]

    def test_path(self) -> None:
        with assert_statements({"default": 1} | dict.fromkeys(SHARDS, 4)):
            found = {
                customer.name: sorted(line.product for order in customer.orders.all() for line in order.lines.all())
                for customer in fan_out(Customer.objects).prefetch_related("orders__lines", "orders__tags", "region")
                if customer.region.name == "north" and all(order.tags.all() for order in customer.orders.all())
            }
        assert found == {f"c{place}": [f"p{each}" for each in names(place)] for place in range(6)}

    def test_global_rows_that_refer_to_them(self) -> None:
        with assert_statements({"default": 1} | EACH):
            orders = list(fan_out(Order.objects.order_by("total")).prefetch_related("notes"))
            found = [note.text for order in orders for note in order.notes.all()]
        assert found == [f"n{each}" for place in range(6) for each in names(place)]

    def test_sharded_rows_of_global_ones(self, shop: Shop) -> None:
        with assert_statements({"default": 1} | EACH):
            orders = [note.order for note in Note.objects.order_by("id").prefetch_related("order")]
        assert orders == shop.orders

    def test_prefetch_objects(self) -> None:
        some = Prefetch("lines", Line.objects.filter(product__contains="1").order_by("-product"), to_attr="picked")
        with assert_statements(TWICE):
            customers = fan_out(Order.objects.order_by("total")).prefetch_related(some)
            found = [[line.product for line in order.picked] for order in customers]
        assert found[:4] == [[], ["p01"], ["p10"], ["p11"]]
        assert len(found) == 12

    def test_order_of_related_rows(self) -> None:
        latest = Prefetch(
            "orders", Order.objects.order_by("-total").select_related("customer").only("total", "customer")
        )
        with assert_statements(TWICE):
            customers = list(fan_out(Customer.objects.order_by("name")).prefetch_related(latest))
            found = [[int(order.total) for order in customer.orders.all()] for customer in customers]
        assert found == [[10 * place + 1, 10 * place] for place in range(6)]

    def test_instances_at_hand(self, shop: Shop) -> None:
        orders = [Order.objects.get(pk=order.pk) for order in shop.orders]
        with assert_statements(TWICE):
            prefetch_related_objects(orders, "lines", "customer")
            assert all(order.lines.all() and order.customer for order in orders)

    def test_chunks(self) -> None:
        orders = fan_out(Order.objects.order_by("total")).prefetch_related("lines")
        found = [order.lines.all()[0].product for order in orders.iterator(chunk_size=5)]
        assert found == [f"p{place}{number}" for place in range(6) for number in range(2)]

    def test_cost_does_not_grow_with_rows(self, shop: Shop) -> None:
        Order.objects.bulk_create([Order(tenant_id=each.tenant_id, customer=each) for each in shop.customers * 20])
        with assert_statements(dict.fromkeys(SHARDS, 3)):
            assert len(list(fan_out(Order.objects).prefetch_related("lines", "customer"))) == 132


class TestSelectRelated:
    def test_rows_come_along(self, shop: Shop) -> None:
        with assert_statements(EACH):
            orders = list(fan_out(Order.objects.order_by("total")).select_related("customer__country"))
            assert [order.customer for order in orders] == [each for each in shop.customers for _ in range(2)]
            assert {order.customer.country.name for order in orders} == {"Peru"}

    def test_rows_without_a_related_one(self, shop: Shop) -> None:
        Order.objects.filter(pk=shop.orders[3].pk).update(customer=None)
        with assert_statements(EACH):
            orders = list(fan_out(Order.objects.order_by("total")).select_related("customer"))
            assert [place for place, order in enumerate(orders) if order.customer is None] == [3]

    def test_both(self) -> None:
        with assert_statements(TWICE):
            lines = fan_out(Line.objects.order_by("product")).select_related("order").prefetch_related("order__tags")
            assert [line.order.tags.all()[0].label[1:] for line in lines] == [
                each for place in range(6) for each in names(place)
            ]


class TestDeferredFields:
    @pytest.mark.parametrize("queryset", [Order.objects.only("total"), Order.objects.defer("status", "tenant_id")])
    def test_the_rest_is_read_from_the_rows_own_shard(self, queryset, shop: Shop) -> None:
        orders = list(fan_out(queryset.order_by("total")))
        assert "status" in orders[0].get_deferred_fields()
        for order in orders:
            with assert_statements({home(order): 1}), assert_no_fan_out():
                assert order.status == "new"
        assert orders == shop.orders

    def test_of_related_rows(self) -> None:
        orders = fan_out(Order.objects.order_by("total")).select_related("customer").only("total", "customer__name")
        with assert_statements(EACH):
            assert [order.customer.name for order in orders][:3] == ["c0", "c0", "c1"]

    def test_written_back(self) -> None:
        for order in fan_out(Order.objects.only("total")):
            order.total += 1
            with assert_statements({home(order): 1}):
                order.save()
        assert sorted(fan_out(Order.objects).values_list("total", flat=True))[:3] == [1, 2, 11]


def home(order: Order) -> str:
    """Return where an order lives without its key, which may not be loaded."""
    return shard_of(Order.objects.values_list("tenant_id", flat=True).get(pk=order.pk), model=Order)


class TestInBulk:
    def test_ids(self, shop: Shop) -> None:
        ids = [order.pk for order in shop.orders]
        with assert_statements(EACH):
            found = Order.objects.in_bulk(ids)
        assert found == dict(zip(ids, shop.orders, strict=True))
        assert [*Order.objects.in_bulk(ids[:1])] == ids[:1]
        assert Order.objects.in_bulk([]) == {}

    def test_all(self, shop: Shop) -> None:
        with assert_statements(EACH):
            assert fan_out(Order.objects).in_bulk().keys() == {order.pk for order in shop.orders}

    def test_another_unique_field(self) -> None:
        members = [Member.objects.create(tenant_id=tenant_on(alias), email=f"{alias}@x.org") for alias in SHARDS]
        found = Member.objects.in_bulk([member.email for member in members], field_name="email")
        assert found == {member.email: member for member in members}

    def test_ids_of_two_columns(self) -> None:
        rows = [Ledger.objects.create(tenant_id=tenant_on(alias), number=7) for alias in SHARDS]
        assert Ledger.objects.in_bulk([row.pk for row in rows]) == {row.pk: row for row in rows}


class TestDates:
    def test_dates(self) -> None:
        assert list(fan_out(Customer.objects).dates("joined", "year")) == [date(2020, 1, 1), date(2021, 1, 1)]
        assert list(fan_out(Customer.objects).dates("joined", "month", order="DESC")) == [
            date(2021, 3, 1),
            date(2020, 3, 1),
        ]

    def test_datetimes(self) -> None:
        months = [datetime(year, month, 1, tzinfo=UTC) for year in (2020, 2021) for month in range(1, 7)]
        assert list(fan_out(Order.objects).datetimes("created", "month")) == months
        assert list(fan_out(Order.objects).datetimes("created", "year", order="DESC")) == [months[6], months[0]]

    def test_datetimes_elsewhere(self, settings) -> None:
        settings.TIME_ZONE = "Asia/Tokyo"
        found = fan_out(Order.objects.filter(created__year=2021)).datetimes("created", "day")
        # Half past eleven in the evening is tomorrow there.
        assert {moment.day for moment in found} == {2}

    def test_filtered_and_sliced(self) -> None:
        found = fan_out(Order.objects.filter(customer__name="c1")).datetimes("created", "month")
        assert list(found[:1]) == [datetime(2020, 2, 1, tzinfo=UTC)]


class TestExplain:
    def test_a_plan_for_each_shard(self) -> None:
        with assert_statements(EACH):
            plan = fan_out(Order.objects.filter(status="new").order_by("total")).explain()
        assert [line for line in plan.splitlines() if line.startswith("-- ")] == [f"-- {alias}" for alias in SHARDS]
        scanned = "Seq Scan on shop_order" if servers.engine == "postgresql" else "shop_order"
        assert plan.count(scanned) == 3

    def test_one_shard(self, shop: Shop) -> None:
        plan = Order.objects.filter(pk=shop.orders[0].pk).explain()
        assert "-- shard" not in plan


class TestEquality:
    def test_a_row_is_the_same_whoever_found_it(self, shop: Shop) -> None:
        for order in fan_out(Order.objects):
            others = [
                Order.objects.get(pk=order.pk),
                Order.objects.get(tenant_id=order.tenant_id, pk=order.pk),
                Order.objects.only("id").get(pk=order.pk),
                order.customer.orders.get(pk=order.pk),
                Line.objects.get(order=order).order,
                pickle.loads(pickle.dumps(order)),
                copy.copy(order),
            ]
            assert {order, *others} == {order}
            assert {each._state.db for each in others} == {"default"}

    def test_rows_of_different_shards_are_different(self) -> None:
        orders = [*fan_out(Order.objects), *fan_out(Order.objects.select_related("customer"))]
        assert len(set(orders)) == len(orders) / 2 == 12
        assert len({order.pk for order in orders}) == 12
        customers = {order.customer for order in orders}
        assert len(customers) == 6

    @pytest.mark.parametrize("model", [Account, Tag], ids=["uuid", "integer"])
    def test_ids_are_unique_over_the_cluster(self, model) -> None:
        if model is Account:
            rows = [Account.objects.create(owner=str(number)) for number in range(30)]
            Entry.objects.bulk_create([Entry(account=row) for row in rows])
            assert {entry.account for entry in fan_out(Entry.objects).select_related("account")} == set(rows)
        else:
            rows = Tag.objects.bulk_create([Tag(tenant_id=tenant, label="x") for tenant in range(30)])
        assert len({row.pk for row in rows}) == 30
        assert set(rows) <= set(fan_out(model.objects))

    def test_containment(self, shop: Shop) -> None:
        found = fan_out(Order.objects)
        assert shop.orders[5] in found
        assert fan_out(Order.objects.exclude(pk=shop.orders[5].pk)).contains(shop.orders[5]) is False
        assert fan_out(Order.objects).contains(shop.orders[5]) is True


class TestSlices:
    def test_slice_of_related_rows(self, shop: Shop) -> None:
        first = Prefetch("orders", Order.objects.order_by("-total")[:1], to_attr="latest")
        customers = fan_out(Customer.objects.order_by("name")).prefetch_related(first)
        assert [int(order.total) for customer in customers for order in customer.latest] == [1, 11, 21, 31, 41, 51]
