"""
The admin's lists over three shards, by HTTP: rows, order, pages, search, filters, dates, and what they cost.
"""

from __future__ import annotations

from datetime import date

import pytest
from django.test import Client

from sharding.testing.statements import statements
from tests.contrib.conftest import SHARDS, Shop
from tests.layouts import CLUSTER
from tests.shop.models import Customer, Member, Note, Order, Region

pytestmark = pytest.mark.django_db(databases=CLUSTER)

ORDERS = "/admin/shop/order/"
CUSTOMERS = "/admin/shop/customer/"

#: Orders by their totals: those of the customers Ada, Bo and Cy, on three shards.
TOTALS = [24, 23, 14, 13, 4, 3]


def totals(staff: Client, query: str = "") -> list[int]:
    return [order.total for order in changelist(staff, ORDERS + query).result_list]


def names(staff: Client, query: str = "") -> list[str]:
    return [customer.name for customer in changelist(staff, CUSTOMERS + query).result_list]


def changelist(staff: Client, url: str):
    page = staff.get(url)
    assert page.status_code == 200, page.get("Location")
    return page.context["cl"]


def test_pages_are_in_one_order(staff: Client, shop: Shop) -> None:
    assert totals(staff) == TOTALS[:4]
    assert totals(staff, "?p=2") == TOTALS[4:]
    assert totals(staff, "?all=") == TOTALS
    assert totals(staff, "?o=2") == TOTALS[::-1][:4]
    assert totals(staff, "?o=1.2&p=2") == [14, 24]
    found = changelist(staff, ORDERS)
    assert (found.result_count, found.full_result_count) == (6, 6)
    assert staff.get(ORDERS + "?p=9")["Location"].endswith("?e=1")


def test_ties_are_broken_by_the_id(staff: Client, shop: Shop) -> None:
    ids = [order.pk for order in changelist(staff, ORDERS + "?o=4&all=").result_list]
    again = [order.pk for p in (1, 2) for order in changelist(staff, f"{ORDERS}?o=4&p={p}").result_list]
    assert len(set(ids)) == 6
    assert again == ids


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("?q=sent", [24, 14, 4]),
        # Over a foreign key, and over the key of others, which repeats rows.
        ("?q=Bo", [14, 13]),
        ("?q=tea", [23, 13, 3]),
        ("?q=nobody", []),
        ("?status=new", [23, 13, 3]),
        ("?status=new&q=Cy", [23]),
        ("?customer__name=Ada", [4, 3]),
        ("?customer__isnull=True", []),
        ("?created__year=2024", [14, 13]),
        ("?created__year=2024&created__month=5", [14, 13]),
        ("?created__year=2024&created__month=5&created__day=2", []),
        ("?created__gte=2024-01-01%2000:00Z&created__lt=2025-01-01%2000:00Z", [14, 13]),
    ],
)
def test_orders_found(staff: Client, shop: Shop, query: str, found: list[int]) -> None:
    assert totals(staff, query) == found


def test_customers_found(staff: Client, shop: Shop) -> None:
    north = shop.regions[0].pk
    assert names(staff, f"?region__id__exact={north}") == ["Ada"]
    assert names(staff, "?region__isnull=True") == ["Cy"]
    assert names(staff, "?email__isempty=1") == ["Cy"]
    assert names(staff, "?q=x.org") == ["Ada", "Bo"]
    assert names(staff, f"?country__id__exact={shop.customers[0].country_id}") == ["Ada", "Bo", "Cy"]
    # By a global model's rows in the order of their ids; NULL comes where the database puts it.
    assert [name for name in names(staff, "?o=-3.1") if name != "Cy"] == ["Bo", "Ada"]


def test_order_of_a_global_model_plays_no_part(staff: Client, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Region._meta, "ordering", ["-name"])
    assert [name for name in names(staff, "?o=3.1") if name != "Cy"] == ["Ada", "Bo"]


def choices(found, title: str) -> list[str]:
    [spec] = [each for each in found.filter_specs if each.title == title]
    return [str(choice["display"]) for choice in spec.choices(found)]


def test_filters_offer_the_rows_of_every_shard(staff: Client, shop: Shop) -> None:
    found = changelist(staff, ORDERS)
    assert sorted(choices(found, "customer")) == ["-", "Ada", "All", "Bo", "Cy"]
    assert choices(found, "name") == ["All", "Ada", "Bo", "Cy"]
    assert choices(found, "status") == ["All", "new", "sent"]
    # Those in use, and all.
    assert choices(found, "region") == ["All", "north", "south", "-"]
    assert choices(changelist(staff, CUSTOMERS), "region") == ["All", "north", "south", "west", "-"]
    assert choices(changelist(staff, CUSTOMERS), "country") == ["All", "Peru", "-"]
    assert "call" in staff.get("/admin/shop/note/").content.decode()
    assert len(choices(changelist(staff, "/admin/shop/note/"), "order")) == 8


