"""What is missing: a shard that does not answer, and an error in the middle of an answer."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import DataError, transaction
from django.db.models import ExpressionWrapper, F, IntegerField, Value

from aggregator import fan_out
from sharding.errors import ShardsUnavailable
from tests.downtime import down
from tests.shop.models import Order
from tests.traps.naive import of_each_shard, orders

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)


def test_a_part_of_an_answer_is_none(tenants: list[int]) -> None:
    orders(tenants, "aaa", "bb", "c")
    counted = of_each_shard(lambda of: of(Order).count())
    with down("shard_b"), pytest.raises(ShardsUnavailable) as caught:
        fan_out(Order.objects).count()
    assert list(caught.value.failures) == ["shard_b"]
    # Of those that answer.
    assert counted[0] + counted[2] == 4 != fan_out(Order.objects).count() == 6


def test_an_error_in_the_middle_of_a_stream_is_raised(tenants: list[int]) -> None:
    """The rows before it are correct, and a loop that ended there would look like a whole answer."""
    orders(tenants, range(1, 40), range(-20, 20), range(1, 40), field="quantity")
    inverse = ExpressionWrapper(Value(100) / F("quantity"), output_field=IntegerField())
    rows = fan_out(Order.objects).annotate(x=inverse).order_by("quantity", "id")
    read: list[Any] = []
    with pytest.raises(DataError, match="division by zero"), transaction.atomic(using="default"):
        read.extend(row.quantity for row in rows.iterator(chunk_size=5))
    assert len(read) < fan_out(Order.objects).count()
    assert read == sorted(read)
