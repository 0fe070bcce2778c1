"""
A REST API over three shards, by HTTP: rows are read, made, changed and deleted, and what is wrong is told with 400.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.test import Client
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.validators import UniqueValidator

from aggregator.contrib.rest_framework.validators import key_of
from sharding import ids, registry, scope, shard_of
from sharding.errors import BucketMismatch, ShardKeyChanged, ShardKeyMissing
from sharding.lookups import states
from sharding.testing.statements import assert_no_fan_out, assert_statements, statements
from tests.contrib.conftest import Shop
from tests.contrib.views import CustomerOfTenantSerializer, MemberSerializer, OrderSerializer
from tests.layouts import CLUSTER
from tests.shop.models import Account, Customer, Device, Entry, Line, Member, Note, Order, Tag

pytestmark = pytest.mark.django_db(databases=CLUSTER)

TAKEN = ["This field must be unique."]
CHANGED = {"tenant_id": ["The tenant id of a stored row cannot be changed."]}
FOREIGN = {"customer": ["This customer belongs to another tenant id."]}


@pytest.fixture
def api(settings) -> Client:
    settings.ROOT_URLCONF = "tests.contrib.urls"
    return Client(headers={"accept": "application/json"})


def sent(api: Client, method: str, url: str, data: Any = None, status: int = 200) -> Any:
    answer = getattr(api, method)(url, data, content_type="application/json")
    assert answer.status_code == status, answer.content
    return answer.json() if answer.content else None


def test_one_row_is_one_shards(api: Client, shop: Shop) -> None:
    order = shop.orders[2]
    url = f"/api/orders/{order.pk}/"
    with assert_statements({shard_of(order): 1}), assert_no_fan_out():
        found = api.get(url).json()
    assert found == {
        "id": str(order.pk),
        "bucket": order.bucket,
        "tenant_id": order.tenant_id,
        "customer": str(order.customer_id),
        "status": "new",
        "total": "13.00",
        "quantity": None,
        "weight": None,
        "created": "2024-05-01T12:00:00Z",
    }
    # The customer is looked for.
    with assert_statements({shard_of(order): 3}), assert_no_fan_out():
        assert sent(api, "patch", url, {"status": "paid", "customer": str(order.customer_id)})["status"] == "paid"
    assert Order.objects.get(pk=order.pk).status == "paid"
    with assert_no_fan_out():
        sent(api, "put", url, found | {"status": "sent"})
        sent(api, "delete", url, status=204)
        sent(api, "get", url, status=404)
    sent(api, "get", "/api/orders/nonsense/", status=404)


def test_new_row(api: Client, shop: Shop) -> None:
    data = {"tenant_id": shop.tenants[1], "customer": str(shop.customers[1].pk), "total": "5"}
    with assert_no_fan_out():
        found = sent(api, "post", "/api/orders/", data, 201)
    order = Order.objects.get(pk=found["id"])
    assert (order.tenant_id, order.customer, order.total) == (shop.tenants[1], shop.customers[1], 5)
    # The bucket and the id are ours to give.
    assert sent(api, "post", "/api/orders/", data | {"bucket": 1, "id": "1"}, 201)["bucket"] == order.bucket


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ({"tenant_id": None}, {"tenant_id": ["This field may not be null."]}),
        ({"tenant_id": "x"}, {"tenant_id": ["A valid integer is required."]}),
        ({"customer": "x"}, {"customer": ["“x” is not a valid UUID."]}),
    ],
)
def test_values_that_are_none(api: Client, shop: Shop, change: dict, answer: dict) -> None:
    data = {"tenant_id": shop.tenants[0], "total": "5"} | change
    assert sent(api, "post", "/api/orders/", data, 400) == answer


def test_reference_to_another_tenants_row(api: Client, shop: Shop) -> None:
    data = {"tenant_id": shop.tenants[0], "customer": str(shop.customers[1].pk), "total": "5"}
    assert sent(api, "post", "/api/orders/", data, 400) == FOREIGN
    url = f"/api/orders/{shop.orders[0].pk}/"
    assert sent(api, "patch", url, {"customer": str(shop.customers[1].pk)}, 400) == FOREIGN
    assert sent(api, "patch", url, {"customer": None})["customer"] is None


def test_reference_to_a_row_that_does_not_exist(api: Client, shop: Shop) -> None:
    pk = ids.new_uuid(registry.get(Customer).bucket_of_key(shop.tenants[0]))
    data = {"tenant_id": shop.tenants[0], "customer": str(pk), "total": "5"}
    answer = {"customer": [f'Invalid pk "{pk}" - object does not exist.']}
    assert sent(api, "post", "/api/orders/", data, 400) == answer


def test_key_that_changes(api: Client, shop: Shop) -> None:
    url = f"/api/orders/{shop.orders[0].pk}/"
    assert sent(api, "patch", url, {"tenant_id": shop.tenants[1]}, 400) == CHANGED
    assert sent(api, "patch", url, {"tenant_id": shop.tenants[0]})["tenant_id"] == shop.tenants[0]
    assert Order.objects.get(pk=shop.orders[0].pk).tenant_id == shop.tenants[0]


def test_key_that_is_a_foreign_key(api: Client) -> None:
    first, second = (Account.objects.create(owner=name) for name in ("Ada", "Bo"))
    found = sent(api, "post", "/api/entries/", {"account": str(first.pk), "amount": 1}, 201)
    assert Entry.objects.get(pk=found["id"]).account == first
    url = f"/api/entries/{found['id']}/"
    assert sent(api, "patch", url, {"account": str(first.pk), "amount": 2})["amount"] == 2
    assert sent(api, "patch", url, {"account": str(second.pk)}, 400) == {
        "account": ["The account of a stored row cannot be changed."]
    }


def test_key_that_is_the_id(api: Client) -> None:
    with assert_no_fan_out():
        sent(api, "post", "/api/devices/", {"serial": "a", "model": "x"}, 201)
        answer = sent(api, "post", "/api/devices/", {"serial": "a", "model": "y"}, 400)
        assert answer == {"serial": ["device with this serial already exists."]}
        assert sent(api, "patch", "/api/devices/a/", {"model": "y"})["model"] == "y"
    assert sent(api, "patch", "/api/devices/a/", {"serial": "b"}, 400) == {
        "serial": ["The serial of a stored row cannot be changed."]
    }
    assert Device.objects.get(serial="a").model == "y"


def test_unique_within_a_tenant(api: Client, shop: Shop) -> None:
    ada = shop.customers[0]
    data = {"tenant_id": ada.tenant_id, "name": "Eve", "email": ada.email}
    with statements() as asked:
        answer = sent(api, "post", "/api/customers/", data, 400)
    assert answer == {"non_field_errors": ["The fields tenant_id, email must make a unique set."]}
    assert asked.counts == {shard_of(ada): 1}
    sent(api, "post", "/api/customers/", data | {"tenant_id": shop.tenants[1]}, 201)
    sent(api, "patch", f"/api/customers/{ada.pk}/", {"name": "Ada L", "email": ada.email})


def test_unique_over_the_cluster(api: Client, shop: Shop) -> None:
    member = Member.objects.create(tenant_id=shop.tenants[0], email="m@x.org", provider="p", subject=1)
    data = {"tenant_id": shop.tenants[1], "email": "m@x.org"}
    assert Member.objects.filter(email="m@x.org").exists()
    # The lookup knows the row, which is then seen on its shard.
    with assert_statements({"default": 1, shard_of(member): 1}), assert_no_fan_out():
        assert sent(api, "post", "/api/members/", data, 400) == {"email": TAKEN}
    data = {"tenant_id": shop.tenants[1], "provider": "p", "subject": 1}
    answer = sent(api, "post", "/api/members/", data, 400)
    assert answer == {"non_field_errors": ["The fields provider, subject must make a unique set."]}
    other = sent(api, "post", "/api/members/", data | {"subject": 2}, 201)
    url = f"/api/members/{other['id']}/"
    # One field is sent, and the other one stored.
    assert "non_field_errors" in sent(api, "patch", url, {"subject": 1}, 400)
    assert sent(api, "patch", url, {"email": "m@x.org"}, 400) == {"email": TAKEN}
    # Nobody's values are not taken.
    sent(api, "post", "/api/members/", {"tenant_id": shop.tenants[0], "note": "nobody"}, 201)
    sent(api, "post", "/api/members/", {"tenant_id": shop.tenants[0], "note": "nobody else"}, 201)
    sent(api, "patch", url, {"subject": 2, "provider": "p"})
    sent(api, "patch", url, {"subject": None})
    with scope(shop.tenants[1], of=Member):
        assert sent(api, "post", "/api/members/", {"tenant_id": shop.tenants[1], "email": "m@x.org"}, 400) == {
            "email": TAKEN
        }


def test_unique_while_the_lookup_is_built(api: Client, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every shard is asked, as by Django's own validation."""
    Member.objects.create(tenant_id=shop.tenants[0], email="m@x.org")
    monkeypatch.setattr(states, "is_built", lambda name: False)
    data = {"tenant_id": shop.tenants[1], "email": "m@x.org"}
    assert sent(api, "post", "/api/members/", data, 400) == {"email": TAKEN}


