"""Rows that are skipped: said, and bounded, whatever the buckets' owners are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.core.paginator import Paginator
from django.test.utils import override_settings

from aggregator import DeepOffsetWarning, fan_out
from sharding.errors import DeepOffset
from tests.messages import whole
from tests.shop.models import Order
from tests.two_sides import LAYOUTS, rows_on

pytestmark = pytest.mark.django_db(databases="__all__")

COST = (
    "This shop.Order query skips {} rows, and every shard has to send as many for that. Use "
    "aggregator.KeysetPaginator, whose last page costs what its first one does."
)


@pytest.fixture(scope="module", params=LAYOUTS.values(), ids=list(LAYOUTS), autouse=True)
def layout(request: Any, django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock(), rows_on(request.param):
        yield


def limited(**values: int | None) -> Any:
    return override_settings(SHARDING={**settings.SHARDING, **values})


def orders() -> Any:
    return fan_out(Order.objects).order_by("id")


def test_a_page_that_is_late() -> None:
    pages = Paginator(orders(), 5)
    with limited(WARN_OFFSET=10):
        assert len(pages.page(3).object_list) == 5
        with pytest.warns(DeepOffsetWarning, match=whole(COST.format(15))):
            assert len(list(pages.page(4))) == 5


def test_a_page_that_is_too_late() -> None:
    message = whole(f"{COST.format(15)} SHARDING['MAX_OFFSET'] allows 10.")
    with limited(WARN_OFFSET=0, MAX_OFFSET=10), pytest.raises(DeepOffset, match=message) as caught:
        list(Paginator(orders(), 5).page(4))
    assert (caught.value.model, caught.value.offset, caught.value.limit) == ("shop.Order", 15, 10)


def test_the_ten_thousandth_page() -> None:
    with pytest.raises(DeepOffset, match=r"skips 499950 rows.*KeysetPaginator.*\['MAX_OFFSET'\] allows 100000"):
        list(orders()[499_950:500_000])


def test_without_bounds() -> None:
    with limited(WARN_OFFSET=None, MAX_OFFSET=None):
        assert list(orders()[1_000_000:1_000_010]) == []


def test_one_shard_key_may_skip_what_it_likes() -> None:
    with limited(WARN_OFFSET=0, MAX_OFFSET=0):
        assert len(Order.objects.filter(tenant_id=3).order_by("id")[1:3]) == 2
