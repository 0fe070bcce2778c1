"""
The law of routing: whatever the condition, every row that matches it lies in the buckets that routing names.
"""

from __future__ import annotations

from django.db.models import Q

from sharding import bucket_of
from sharding.routing import buckets_of
from tests.shop.models import Order


def test_a_key_is_in_its_own_bucket() -> None:
    assert buckets_of(Order.objects.filter(Q(tenant_id=3) | Q(tenant_id=4)).query) == {
        bucket_of(3, model=Order),
        bucket_of(4, model=Order),
    }
