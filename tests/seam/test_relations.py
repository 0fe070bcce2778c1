"""
Every method that related managers add to QuerySet's, backwards over a foreign key and over a ``through`` table.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from sharding import minting
from sharding.testing.statements import assert_no_fan_out, statements
from tests.layouts import CLUSTER, Layout
from tests.seam.conftest import Shop
from tests.shop.models import Line, Tag

pytestmark = pytest.mark.django_db(databases=CLUSTER)

Call = Callable[[Shop], Any]


def _line(shop: Shop) -> Line:
    return Line(tenant_id=shop.tenant, product="cup")


def _named(shop: Shop) -> dict[str, Any]:
    return {"tenant_id": shop.tenant, "product": "cup"}


def _tag(shop: Shop) -> Tag:
    return Tag.objects.create(tenant_id=shop.tenant, label="fast")


def _through(shop: Shop) -> dict[str, Any]:
    return {"through_defaults": {"tenant_id": shop.tenant}}


#: What the managers have besides QuerySet's methods, and what of those they change: (call, home, default).
REVERSE: dict[str, tuple[Call, int, int]] = {
    "add": (lambda shop: (shop.order.lines.add, [_line(shop)], {"bulk": False}), 1, 0),
    "create": (lambda shop: (shop.order.lines.create, [], _named(shop)), 1, 0),
    "get_or_create": (lambda shop: (shop.order.lines.get_or_create, [], _named(shop)), 2, 0),
    "update_or_create": (lambda shop: (shop.order.lines.update_or_create, [], _named(shop)), 2, 0),
    "set": (lambda shop: (shop.customer.orders.set, [[shop.order]], {}), 1, 0),
    "remove": (lambda shop: (shop.customer.orders.remove, [shop.order], {}), 1, 0),
    "clear": (lambda shop: (shop.customer.orders.clear, [], {}), 1, 0),
}

TAGS: dict[str, tuple[Call, int, int]] = {
    "add": (lambda shop: (shop.order.tags.add, [_tag(shop)], _through(shop)), 2, 0),
    "create": (lambda shop: (shop.order.tags.create, [], {"tenant_id": shop.tenant, **_through(shop)}), 3, 0),
    "get_or_create": (
        lambda shop: (shop.order.tags.get_or_create, [], {"tenant_id": shop.tenant, "label": "gift"}),
        1,
        0,
    ),
    "update_or_create": (
        lambda shop: (
            shop.order.tags.update_or_create,
            [],
            {"tenant_id": shop.tenant, "label": "gift", "defaults": {"label": "present"}},
        ),
        2,
        0,
    ),
    "set": (lambda shop: (shop.order.tags.set, [[_tag(shop)]], _through(shop)), 4, 0),
    "remove": (lambda shop: (shop.order.tags.remove, [shop.tag], {}), 1, 0),
    "clear": (lambda shop: (shop.order.tags.clear, [], {}), 1, 0),
}

WRITING = {f"reverse {name}": row for name, row in REVERSE.items()} | {
    f"tags {name}": row for name, row in TAGS.items()
}


def _own(manager: Any) -> set[str]:
    """Return the public names of a related manager that a plain manager of the same model has not, or has otherwise."""
    plain = type(manager).__mro__[1]
    return {
        name
        for name, value in inspect.getmembers(type(manager), callable)
        if not name.startswith("_") and getattr(plain, name, None) is not value
    }


def test_every_method_of_related_managers_is_listed(shop: Shop) -> None:
    # What Django calls itself.
    ours = {
        "set_base",
        "get_queryset",
        "get_prefetch_querysets",
        "get_prefetch_queryset",
        "get_prefetch_cache",
        "count",
        "exists",
        "from_queryset",
    }
    for manager, table in ((shop.customer.orders, REVERSE), (shop.order.tags, TAGS)):
        assert _own(manager) - ours == set(table) | {f"a{name}" for name in table}


@pytest.mark.parametrize(("call", "home", "default"), WRITING.values(), ids=WRITING)
@pytest.mark.parametrize("twin", [False, True], ids=["sync", "async"])
def test_writing(twin: bool, call: Call, home: int, default: int, layout: Layout, shop: Shop) -> None:
    method, arguments, named = call(shop)
    if twin:
        method = async_to_sync(getattr(method.__self__, f"a{method.__name__}"))
    with statements() as sent, assert_no_fan_out():
        method(*arguments, **named)
    counts = Counter(alias for alias, sql in sent.sent if minting.SEQUENCE not in sql)
    assert counts == layout.expect(home=home, default=default)
