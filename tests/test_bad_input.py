"""
Bad input: each kind has its own error and leaves no partial write on any shard.
"""

from __future__ import annotations

import pytest

from sharding.errors import ShardKeyMissing
from tests.layouts import CLUSTER
from tests.messages import whole
from tests.shop.models import Order

pytestmark = pytest.mark.django_db(databases=CLUSTER)


def test_row_without_a_key() -> None:
    message = "This Order has no tenant_id, so its shard is unknown. Set tenant_id before saving."
    with pytest.raises(ShardKeyMissing, match=whole(message)):
        Order.objects.create(status="new")