def test_rows_of_one_tenant(api: Client, shop: Shop) -> None:
    tenant, home = shop.tenants[2], shard_of(shop.orders[4])
    with assert_statements({home: 1}), assert_no_fan_out():
        found = api.get(f"/api/tenants/{tenant}/orders/").json()
    assert [order["total"] for order in found] == ["23.00", "24.00"]
    sent(api, "get", f"/api/tenants/{tenant}/orders/{shop.orders[4].pk}/")
    sent(api, "get", f"/api/tenants/{tenant}/orders/{shop.orders[0].pk}/", status=404)


def test_key_that_the_view_gives(api: Client, shop: Shop) -> None:
    url = f"/api/tenants/{shop.tenants[0]}/lines/"
    found = sent(api, "post", url, {"order": str(shop.orders[0].pk), "product": "pen"}, 201)
    assert Line.objects.get(pk=found["id"]).tenant_id == shop.tenants[0]
    answer = sent(api, "post", url, {"order": str(shop.orders[2].pk), "product": "pen"}, 400)
    assert answer == {"order": ["This order belongs to another tenant id."]}
    answer = sent(api, "patch", f"{url}{found['id']}/", {"order": str(shop.orders[2].pk)}, 400)
    assert answer == {"order": ["This order belongs to another tenant id."]}
    assert sent(api, "patch", f"{url}{found['id']}/", {"order": str(shop.orders[1].pk)})["product"] == "pen"


