"""
Conditions that Django asks a database about without a model: those of constraints, over sharded rows.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db.models import CheckConstraint, Exists, Q, UniqueConstraint
from rest_framework.validators import UniqueTogetherValidator

from sharding import shard_of
from sharding.errors import CannotMerge, GlobalJoin
from sharding.testing.statements import assert_statements
from tests.contrib.views import OrderSerializer
from tests.layouts import CLUSTER, tenant_on
from tests.messages import whole
from tests.shop.models import Customer, Order, Region

pytestmark = pytest.mark.django_db(databases=CLUSTER)

ONE_NEW = UniqueConstraint(fields=["tenant_id", "quantity"], condition=Q(status="new"), name="one_new")


@pytest.fixture(params=["shard_a", "shard_b"])
def order(request: Any) -> Order:
    return Order.objects.create(tenant_id=tenant_on(request.param), quantity=1)


def test_unique_where_a_condition_holds(order: Order) -> None:
    with assert_statements({shard_of(order): 1}), pytest.raises(ValidationError) as caught:
        ONE_NEW.validate(Order, Order(tenant_id=order.tenant_id, quantity=1, status="new"))
    assert caught.value.messages == ["Constraint “one_new” is violated."]
    ONE_NEW.validate(Order, Order(tenant_id=order.tenant_id, quantity=1, status="paid"))
    ONE_NEW.validate(Order, Order(tenant_id=order.tenant_id, quantity=2, status="new"))
    ONE_NEW.validate(Order, order)


def test_uncommitted_rows_are_seen_in_a_block(order: Order) -> None:
    order.status = "paid"
    order.save()
    ONE_NEW.validate(Order, Order(tenant_id=order.tenant_id, quantity=1, status="new"))


def test_serializers_ask_the_same(order: Order) -> None:
    validator = UniqueTogetherValidator(
        Order.objects.all(), ["tenant_id", "quantity"], condition=Q(status="new"), condition_fields=["status"]
    )
    data = {"tenant_id": order.tenant_id, "quantity": 1, "status": "new"}
    serializer = OrderSerializer(data=data)
    serializer.validators = [validator]
    assert not serializer.is_valid()
    assert serializer.errors == {"non_field_errors": ["The fields tenant_id, quantity must make a unique set."]}
    serializer = OrderSerializer(data=data | {"status": "paid"})
    serializer.validators = [validator]
    assert serializer.is_valid(), serializer.errors


def test_conditions_without_rows_are_asked_as_ever() -> None:
    with assert_statements({"default": 1}):
        CheckConstraint(condition=Q(quantity__gt=0), name="some").validate(Order, Order(quantity=1))


def test_rows_of_one_bucket(order: Order) -> None:
    customer = Customer.objects.create(tenant_id=order.tenant_id, name="Ada")
    mine = Exists(Order.objects.filter(tenant_id=order.tenant_id)) & Exists(Customer.objects.filter(pk=customer.pk))
    with assert_statements({shard_of(order): 1}):
        assert Q(mine).check({})
    assert not (Q(mine) & Exists(Order.objects.filter(tenant_id=order.tenant_id, status="x"))).check({})


def test_rows_of_several_buckets(order: Order) -> None:
    elsewhere = Exists(Order.objects.filter(tenant_id=tenant_on("shard_c")))
    message = (
        "This shop.Order query cannot be answered inside one bucket because of the subquery over shop.Order. Limit "
        "both queries to the same shard key, correlate them by it (OuterRef), or evaluate the inner one "
        "first: list(inner)."
    )
    with pytest.raises(CannotMerge, match=whole(message)):
        Q(Exists(Order.objects.filter(tenant_id=order.tenant_id)) & elsewhere).check({})


@pytest.mark.parametrize(
    "other", [Region.objects.all(), Order.objects.filter(status="new")], ids=["global", "unbounded"]
)
def test_rows_of_other_databases(order: Order, other: Any) -> None:
    with pytest.raises((GlobalJoin, CannotMerge)):
        Q(Exists(Order.objects.filter(tenant_id=order.tenant_id)) & Exists(other)).check({})


def test_rows_of_no_bucket_in_particular() -> None:
    message = (
        "A query that the control database answers contains a subquery over shop.Order, and sharded rows live on other "
        "servers. Evaluate the inner query first: list(inner)."
    )
    with pytest.raises(GlobalJoin, match=whole(message)):
        Q(Exists(Order.objects.filter(status="new"))).check({})
