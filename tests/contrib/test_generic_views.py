"""
Django's generic views over three shards, by HTTP.
"""

from __future__ import annotations

import pytest
from django.test import Client

from sharding import shard_of
from sharding.testing.statements import assert_no_fan_out, assert_statements, statements
from tests.contrib.conftest import SHARDS, Shop
from tests.layouts import CLUSTER
from tests.shop.models import Customer, Order

pytestmark = pytest.mark.django_db(databases=CLUSTER)


@pytest.fixture
def web(settings) -> Client:
    settings.ROOT_URLCONF = "tests.contrib.urls"
    templates = {
        "shop/customer_list.html": "{% for each in page_obj %}{{ each.name }} {% endfor %}of {{ paginator.count }}",
        "shop/customer_detail.html": "{{ object.name }}",
        "shop/customer_form.html": "{{ form.as_p }}",
        "shop/customer_confirm_delete.html": "{{ object.name }}?",
        "shop/order_form.html": "{{ form.as_p }}",
    }
    settings.TEMPLATES = [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {"loaders": [("django.template.loaders.locmem.Loader", templates)]},
        }
    ]
    return Client()


def test_list(web: Client, shop: Shop) -> None:
    with statements() as asked:
        assert web.get("/customers/").content.decode() == "Ada Bo of 3"
    # Counted, and read.
    assert asked.counts == dict.fromkeys(SHARDS, 2)
    assert web.get("/customers/?page=2").content.decode() == "Cy of 3"
    assert web.get("/customers/?page=last").content.decode() == "Cy of 3"
    assert web.get("/customers/?page=3").status_code == 404


def test_detail(web: Client, shop: Shop) -> None:
    customer = shop.customers[1]
    with assert_statements({shard_of(customer): 1}), assert_no_fan_out():
        assert web.get(f"/customers/{customer.pk}/").content == b"Bo"
    customer_id = customer.pk
    customer.delete()
    assert web.get(f"/customers/{customer_id}/").status_code == 404


def test_create(web: Client, shop: Shop) -> None:
    data = {"tenant_id": shop.tenants[2], "name": "Dee", "joined": "2024-01-01", "region": shop.regions[0].pk}
    assert web.post("/customers/add/", {"name": "Dee"}).context["form"].errors["tenant_id"] == [
        "This field is required."
    ]
    with assert_no_fan_out():
        assert web.post("/customers/add/", data | {"email": "d@x.org"}).status_code == 302
    assert Customer.objects.get(tenant_id=shop.tenants[2], name="Dee").region == shop.regions[0]
    form = web.post("/customers/add/", data | {"email": "d@x.org"}).context["form"]
    assert form.errors == {"__all__": ["Customer with this Tenant id and Email already exists."]}


def test_update(web: Client, shop: Shop) -> None:
    customer = shop.customers[0]
    url = f"/customers/{customer.pk}/change/"
    data = {"tenant_id": customer.tenant_id, "name": "Ada L", "email": "a@x.org", "joined": "2024-01-01"}
    with assert_no_fan_out():
        assert web.get(url).status_code == 200
        assert web.post(url, data).status_code == 302
    assert Customer.objects.get(pk=customer.pk).name == "Ada L"
    form = web.post(url, data | {"tenant_id": shop.tenants[1]}).context["form"]
    assert form.errors == {"tenant_id": ["The tenant id of a stored row cannot be changed."]}
    assert Customer.objects.get(pk=customer.pk).tenant_id == customer.tenant_id


def test_delete(web: Client, shop: Shop) -> None:
    customer = shop.customers[0]
    url = f"/customers/{customer.pk}/delete/"
    assert web.get(url).content == b"Ada?"
    with assert_no_fan_out():
        assert web.post(url).status_code == 302
    assert not Customer.objects.filter(pk=customer.pk).exists()
    assert not Order.objects.filter(tenant_id=customer.tenant_id).exists()


def test_choice_of_related_rows(web: Client, shop: Shop) -> None:
    shown = web.get("/orders/add/").content.decode()
    assert [name in shown for name in ("Ada", "Bo", "Cy")] == [True] * 3
    data = {"tenant_id": shop.tenants[0], "customer": shop.customers[0].pk, "status": "odd", "total": 1}
    form = web.post("/orders/add/", data | {"customer": shop.customers[1].pk}).context["form"]
    assert form.errors == {"customer": ["This customer belongs to another tenant id."]}
    with assert_no_fan_out():
        assert web.post("/orders/add/", data).status_code == 302
    assert Order.objects.get(tenant_id=shop.tenants[0], status="odd").customer == shop.customers[0]
