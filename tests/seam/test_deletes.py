"""
delete() names the shard key beside the ids of its rows, whichever way the rows were found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db.models import QuerySet

from aggregator import fan_out
from sharding import bucket_of, deletion, ownership
from sharding.errors import BucketMismatch
from sharding.testing.statements import Statements, assert_no_fan_out, statements
from tests.layouts import CLUSTER, Layout, neighbour_in_bucket, tenant_on
from tests.messages import whole
from tests.seam.conftest import Shop
from tests.shop.models import Account, Customer, Device, Ledger, Line, Order, PaidOrder, Reading

pytestmark = pytest.mark.django_db(databases=CLUSTER)


def by_key(table: str, key: str = "tenant_id", ids: str = "%s") -> str:
    """Return the DELETE of rows by their key and ids."""
    return f'DELETE FROM "{table}" WHERE ("{table}"."{key}" = %s AND "{table}"."id" IN ({ids}))'


def by(table: str, column: str) -> str:
    """Return the DELETE of rows by one column."""
    return f'DELETE FROM "{table}" WHERE "{table}"."{column}" IN (%s)'


#: Rows that depend on an order, and the order.
ORDER = [
    by("shop_line", "order_id"),
    by("shop_ordertag", "order_id"),
    by("shop_note", "order_id"),
    by_key("shop_order"),
]

#: What is deleted, and the DELETEs that are sent, in whatever order.
DELETES: dict[str, tuple[Callable[[Shop], Any], list[str]]] = {
    "an instance": (lambda shop: shop.line.delete(), [by_key("shop_line")]),
    "an instance that was read": (lambda shop: Line.objects.get(pk=shop.line.pk).delete(), [by_key("shop_line")]),
    "an instance, its key unread": (
        lambda shop: Line.objects.only("id").get(pk=shop.line.pk).delete(),
        [by("shop_line", "id")],
    ),
    "an instance that was never read": (
        lambda shop: Line(pk=shop.line.pk, tenant_id=shop.tenant).delete(),
        [by_key("shop_line")],
    ),
    "an instance and what depends on it": (lambda shop: shop.order.delete(), ORDER),
    "a cascade over two relations": (lambda shop: shop.customer.delete(), [*ORDER, by_key("shop_customer")]),
    "a proxy": (lambda shop: PaidOrder.objects.get(pk=shop.order.pk).delete(), ORDER),
    "a queryset whose rows are read": (lambda shop: Order.objects.filter(tenant_id=shop.tenant).delete(), ORDER),
    "a queryset whose rows are not read": (
        lambda shop: Line.objects.filter(tenant_id=shop.tenant, product="tea").delete(),
        ['DELETE FROM "shop_line" WHERE ("shop_line"."product" = %s AND "shop_line"."tenant_id" = %s)'],
    ),
    "a queryset, its keys unread": (
        lambda shop: Order.objects.only("id").filter(tenant_id=shop.tenant).delete(),
        [*ORDER[:3], by("shop_order", "id")],
    ),
    "a related manager": (lambda shop: shop.customer.orders.all().delete(), ORDER),
    "Django's own queryset": (
        lambda shop: QuerySet(Order).filter(tenant_id=shop.tenant).delete(),
        [*ORDER[:3], by("shop_order", "id")],
    ),
    "a key that is a foreign key": (
        lambda shop: shop.account.entries.create(amount=1).delete(),
        [by_key("shop_entry", "account_id")],
    ),
    "a key that is the id": (
        lambda shop: shop.account.delete(),
        [by("shop_entry", "account_id"), by("shop_account", "id")],
    ),
    "a key that is a natural id": (
        lambda shop: Device.objects.create(serial="N-1").delete(),
        [by("shop_reading", "device_id"), by("shop_device", "serial")],
    ),
}


def deletes(sent: Statements) -> list[str]:
    return [sql for _, sql in sent.sent if sql.startswith("DELETE")]


@pytest.mark.parametrize(("delete", "expected"), DELETES.values(), ids=DELETES)
def test_the_whole_where_clause(delete: Callable[[Shop], Any], expected: list[str], layout: Layout, shop: Shop) -> None:
    with statements() as sent, assert_no_fan_out():
        delete(shop)
    assert sorted(deletes(sent)) == sorted(expected)


def test_a_composite_id_holds_the_key(layout: Layout, db: None) -> None:
    tenant = tenant_on(layout.home)
    rows = [Ledger.objects.create(tenant_id=tenant, number=number) for number in range(3)]
    with statements() as sent, assert_no_fan_out():
        rows[0].delete()
    (sql,) = deletes(sent)
    assert '"shop_ledger"."tenant_id"' in sql
    assert '"shop_ledger"."number"' in sql
    assert Ledger.objects.filter(tenant_id=tenant).delete() == (2, {"shop.Ledger": 2})


def test_several_keys(layout: Layout, shop: Shop) -> None:
    """Each key stands with its own ids, and one statement is enough for a shard."""
    there = tenant_on(layout.away or layout.home, 5)
    pks = [Order.objects.create(tenant_id=tenant).pk for tenant in (shop.tenant, there, shop.tenant, there)]
    with statements() as sent:
        assert Order.objects.filter(pk__in=pks).delete() == (4, {"shop.Order": 4})
    of_orders = [ownership.as_asked(sql, ())[0] for sql in deletes(sent) if sql.startswith('DELETE FROM "shop_order" ')]
    one = '("shop_order"."tenant_id" = %s AND "shop_order"."id" IN (%s, %s))'
    assert of_orders == [f'DELETE FROM "shop_order" WHERE ({one} OR {one})'] * (2 if layout.away else 1)


def test_more_rows_than_one_statement_takes(layout: Layout, shop: Shop) -> None:
    """Rows of one key stand together, so that most statements name one key."""
    tenants = [shop.tenant, shop.neighbour]
    Customer.objects.bulk_create([Customer(tenant_id=tenants[n % 2], email=f"{n}@b.com") for n in range(300)])
    with statements() as sent:
        assert Customer.objects.filter(tenant_id__in=tenants, email__endswith="@b.com").delete()[0] == 300
    keys = [sql.count('"tenant_id" = %s') for sql in deletes(sent) if "shop_customer" in sql]
    assert sum(keys) == 4
    assert len(keys) == 3


def test_fan_out(layout: Layout, shop: Shop) -> None:
    Order.objects.create(tenant_id=tenant_on(layout.away or layout.home, 5))
    with statements() as sent:
        assert fan_out(Order.objects).delete()[1]["shop.Order"] == 2
    assert all('"tenant_id" = %s' in sql for sql in deletes(sent) if sql.startswith('DELETE FROM "shop_order" '))


def test_a_row_of_another_key_in_the_same_bucket(layout: Layout, shop: Shop) -> None:
    other = neighbour_in_bucket(shop.tenant)
    stored = Order.objects.create(tenant_id=other)
    assert Order(pk=stored.pk, tenant_id=shop.tenant).delete() == (0, {})
    assert Order.objects.filter(pk=stored.pk).get() == stored
    stale = Line(pk=shop.line.pk, tenant_id=other)
    assert stale.delete() == (0, {"shop.Line": 0})
    assert Line.objects.filter(pk=shop.line.pk).get() == shop.line


def test_a_row_of_another_key_among_others(layout: Layout, shop: Shop) -> None:
    """The ids of one key are no ids of another one, although both are named by the statement."""
    other = neighbour_in_bucket(shop.tenant)
    own, theirs, disguised = (Line.objects.create(tenant_id=t, order=shop.order) for t in (shop.tenant, other, other))
    disguised._state.shard_key = shop.tenant
    with statements() as sent:
        assert deletion.delete_rows(Line, [own, theirs, disguised], "default") == 2
    assert len(deletes(sent)) == 1
    assert set(Line.objects.filter(order=shop.order)) == {shop.line, disguised}


def test_a_row_of_another_bucket(layout: Layout, shop: Shop) -> None:
    expected, found = bucket_of(shop.neighbour, model=Order), bucket_of(shop.tenant, model=Order)
    message = (
        f"shop.Order.id={shop.order.pk!r} was made for bucket {found}, but the row belongs to bucket {expected} by its "
        f"tenant_id. Leave the id empty, and it is made for the row's bucket."
    )
    with statements() as sent, pytest.raises(BucketMismatch, match=whole(message)):
        Order(pk=shop.order.pk, tenant_id=shop.neighbour).delete()
    assert sent.counts == {}


def test_the_stored_key_counts(layout: Layout, shop: Shop) -> None:
    """Whatever the attribute says meanwhile."""
    shop.line.tenant_id = shop.neighbour
    assert shop.line.delete() == (1, {"shop.Line": 1})
    order = Order.objects.get(pk=shop.order.pk)
    order.tenant_id = neighbour_in_bucket(shop.tenant)
    order.delete()
    assert not Order.objects.filter(tenant_id=shop.tenant).exists()


def test_a_row_that_is_not_stored(layout: Layout, shop: Shop) -> None:
    message = "Order object can't be deleted because its id attribute is set to None."
    with pytest.raises(ValueError, match=whole(message)):
        Order(pk=None, tenant_id=shop.tenant).delete()


def test_what_a_delete_of_a_queryset_refuses(layout: Layout, shop: Shop) -> None:
    orders = Order.objects.filter(tenant_id=shop.tenant)
    with pytest.raises(TypeError, match=whole("Cannot use 'limit' or 'offset' with delete().")):
        orders[:1].delete()
    with pytest.raises(TypeError, match=whole("Cannot call delete() after .distinct(*fields).")):
        orders.distinct("status").delete()
    with pytest.raises(TypeError, match=whole("Cannot call delete() after .values() or .values_list()")):
        orders.values("id").delete()


def test_what_is_read_of_dependent_rows(layout: Layout, shop: Shop) -> None:
    """Their id and their key, no more."""
    with statements() as sent:
        shop.customer.delete()
    assert [sql for _, sql in sent.sent if sql.startswith("SELECT")] == [
        'SELECT "shop_order"."id", "shop_order"."tenant_id" FROM "shop_order" WHERE "shop_order"."customer_id" IN (%s)'
    ]


def test_reading_of_a_natural_key(layout: Layout, db: None) -> None:
    reading = Device.objects.create(serial="N-1").readings.create(value=1)
    with statements() as sent, assert_no_fan_out():
        assert reading.delete() == (1, {"shop.Reading": 1})
    assert deletes(sent) == [by_key("shop_reading", "device_id")]
    assert not Reading.objects.filter(device="N-1").exists()


def test_entries_of_an_account(layout: Layout, db: None) -> None:
    account = Account.objects.create(owner="Ada")
    account.entries.create(amount=1)
    with assert_no_fan_out():
        assert account.delete() == (2, {"shop.Entry": 1, "shop.Account": 1})
    assert account.pk is None
