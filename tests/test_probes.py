"""
Django's own questions need no shard key while it validates; what is written then needs one as ever.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import transaction

from aggregator import fan_out
from sharding import routing
from sharding.errors import ShardKeyMissing
from tests.layouts import CLUSTER, tenant_on
from tests.shop.models import Line, Order

pytestmark = pytest.mark.django_db(databases=CLUSTER)


@pytest.fixture(autouse=True)
def orders() -> list[Order]:
    return [Order.objects.create(tenant_id=tenant_on(alias)) for alias in ("shard_a", "shard_b")]


WRITES: dict[str, Callable[[], object]] = {
    "update": lambda: Order.objects.update(status="x"),
    "update of some": lambda: Order.objects.filter(status="new").update(status="x"),
    "delete": lambda: Order.objects.all().delete(),
    "delete without dependents": lambda: Line.objects.all().delete(),
    "raw delete": lambda: Order.objects.all()._raw_delete("default"),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_writes_name_a_key(write: Callable[[], object]) -> None:
    with routing.probe(), pytest.raises(ShardKeyMissing), transaction.atomic(using="default"):
        write()
    assert fan_out(Order.objects).filter(status="new").count() == 2


def test_questions_do_not() -> None:
    with routing.probe():
        assert Order.objects.filter(status="new").exists()
        assert fan_out(Order.objects).update(status="x") == 2
        assert fan_out(Order.objects).delete()[0] == 2
        assert not Order.objects.exists()
