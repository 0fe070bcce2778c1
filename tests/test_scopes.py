"""
Scopes: the queries and the new rows of one family are limited to one shard key, until the block ends.
"""

from __future__ import annotations

import pytest

from sharding import scope
from tests.layouts import CLUSTER
from tests.shop.models import Account, Order

pytestmark = pytest.mark.django_db(databases=CLUSTER)


def test_scope_limits_queries_and_fills_new_rows() -> None:
    Order.objects.create(tenant_id=4)
    with scope(3, of=Order):
        assert Order.objects.create().tenant_id == 3
        assert Order.objects.count() == 1
    assert Account.objects.filter(pk=None).count() == 0
