"""
The page about REST framework: the classes it shows do what it says.
"""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import include, path
from rest_framework.routers import DefaultRouter

from sharding import shard_of
from sharding.testing.statements import assert_no_fan_out, assert_statements
from tests.contrib.conftest import SHARDS, Shop
from tests.documents import ROOT, blocks
from tests.layouts import CLUSTER

pytestmark = pytest.mark.django_db(databases=CLUSTER)

(PAGE,) = blocks(ROOT / "docs" / "how-to" / "rest-framework.md", "python")
# REST framework finds a serializer's fields by its module.
shown = {"__name__": __name__}
exec(PAGE.text.replace("orders.models", "tests.shop.models"), shown)

router = DefaultRouter()
router.register("orders", shown["OrderViewSet"], "order")
router.register(r"tenants/(?P<tenant>\d+)/orders", shown["TenantOrderViewSet"], "tenant-order")
urlpatterns = [path("", include(router.urls))]


@pytest.fixture
def api(settings) -> Client:
    settings.ROOT_URLCONF = __name__
    return Client(headers={"accept": "application/json"})


def test_all_tenants(api: Client, shop: Shop) -> None:
    with assert_statements(dict.fromkeys(SHARDS, 1)):
        page = api.get("/orders/").json()
    newest = sorted((str(order.pk) for order in shop.orders), reverse=True)
    assert [order["id"] for order in page["results"]] == newest
    order = shop.orders[3]
    with assert_statements({shard_of(order): 1}), assert_no_fan_out():
        assert api.get(f"/orders/{order.pk}/").json()["status"] == "sent"


def test_one_tenant(api: Client, shop: Shop) -> None:
    order = shop.orders[3]
    with assert_statements({shard_of(order): 1}), assert_no_fan_out():
        page = api.get(f"/tenants/{order.tenant_id}/orders/").json()
    # Ids of one millisecond are in any order.
    newest = sorted((str(order.pk), str(shop.orders[2].pk)), reverse=True)
    assert [each["id"] for each in page["results"]] == newest


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda shop: {"tenant_id": shop.tenants[1]}, "tenant_id"),
        (lambda shop: {"customer": str(shop.customers[1].pk)}, "customer"),
    ],
    ids=["key", "reference"],
)
def test_messages(api: Client, shop: Shop, change, field: str) -> None:
    answer = api.patch(f"/orders/{shop.orders[0].pk}/", change(shop), content_type="application/json")
    assert answer.status_code == 400
    [message] = answer.json()[field]
    assert f"*{message}*" in (ROOT / "docs" / "how-to" / "rest-framework.md").read_text(encoding="utf-8")
