"""
The pages of a REST API over three shards, by HTTP: by number, by offset, and by cursors.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from urllib.parse import parse_qs, urlsplit

import pytest
from django.test import Client

from sharding.testing.statements import statements
from tests.contrib.conftest import Shop
from tests.contrib.test_rest import sent
from tests.contrib.views import Cursors
from tests.layouts import CLUSTER
from tests.shop.models import Order

pytestmark = pytest.mark.django_db(databases=CLUSTER)

TOTALS = ["24.00", "23.00", "14.00", "13.00", "4.00", "3.00"]


@pytest.fixture
def api(settings) -> Client:
    settings.ROOT_URLCONF = "tests.contrib.urls"
    return Client(headers={"accept": "application/json"})


def totals(page: dict) -> list[str]:
    return [order["total"] for order in page["results"]]


def walk(api: Client, url: str | None, direction: str = "next") -> Iterator[dict]:
    while url is not None:
        page = sent(api, "get", url)
        yield page
        url = page[direction]


def test_pages_by_number(api: Client, shop: Shop) -> None:
    first, second = walk(api, "/api/orders/")
    assert (totals(first), totals(second)) == (TOTALS[:4], TOTALS[4:])
    assert first["count"] == 6
    assert totals(sent(api, "get", second["previous"])) == TOTALS[:4]
    sent(api, "get", "/api/orders/?page=9", status=404)


def test_pages_by_offset(api: Client, shop: Shop) -> None:
    first, second = walk(api, "/api/offset/")
    assert (totals(first), totals(second)) == (TOTALS[:4], TOTALS[4:])
    assert totals(sent(api, "get", "/api/offset/?limit=2&offset=3")) == TOTALS[3:5]


def test_search_and_order(api: Client, shop: Shop) -> None:
    assert totals(sent(api, "get", "/api/orders/?search=Bo&ordering=total")) == ["13.00", "14.00"]
    # A join to many repeats no row.
    shop.orders[0].lines.create(product="green tea")
    assert totals(sent(api, "get", "/api/orders/?search=tea")) == ["23.00", "13.00", "3.00"]
    assert totals(sent(api, "get", "/api/orders/?ordering=status,-total"))[:3] == ["23.00", "13.00", "3.00"]


def test_the_frameworks_cursors(api: Client, shop: Shop) -> None:
    first, second = walk(api, "/api/frameworks/")
    assert totals(first) + totals(second) == TOTALS
    assert totals(sent(api, "get", second["previous"])) == TOTALS[:4]


def test_pages_by_keyset(api: Client, shop: Shop) -> None:
    pages = list(walk(api, "/api/cursors/"))
    assert [totals(page) for page in pages] == [TOTALS[:2], TOTALS[2:4], TOTALS[4:]]
    assert [*pages[0]] == ["next", "previous", "results"]
    assert pages[0]["previous"] is None
    assert pages[2]["next"] is None
    back = [totals(page) for page in walk(api, pages[2]["previous"], "previous")]
    assert back == [TOTALS[2:4], TOTALS[:2]]
    assert urlsplit(pages[0]["next"])[:3] == ("http", "testserver", "/api/cursors/")


def test_nothing_is_counted_and_no_row_skipped(api: Client, shop: Shop) -> None:
    with statements() as asked:
        page = sent(api, "get", "/api/cursors/")
    assert asked.counts == {"shard_a": 1, "shard_b": 1, "shard_c": 1}
    with statements() as asked:
        sent(api, "get", page["next"])
    assert asked.counts == {"shard_a": 1, "shard_b": 1, "shard_c": 1}
    assert not any("OFFSET" in sql for _, sql in asked.sent)


def test_equal_values_come_once_each(api: Client, shop: Shop) -> None:
    orders = [Order.objects.create(tenant_id=shop.tenants[n % 3], total=Decimal(7)) for n in range(9)]
    found = [order["id"] for page in walk(api, "/api/cursors/?size=2") for order in page["results"]]
    assert len(found) == len(set(found)) == 15
    sevens = {str(order.pk) for order in orders}
    assert {pk for pk in found if pk in sevens} == sevens


def test_rows_that_come_between_move_no_page(api: Client, shop: Shop) -> None:
    first = sent(api, "get", "/api/cursors/")
    Order.objects.create(tenant_id=shop.tenants[1], total=Decimal(100))
    shop.orders[5].delete()
    assert totals(sent(api, "get", first["next"])) == TOTALS[2:4]


def test_order_of_the_request(api: Client, shop: Shop) -> None:
    pages = list(walk(api, "/api/cursors/?ordering=status,total&size=4"))
    assert [totals(page) for page in pages] == [["3.00", "13.00", "23.00", "4.00"], ["14.00", "24.00"]]
    assert parse_qs(urlsplit(pages[0]["next"]).query)["ordering"] == ["status,total"]
    # A cursor fits the order that it was made for.
    [cursor] = parse_qs(urlsplit(pages[0]["next"]).query)["cursor"]
    assert sent(api, "get", f"/api/cursors/?cursor={cursor}", status=404) == {"detail": "Invalid cursor"}


@pytest.mark.parametrize("cursor", ["nonsense", "cD0xMA==", "a:b:c"])
def test_cursors_of_others(api: Client, shop: Shop, cursor: str) -> None:
    assert sent(api, "get", f"/api/cursors/?cursor={cursor}", status=404) == {"detail": "Invalid cursor"}


def test_no_cursor_and_no_size(api: Client, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    assert totals(sent(api, "get", "/api/cursors/?cursor=")) == TOTALS[:2]
    assert totals(sent(api, "get", "/api/cursors/?size=nonsense")) == TOTALS[:2]
    monkeypatch.setattr(Cursors, "page_size", None)
    assert len(sent(api, "get", "/api/cursors/")) == 6


def test_the_browsable_api_has_links(api: Client, shop: Shop) -> None:
    page = sent(api, "get", "/api/cursors/")
    shown = api.get("/api/cursors/", headers={"accept": "text/html"}).content.decode()
    assert page["next"].replace("&", "&amp;") in shown