def test_filter_by_one_row(staff: Client, shop: Shop) -> None:
    assert totals(staff, f"?customer__id__exact={shop.customers[1].pk}") == [14, 13]
    found = changelist(staff, f"/admin/shop/note/?order__id__exact={shop.orders[0].pk}")
    assert list(found.result_list) == [shop.note]
    assert not changelist(staff, f"/admin/shop/note/?order__id__exact={shop.orders[1].pk}").result_list


def test_facets(staff: Client, shop: Shop) -> None:
    found = changelist(staff, ORDERS + "?_facets=True&created__year=2024")
    assert choices(found, "status") == ["All", "new (1)", "sent (1)"]
    assert sorted(choices(found, "customer")) == ["- (0)", "Ada (0)", "All", "Bo (2)", "Cy (0)"]


def test_dates(staff: Client, shop: Shop) -> None:
    Customer.objects.create(tenant_id=shop.tenants[0], name="Dee", email="d@x.org", joined=date(2020, 7, 9))
    page = staff.get(CUSTOMERS).content.decode()
    assert all(f'"?joined__year={year}"' in page for year in (2020, 2024))
    page = staff.get(CUSTOMERS + "?joined__year=2024").content.decode()
    assert [month for month in range(1, 13) if f"joined__month={month}&amp;joined__year=2024" in page] == [1, 2, 3]


def test_columns_of_other_databases_cost_no_query_a_row(staff: Client, shop: Shop) -> None:
    def cost(url: str) -> dict[str, int]:
        with statements() as sent:
            assert staff.get(url).status_code == 200
        return sent.counts

    urls = [CUSTOMERS, ORDERS + "?all=", "/admin/shop/note/", "/admin/shop/line/"]
    cost(CUSTOMERS)
    before = [cost(url) for url in urls]
    others = [Region.objects.create(name=f"r{number}") for number in range(4)]
    for tenant in shop.tenants:
        for region in others:
            customer = Customer.objects.create(
                tenant_id=tenant, name=region.name, email=region.name, region=region, country=shop.customers[0].country
            )
            order = Order.objects.create(tenant_id=tenant, customer=customer, total=5)
            order.lines.create(product="pen")
            Note.objects.create(order=order, text="more")
    after = [cost(url) for url in urls]
    assert after[0] == before[0]
    assert after[1] == before[1]
    assert after[3] == before[3]
    # The first note's order is on one shard, the others' on three.
    assert sum(after[2].values()) == sum(before[2].values()) + 2


def test_a_list_is_asked_of_every_shard_once(staff: Client, shop: Shop) -> None:
    with statements() as sent:
        staff.get("/admin/shop/line/")
    # Counted twice, as Django does, and read.
    assert {alias: sent.counts[alias] for alias in SHARDS} == {"shard_a": 3, "shard_b": 3, "shard_c": 3}


def test_list_editable(staff: Client, shop: Shop) -> None:
    # Those that are shown, the first one of which gets another total.
    shown = changelist(staff, ORDERS).result_list
    data = {"form-TOTAL_FORMS": 4, "form-INITIAL_FORMS": 4, "_save": "Save"}
    for number, order in enumerate(shown):
        data |= {f"form-{number}-id": order.pk, f"form-{number}-total": 99 if number == 0 else order.total}
    page = staff.post(ORDERS, data)
    assert page.status_code == 302, page.context["cl"].formset.errors
    assert totals(staff) == [99, 23, 14, 13]
    assert Order.objects.get(pk=shown[0].pk).total == 99


def test_second_keys_are_columns_as_others(staff: Client, shop: Shop) -> None:
    Member.objects.create(tenant_id=shop.tenants[0], email="m@x.org")
    Member.objects.create(tenant_id=shop.tenants[1], email="n@x.org")
    assert len(changelist(staff, "/admin/shop/member/").result_list) == 2


def test_popup_to_choose_a_row(staff: Client, shop: Shop) -> None:
    page = staff.get(ORDERS + "?_popup=1&_to_field=id")
    assert f'data-popup-opener="{shop.orders[5].pk}"' in page.content.decode()