def test_unique_with_a_key_that_the_view_gives(api: Client, shop: Shop) -> None:
    ada = shop.customers[0]
    url = f"/api/tenants/{ada.tenant_id}/customers/"
    answer = {"non_field_errors": ["The fields tenant_id, email must make a unique set."]}
    assert sent(api, "post", url, {"name": "Eve", "email": ada.email}, 400) == answer
    eve = sent(api, "post", url, {"name": "Eve", "email": "e@x.org"}, 201)
    assert sent(api, "patch", f"{url}{eve['id']}/", {"email": ada.email}, 400) == answer
    sent(api, "patch", f"{url}{eve['id']}/", {"email": "e@x.org"})
    # Another tenant's is no matter.
    sent(api, "post", url, {"name": "Eve", "email": shop.customers[1].email}, 201)
    with scope(ada.tenant_id, of=Customer):
        serializer = CustomerOfTenantSerializer(data={"name": "Eve", "email": ada.email})
        serializer.is_valid(raise_exception=True)
        with pytest.raises(ValidationError):
            serializer.save()


def test_key_of_the_row_that_is_referred_to(shop: Shop) -> None:
    entry = registry.get(Order)
    assert key_of(entry, {"customer": shop.customers[1]}, None) == shop.tenants[1]
    assert key_of(entry, {"customer": None}, None) is None
    assert key_of(entry, {"tenant_id": 7, "customer": shop.customers[1]}, None) == 7
    assert key_of(entry, {}, shop.orders[0]) == shop.tenants[0]


def test_key_of_a_scope(api: Client, shop: Shop) -> None:
    with scope(shop.tenants[0], of=Order):
        answer = sent(api, "post", "/api/orders/", {"tenant_id": shop.tenants[1]}, 400)
        assert answer == {"tenant_id": [f"The tenant id must be {shop.tenants[0]} here."]}
        sent(api, "post", "/api/orders/", {"tenant_id": shop.tenants[0]}, 201)


def test_global_rows_that_refer_to_sharded_ones(api: Client, shop: Shop) -> None:
    found = sent(api, "post", "/api/notes/", {"order": str(shop.orders[5].pk), "text": "x"}, 201)
    assert Note.objects.get(pk=found["id"]).order == shop.orders[5]
    assert [each["order"] for each in api.get("/api/notes/").json()] == [str(shop.orders[0].pk), str(shop.orders[5].pk)]


def test_integer_ids_and_computed_columns(api: Client, shop: Shop) -> None:
    found = sent(api, "post", "/api/tags/", {"tenant_id": shop.tenants[1], "label": "gift"}, 201)
    assert Tag.objects.get(pk=found["id"]).shouted == "GIFT"
    assert [tag["label"] for tag in api.get("/api/tags/").json()] == ["gift"]


