"""
What stands on the ORM and was never written for sharding: forms, generic views, serializers, fixtures, the admin.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from django.core import serializers
from django.core.cache import caches
from django.core.management import call_command
from django.db import connections
from django.forms import inlineformset_factory, modelform_factory, modelformset_factory
from django.test import RequestFactory, override_settings
from django.views.generic import CreateView, DeleteView, DetailView, ListView, UpdateView

from sharding import routing
from sharding.testing.statements import assert_no_fan_out, assert_statements, statements
from tests.blocks import undone
from tests.layouts import CLUSTER, Layout
from tests.seam.conftest import Shop
from tests.shop.models import Customer, Line, Note, Order

pytestmark = pytest.mark.django_db(databases=CLUSTER)

CustomerForm = modelform_factory(Customer, fields=["tenant_id", "name", "email", "region"])
NEW = {"name": "Bo", "email": "bo@example.com"}


def test_model_form_creates(layout: Layout, shop: Shop) -> None:
    form = CustomerForm(NEW | {"tenant_id": shop.tenant, "region": shop.region.pk})
    # Its fields look for the region, full_clean() looks for it again and for the address.
    with assert_statements(layout.expect(home=1, default=2)), assert_no_fan_out():
        assert form.is_valid(), form.errors
    with assert_statements(layout.expect(home=1)):
        customer = form.save()
    assert Customer.objects.get(tenant_id=shop.tenant, email="bo@example.com") == customer


def test_model_form_changes(layout: Layout, shop: Shop) -> None:
    form = CustomerForm(NEW | {"tenant_id": shop.tenant}, instance=shop.customer)
    with assert_statements(layout.expect(home=2)), assert_no_fan_out():
        assert form.is_valid(), form.errors
        form.save()


def test_model_form_tells_a_taken_address(layout: Layout, shop: Shop) -> None:
    form = CustomerForm({"name": "Eve", "email": "ada@example.com", "tenant_id": shop.tenant})
    with assert_no_fan_out():
        assert form.errors == {"__all__": ["Customer with this Tenant id and Email already exists."]}


def test_model_choices_of_one_tenant(layout: Layout, shop: Shop) -> None:
    form = modelform_factory(Line, fields=["tenant_id", "order", "product"])
    form.base_fields["order"].queryset = Order.objects.filter(tenant_id=shop.tenant)
    bound = form({"tenant_id": shop.tenant, "order": str(shop.order.pk), "product": "cup"})
    with assert_no_fan_out():
        assert bound.is_valid(), bound.errors
        assert bound.save().order == shop.order
        assert str(shop.order.pk) in str(form()["order"])


def test_formsets(layout: Layout, shop: Shop) -> None:
    mine = Order.objects.filter(tenant_id=shop.tenant).order_by("pk")
    formset = modelformset_factory(Order, fields=["status"], extra=0)
    data = {
        "form-TOTAL_FORMS": "1",
        "form-INITIAL_FORMS": "1",
        "form-0-id": str(shop.order.pk),
        "form-0-status": "paid",
    }
    with assert_no_fan_out():
        bound = formset(data, queryset=mine)
        assert bound.is_valid(), bound.errors
        assert bound.save() == [shop.order]
    inlines = inlineformset_factory(Order, Line, fields=["tenant_id", "product"], extra=1)
    data = {
        "lines-TOTAL_FORMS": "2",
        "lines-INITIAL_FORMS": "1",
        "lines-0-id": str(shop.line.pk),
        "lines-0-tenant_id": str(shop.tenant),
        "lines-0-product": "coffee",
        "lines-1-tenant_id": str(shop.tenant),
        "lines-1-product": "milk",
    }
    with assert_no_fan_out():
        bound = inlines(data, instance=shop.order)
        assert bound.is_valid(), bound.errors
        bound.save()
        assert sorted(shop.order.lines.values_list("product", flat=True)) == ["coffee", "milk"]


def test_generic_views(layout: Layout, shop: Shop) -> None:
    requests = RequestFactory()
    mine = Customer.objects.filter(tenant_id=shop.tenant).order_by("name")
    with assert_statements(layout.expect(home=1)), assert_no_fan_out():
        detail = DetailView.as_view(queryset=mine)(requests.get("/"), pk=shop.customer.pk)
    assert detail.context_data["object"] == shop.customer
    with assert_statements(layout.expect(home=2)), assert_no_fan_out():
        # The paginator counts, then one page is read.
        page = ListView.as_view(queryset=mine, paginate_by=10)(requests.get("/"))
        assert list(page.context_data["object_list"]) == [shop.customer]
    fields = ["tenant_id", "name", "email"]
    with assert_statements(layout.expect(home=2)), assert_no_fan_out():
        create = CreateView.as_view(model=Customer, fields=fields, success_url="/")
        assert create(requests.post("/", NEW | {"tenant_id": shop.tenant})).status_code == 302
    changed = {"tenant_id": shop.tenant, "name": "Ada L", "email": "ada@example.com"}
    with assert_statements(layout.expect(home=3)), assert_no_fan_out():
        update = UpdateView.as_view(queryset=mine, fields=fields, success_url="/")
        assert update(requests.post("/", changed), pk=shop.customer.pk).status_code == 302
    with assert_no_fan_out():
        delete = DeleteView.as_view(queryset=mine, success_url="/")
        assert delete(requests.post("/"), pk=shop.customer.pk).status_code == 302
    assert not mine.filter(pk=shop.customer.pk).exists()


@pytest.mark.parametrize("kind", ["json", "jsonl", "xml"])
def test_serializers(kind: str, layout: Layout, shop: Shop) -> None:
    rows = [shop.region, shop.customer, shop.order, shop.tag, shop.line, shop.tagging, shop.note]
    text = serializers.serialize(kind, rows)
    shop.customer.delete()
    with assert_no_fan_out():
        for loaded in serializers.deserialize(kind, text):
            loaded.save()
    line = Line.objects.get(pk=shop.line.pk)
    assert (line.bucket, line.order.customer.region) == (shop.line.bucket, shop.region)
    assert shop.order.notes.get() == shop.note


def test_loaddata_fills_the_bucket(layout: Layout, shop: Shop, tmp_path: Path) -> None:
    rows = json.loads(serializers.serialize("json", [shop.order, shop.line]))
    for row in rows:
        del row["fields"]["bucket"]
    fixture = tmp_path / "orders.json"
    fixture.write_text(json.dumps(rows))
    Order.objects.filter(pk=shop.order.pk).delete()
    out = io.StringIO()
    with statements() as sent, assert_no_fan_out():
        call_command("loaddata", str(fixture), stdout=out)
    assert out.getvalue() == "Installed 2 object(s) from 1 fixture(s)\n"
    assert set(sent) <= {layout.home, "default"}
    assert Order.objects.using(layout.home).get(pk=shop.order.pk).bucket == shop.order.bucket
    # Once more over the rows that are there.
    call_command("loaddata", str(fixture), stdout=out)
    assert Line.objects.get(pk=shop.line.pk).order == shop.order


def test_dumpdata_of_one_database(layout: Layout, shop: Shop) -> None:
    out = io.StringIO()
    # `default` answers for the whole cluster, unless routing is off.
    with routing.native(layout.home), assert_statements(layout.expect(home=1)):
        call_command("dumpdata", "shop.order", database=layout.home, stdout=out)
    assert [row["pk"] for row in json.loads(out.getvalue())] == [str(shop.order.pk)]


def test_dumpdata_of_a_global_model(layout: Layout, shop: Shop) -> None:
    out = io.StringIO()
    with assert_statements(layout.expect(default=1)):
        call_command("dumpdata", "shop.note", stdout=out)
    assert [row["pk"] for row in json.loads(out.getvalue())] == [shop.note.pk]
    assert Note.objects.get() == shop.note


@override_settings(CACHES={"default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "kept"}})
def test_a_cache_in_the_database(layout: Layout, shop: Shop) -> None:
    """Its table is a global one, which Django's test runner asks for on every database."""
    for alias in CLUSTER:
        call_command("createcachetable", database=alias)
    assert [alias for alias in CLUSTER if "kept" in connections[alias].introspection.table_names()] == ["default"]
    cache = caches["default"]
    cache.set("order", shop.order.pk)
    with undone():
        Order.objects.create(tenant_id=shop.tenant)
        cache.set_many({"order": None, "other": 1})
    assert cache.get_many(["order", "other"]) == {"order": shop.order.pk}
