"""
Instances of sharded models: a stored row keeps its key, and every write of it goes to its owner.
"""

from __future__ import annotations

import pytest

from sharding.errors import ShardKeyChanged
from tests.layouts import CLUSTER
from tests.messages import whole
from tests.shop.models import Order

pytestmark = pytest.mark.django_db(databases=CLUSTER)


def test_changed_key() -> None:
    order = Order.objects.create(tenant_id=3)
    order.tenant_id = 4
    message = (
        "The tenant_id of this Order was 3 and is now 4, and a stored row's shard key never changes. "
        "Create the row again under the new key, and delete the old one."
    )
    with pytest.raises(ShardKeyChanged, match=whole(message)):
        order.save()
