"""
The page about the admin: the classes it shows do what it says, with real commits.
"""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client
from django.urls import path

from aggregator.contrib.admin import ShardedModelAdmin
from sharding.errors import CrossShardTransaction, ShardKeyMissing
from tests import servers
from tests.documents import ROOT, blocks
from tests.shop.models import Customer, Device, Order

pytestmark = pytest.mark.django_db(transaction=True, databases="__all__")

plain_site = admin.AdminSite("plain")
plain_site.register(Device)
sharded_site = admin.AdminSite("sharded")
sharded_site.register(Device, ShardedModelAdmin)
sharded_site.register(Customer, ShardedModelAdmin, search_fields=["name"])

(PAGE,) = blocks(ROOT / "docs" / "how-to" / "admin.md", "python")
# The models of the tests, on a site of their own.
PAGE_HERE = PAGE.text.replace("orders.models", "tests.shop.models").replace("(Order)", "(Order, site=site)")
exec(PAGE_HERE, {"__name__": "orders.admin", "site": sharded_site})
urlpatterns = [path("plain/", plain_site.urls), path("sharded/", sharded_site.urls)]


@pytest.fixture
def staff(settings) -> Client:
    settings.ROOT_URLCONF = __name__
    client = Client()
    client.force_login(User.objects.create_superuser("staff"))
    return client


@pytest.fixture
def devices() -> list[Device]:
    return [Device.objects.create(serial=serial) for serial in ("a", "b", "c", "d", "e", "f")]


def test_a_plain_admin_can_change_a_row_and_not_list_them(staff, devices):
    with pytest.raises(ShardKeyMissing):
        staff.get("/plain/shop/device/")
    with refused_without_two_phases():
        staff.post("/plain/shop/device/a/change/", {"serial": "a", "model": "new"})
    stored = servers.engine == "postgresql"
    assert Device.objects.get(serial="a").model == ("new" if stored else "")
    assert LogEntry.objects.count() == stored


def test_the_list_asks_every_shard(staff, devices):
    page = staff.get("/sharded/shop/device/")
    assert sorted(device.serial for device in page.context["cl"].result_list) == ["a", "b", "c", "d", "e", "f"]


def test_the_class_on_the_page(staff):
    for tenant in range(6):
        customer = Customer.objects.create(tenant_id=tenant, name=f"of {tenant}")
        Order.objects.create(tenant_id=tenant, customer=customer).lines.create(product="tea")
    page = staff.get("/sharded/shop/order/?q=tea")
    assert sorted(order.customer.name for order in page.context["cl"].result_list) == [f"of {n}" for n in range(6)]
    order = Order.objects.get(tenant_id=3)
    page = staff.get(f"/sharded/shop/order/{order.pk}/change/")
    [inline] = page.context["inline_admin_formsets"]
    assert [form.instance.product for form in inline.formset.initial_forms] == ["tea"]


@contextmanager
def refused_without_two_phases():
    """The row and its log are written to two databases in one block."""
    if servers.engine == "postgresql":
        yield
        return
    with pytest.raises(CrossShardTransaction):
        yield


def test_writes_are_logged(staff, devices):
    if servers.engine == "sqlite":
        with refused_without_two_phases():
            staff.post("/sharded/shop/device/add/", {"serial": "g", "model": "new"})
        assert not Device.objects.filter(serial="g").exists()
        return
    staff.post("/sharded/shop/device/add/", {"serial": "g", "model": "new"})
    staff.post("/sharded/shop/device/a/change/", {"model": "new"})
    staff.post("/sharded/shop/device/b/delete/", {"post": "yes"})
    staff.post("/sharded/shop/device/", {"action": "delete_selected", "_selected_action": ["c", "d"], "post": "yes"})
    assert [
        (device.serial, device.model) for device in Device.objects.filter(serial__in="abcdg").order_by("serial")
    ] == [
        ("a", "new"),
        ("g", "new"),
    ]
    entries = LogEntry.objects.order_by("id").values_list("object_id", "action_flag")
    assert list(entries)[:3] == [("g", 1), ("a", 2), ("b", 3)]
    assert sorted(entries)[2:] == [("c", 3), ("d", 3), ("g", 1)]
