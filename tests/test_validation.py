"""
What a form is told about a row that could not be stored: its shard key changes, or it refers to rows of another key.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.forms import modelform_factory

from sharding import ids, registry, scope
from sharding.validation import errors_of
from tests.layouts import CLUSTER
from tests.shop.models import Customer, Device, Line, Member, Note, Order, OrderTag

CHANGED = "The tenant id of a stored row cannot be changed."


def id_of(tenant: int):
    return ids.new_uuid(registry.get(Order).bucket_of_key(tenant))


@pytest.mark.parametrize(
    ("values", "stored", "expected"),
    [
        ({"tenant_id": 1}, None, {}),
        ({"tenant_id": 1}, 1, {}),
        ({"tenant_id": "1"}, 1, {}),
        ({"tenant_id": 2}, 1, {"tenant_id": CHANGED}),
        # Reported as missing, or taken from a parent.
        ({"tenant_id": None}, None, {}),
        ({}, 1, {}),
        ({"tenant_id": 1, "customer_id": id_of(1)}, None, {}),
        ({"tenant_id": 1, "customer_id": str(id_of(1))}, None, {}),
        ({"tenant_id": 1, "customer_id": None}, None, {}),
        # The fields' own to tell.
        ({"tenant_id": 1, "customer_id": "x"}, None, {}),
        ({"tenant_id": "x"}, None, {"tenant_id": "'x' is no tenant id."}),
        ({"tenant_id": 1, "customer_id": id_of(2)}, None, {"customer": "This customer belongs to another tenant id."}),
        (
            {"tenant_id": True},
            None,
            {
                "tenant_id": "True is a bool, which is no shard key: all rows would live in two buckets. "
                "Use an int, str, UUID, bytes, date, Decimal or aware datetime."
            },
        ),
    ],
)
def test_errors(values: dict[str, Any], stored: Any, expected: dict[str, str]) -> None:
    assert errors_of(registry.get(Order), values, stored) == expected


@pytest.mark.django_db(databases=CLUSTER)
class TestInstances:
    def test_full_clean(self) -> None:
        customer = Customer.objects.create(tenant_id=1, name="Ada", joined="2024-01-01")
        customer.tenant_id = 2
        with pytest.raises(ValidationError) as caught:
            customer.full_clean()
        assert caught.value.message_dict == {"tenant_id": [CHANGED]}
        customer.full_clean(exclude=["tenant_id"])

    def test_fields_that_are_not_looked_at(self) -> None:
        customer = Customer.objects.create(tenant_id=1, name="Ada")
        line = Order(tenant_id=2, customer=customer)
        with pytest.raises(ValidationError) as caught:
            line.full_clean()
        assert caught.value.message_dict == {"customer": ["This customer belongs to another tenant id."]}
        with pytest.raises(ValidationError) as caught:
            line.full_clean(exclude=["customer"])
        assert caught.value.message_dict == {"tenant_id": ["This customer belongs to another tenant id."]}
        line.full_clean(exclude=["customer", "tenant_id"])

    @pytest.mark.parametrize(
        ("row", "fields"),
        [
            (Order(tenant_id="x"), ["tenant_id"]),
            (Customer(tenant_id="x", name="Ada", joined="2024-01-01"), ["tenant_id"]),
            (Line(tenant_id=1, order_id="x", product="tea"), ["order"]),
            (Line(tenant_id=None, product="tea"), ["order", "tenant_id"]),
            (OrderTag(tenant_id=1, tag_id="x", order_id=3.5), ["order", "tag"]),
        ],
    )
    def test_values_that_are_none_of_the_field(self, row, fields: list[str]) -> None:
        with pytest.raises(ValidationError) as caught:
            row.full_clean()
        assert sorted(caught.value.message_dict) == fields

    def test_deferred_key(self) -> None:
        customer = Customer.objects.create(tenant_id=1, name="Ada", joined="2024-01-01")
        Customer.objects.defer("tenant_id").get(pk=customer.pk).full_clean()

    def test_copy_of_a_row(self) -> None:
        """Without an id it is a new row, which may have another key."""
        member = Member.objects.create(tenant_id=1)
        member.pk, member.tenant_id = None, 2
        member.full_clean()
        member.save()
        assert {each.tenant_id for each in Member.objects.filter(tenant_id__in=[1, 2])} == {1, 2}

    def test_key_of_the_scope(self) -> None:
        form = modelform_factory(Member, fields=["city"])({"city": "Oslo"})
        with scope(3, of=Member):
            assert form.is_valid(), form.errors
            assert form.save().tenant_id == 3

    def test_unique_with_a_key_that_is_not_shown(self) -> None:
        Customer.objects.create(tenant_id=3, name="Ada", email="a@x.org", joined="2024-01-01")
        taken = {"__all__": ["Customer with this Tenant id and Email already exists."]}
        form = modelform_factory(Customer, fields=["name", "email", "joined"])
        data = {"name": "Eve", "email": "a@x.org", "joined": "2024-01-01"}
        assert form(data, instance=Customer(tenant_id=3)).errors == taken
        assert form(data, instance=Customer(tenant_id=4)).errors == {}
        # Unknown, it cannot be asked for.
        assert form(data).errors == {}
        with scope(3, of=Customer):
            assert form(data).errors == taken

    def test_key_that_is_unique_by_itself(self) -> None:
        """Nobody could correct it in a form that does not show it."""
        Device.objects.create(serial="a")
        form = modelform_factory(Device, fields=["model"])
        assert form({"model": "x"}, instance=Device(serial="a")).errors == {}

    def test_key_of_a_parent(self) -> None:
        line = Line(order=Order.objects.create(tenant_id=5), product="tea")
        line.full_clean()
        assert line.tenant_id == 5

    def test_models_that_refer_to_sharded_ones(self) -> None:
        order = Order.objects.create(tenant_id=1)
        Note(order=order, text="x").full_clean()
        Line(order=order, tenant_id=1, product="tea").full_clean()