def test_the_browsable_api_lists_no_rows_to_choose_from(api: Client, shop: Shop) -> None:
    customer = shop.customers[0]
    page = api.get(f"/api/orders/{shop.orders[0].pk}/", headers={"accept": "text/html"})
    assert page.status_code == 200
    assert re.search(f'<input name="customer"[^>]*value="{customer.pk}"', page.content.decode())
    assert '<select name="customer"' not in page.content.decode()
    assert api.get("/api/notes/", headers={"accept": "text/html"}).status_code == 200
    assert api.options("/api/orders/").json()["actions"]["POST"]["customer"]["type"] == "field"


def test_choices_are_those_of_every_shard(shop: Shop) -> None:
    assert sorted(OrderSerializer().fields["customer"].choices.values()) == ["Ada", "Bo", "Cy"]


def test_several_rows_at_once(shop: Shop) -> None:
    data = [
        {"tenant_id": shop.tenants[0], "customer": str(shop.customers[0].pk)},
        {"tenant_id": shop.tenants[1], "customer": str(shop.customers[0].pk)},
    ]
    serializer = OrderSerializer(data=data, many=True)
    assert not serializer.is_valid()
    assert serializer.errors[1] == FOREIGN
    serializer = OrderSerializer(data=data[:1], many=True)
    serializer.is_valid(raise_exception=True)
    assert [order.tenant_id for order in serializer.save()] == [shop.tenants[0]]


def test_validators_can_be_seen() -> None:
    assert [repr(each) for each in MemberSerializer().validators] == [
        "<UniqueRowValidator(shop.Member, ['email'])>",
        "<UniqueRowValidator(shop.Member, ['provider', 'subject'])>",
        "<PlacementValidator(shop.Member)>",
    ]
    # The framework's own would ask the same again.
    assert not any(isinstance(each, UniqueValidator) for each in MemberSerializer().fields["email"].validators)


def plain(model, **options) -> type[serializers.ModelSerializer]:
    meta = type("Meta", (), {"model": model, "fields": "__all__"} | options)
    return type(f"{model.__name__}Serializer", (serializers.ModelSerializer,), {"Meta": meta})


class TestTheFrameworksSerializer:
    """What it does by itself works on one shard, or is refused by name."""

    def test_unique_field_of_a_lookup(self, shop: Shop) -> None:
        member = Member.objects.create(tenant_id=shop.tenants[0], email="m@x.org")
        assert Member.objects.filter(email="m@x.org").exists()
        serializer = plain(Member)(data={"tenant_id": shop.tenants[1], "email": "m@x.org"})
        with assert_statements({"default": 1, shard_of(member): 1}), assert_no_fan_out():
            assert not serializer.is_valid()
        assert serializer.errors == {"email": ["member with this email already exists."]}

    def test_lookup_that_it_does_not_know(self, shop: Shop) -> None:
        Member.objects.create(tenant_id=shop.tenants[0], provider="p", subject=1)
        serializer = plain(Member)(data={"tenant_id": shop.tenants[1], "provider": "p", "subject": 1})
        assert serializer.is_valid()
        with pytest.raises(IntegrityError), transaction.atomic(using="default"):
            serializer.save()

    def test_unique_with_the_key(self, shop: Shop) -> None:
        ada = shop.customers[0]
        serializer = plain(Customer)(data={"tenant_id": ada.tenant_id, "name": "Eve", "email": ada.email})
        with assert_statements({shard_of(ada): 1}), assert_no_fan_out():
            assert not serializer.is_valid()

    def test_related_row_by_id(self, shop: Shop) -> None:
        serializer = plain(Order, fields=["customer", "tenant_id"])(
            data={"customer": str(shop.customers[1].pk), "tenant_id": shop.tenants[1]}
        )
        with assert_statements({shard_of(shop.customers[1]): 1}), assert_no_fan_out():
            assert serializer.is_valid(), serializer.errors
        with pytest.raises(ShardKeyMissing):
            assert serializer.fields["customer"].choices

    def test_what_save_refuses(self, shop: Shop) -> None:
        some = plain(Order, fields=["customer", "tenant_id"])
        data = {"customer": str(shop.customers[1].pk), "tenant_id": shop.tenants[0]}
        serializer = some(data=data)
        assert serializer.is_valid()
        with pytest.raises(BucketMismatch):
            serializer.save()
        serializer = some(shop.orders[0], data={"tenant_id": shop.tenants[1]}, partial=True)
        assert serializer.is_valid()
        with pytest.raises(ShardKeyChanged):
            serializer.save()
