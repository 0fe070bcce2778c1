"""
The fields of sharded models: how ids and the bucket get into a row, and what the database itself refuses.
"""

from __future__ import annotations

import pytest

from sharding import bucket_of, ids
from tests.layouts import CLUSTER
from tests.shop.models import Order

pytestmark = pytest.mark.django_db(databases=CLUSTER)


def test_id_and_bucket_of_a_new_row() -> None:
    order = Order.objects.create(tenant_id=3)
    assert ids.bucket_of_uuid(order.pk) == order.bucket == bucket_of(3, model=Order)
