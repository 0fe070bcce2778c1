"""
Joins between sharded and global tables are refused by name, before anything is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db.models import QuerySet

from sharding.errors import GlobalJoin
from sharding.testing.statements import assert_statements
from tests.layouts import CLUSTER, Layout
from tests.messages import whole
from tests.seam.conftest import Shop
from tests.shop.models import Customer, Note, Region

pytestmark = pytest.mark.django_db(databases=CLUSTER)

JOINS: dict[str, tuple[Callable[[Shop], QuerySet[Any]], str, str]] = {
    "filter over a global model": (
        lambda shop: Customer.objects.filter(tenant_id=shop.tenant, region__name="north"),
        "shop.Customer",
        "shop_region",
    ),
    "select_related to a global model": (
        lambda shop: Customer.objects.filter(tenant_id=shop.tenant).select_related("region"),
        "shop.Customer",
        "shop_region",
    ),
    "order_by over a global model": (
        lambda shop: Customer.objects.filter(tenant_id=shop.tenant).order_by("region__name"),
        "shop.Customer",
        "shop_region",
    ),
    "values over a global model": (
        lambda shop: Customer.objects.filter(tenant_id=shop.tenant).values("region__name"),
        "shop.Customer",
        "shop_region",
    ),
    "filter from a global model": (
        lambda shop: Region.objects.filter(customers__tenant_id=shop.tenant),
        "shop.Region",
        "shop_customer",
    ),
    "select_related from a global model": (
        lambda shop: Note.objects.select_related("order"),
        "shop.Note",
        "shop_order",
    ),
    "order_by from a global model": (
        lambda shop: Note.objects.order_by("order__status"),
        "shop.Note",
        "shop_order",
    ),
    "exclude from a global model": (
        lambda shop: Note.objects.exclude(order__tenant_id=shop.tenant),
        "shop.Note",
        "shop_order",
    ),
}


@pytest.mark.parametrize(("queryset", "label", "table"), JOINS.values(), ids=JOINS)
def test_joins_between_servers_are_refused(
    queryset: Callable[[Shop], QuerySet[Any]], label: str, table: str, layout: Layout, shop: Shop
) -> None:
    message = (
        f"This {label} query joins {table!r}, and sharded and global tables live on different servers. "
        f"Ask for the related rows in a query of their own (for example by prefetch_related())."
    )
    with assert_statements({}), pytest.raises(GlobalJoin, match=whole(message)):
        list(queryset(shop))
