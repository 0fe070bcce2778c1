"""
What a ModelAdmin may say: its options are checked, and a project's own choices count.
"""

from __future__ import annotations

import pytest
from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import ForeignKeyRawIdWidget
from django.contrib.auth.models import User
from django.core.checks import CheckMessage
from django.test import RequestFactory

from aggregator.contrib.admin import ShardedModelAdmin, ShardedStackedInline, ShardedTabularInline
from sharding import scope
from tests.contrib.conftest import Shop
from tests.contrib.sites import OrderAdmin
from tests.layouts import CLUSTER
from tests.shop.models import Account, Customer, Entry, Line, Note, Order, Region

site = admin.AdminSite("options")
request = RequestFactory().get("/")


def findings(model, **options) -> list[CheckMessage]:
    return type("Checked", (ShardedModelAdmin,), options)(model, site).check()


@pytest.mark.parametrize(
    ("option", "value", "path"),
    [
        ("search_fields", ["^customer__region__name"], "customer__region__name"),
        ("list_filter", ["status", "customer__region__name"], "customer__region__name"),
        ("list_filter", [("customer__region__name", admin.AllValuesFieldListFilter)], "customer__region__name"),
        ("ordering", ["-customer__region__name"], "customer__region__name"),
    ],
)
def test_options_that_join_another_database(option: str, value: list, path: str) -> None:
    [found] = findings(Order, **{option: value})
    assert (found.id, found.msg, found.hint) == (
        "aggregator.E001",
        f"The value of {option!r} names {path!r}, and 'region' refers to shop.Region, whose rows are in another "
        f"database.",
        "Name 'region_id' or a field of Customer, or make Region a reference model.",
    )


def test_dates_of_another_database() -> None:
    [found] = findings(Note, date_hierarchy="order__created")
    assert (found.id, found.hint) == (
        "aggregator.E001",
        "Name 'order_id' or a field of Note, or make Order a reference model.",
    )


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (Order, {"search_fields": ["customer__name", "=lines__product", "customer__region__id", "customer__region"]}),
        (Order, {"list_filter": ["customer__region", "customer__country__name", "lines__product"]}),
        (Order, {"ordering": ["customer__region_id", "-created"], "date_hierarchy": "customer__joined"}),
        (Note, {"search_fields": ["text", "order_id"]}),
        (Region, {"search_fields": ["name"]}),
    ],
)
def test_options_that_stay_in_one_database(model, options) -> None:
    assert findings(model, **options) == []


def test_djangos_own_checks_count() -> None:
    [found] = findings(Order, search_fields="status")
    assert found.id == "admin.E126"


def widget(model_admin, model, name: str):
    found = model_admin.formfield_for_dbfield(model._meta.get_field(name), request).widget
    return getattr(found, "widget", found)


def test_widgets_of_foreign_keys() -> None:
    class ByChoice(ShardedModelAdmin):
        def formfield_for_foreignkey(self, db_field, request, **kwargs):
            kwargs |= {"queryset": Order.objects.filter(tenant_id=7), "widget": forms.Select()}
            return super().formfield_for_foreignkey(db_field, request, **kwargs)

    assert isinstance(widget(ShardedModelAdmin(Line, site), Line, "order"), ForeignKeyRawIdWidget)
    assert isinstance(widget(ShardedModelAdmin(Customer, site), Customer, "region"), forms.Select)
    assert isinstance(widget(ByChoice(Line, site), Line, "order"), forms.Select)
    field = ByChoice(Line, site).formfield_for_dbfield(Line._meta.get_field("order"), request)
    assert field.queryset.query.where == Order.objects.filter(tenant_id=7).query.where
    assert ShardedModelAdmin(Line, site).raw_id_fields == ["order"]
    assert OrderAdmin(Order, site).raw_id_fields == []


@pytest.mark.django_db(databases=CLUSTER)
def test_rows_of_every_shard_to_choose_from(shop: Shop) -> None:
    class ByRadio(ShardedModelAdmin):
        radio_fields = {"order": admin.VERTICAL}

    field = ByRadio(Line, site).formfield_for_dbfield(Line._meta.get_field("order"), request)
    assert {value for value, _ in field.choices} >= {order.pk for order in shop.orders}


def fields_of(inline_class, parent, model, **options) -> list[str]:
    inline = type("Inline", (inline_class,), {"model": model} | options)(parent, site)
    request.user = User(is_superuser=True)
    formset = inline.get_formset(request)
    return [name for name in formset.form.base_fields if name != formset.fk.name]


def test_inlines_ask_for_no_key_that_their_parent_has() -> None:
    class LineForm(forms.ModelForm):
        class Meta:
            exclude = ["amount"]  # noqa: DJ006 - that is what is tested

    # The id is added to each form later.
    assert fields_of(ShardedTabularInline, Order, Line) == ["product", "amount"]
    assert fields_of(ShardedStackedInline, Order, Line, exclude=["amount"]) == ["product"]
    assert fields_of(ShardedTabularInline, Order, Line, form=LineForm) == ["product"]
    assert fields_of(ShardedTabularInline, Order, Line, fields=["tenant_id", "product"]) == ["tenant_id", "product"]
    assert "tenant_id" in fields_of(ShardedTabularInline, Region, Customer)
    # The parent itself is the key.
    inline = type("Inline", (ShardedTabularInline,), {"model": Entry})(Account, site)
    assert inline.get_exclude(request) is None


def test_keys_that_are_foreign_keys_are_not_changed() -> None:
    assert ShardedModelAdmin(Entry, site).get_readonly_fields(request) == ()
    assert ShardedModelAdmin(Entry, site).get_readonly_fields(request, Entry()) == ["account"]
    assert ShardedModelAdmin(Region, site).get_readonly_fields(request, Region()) == ()


@pytest.mark.django_db(databases=CLUSTER)
def test_a_scope_shows_one_tenants_rows(staff, shop: Shop) -> None:
    with scope(shop.tenants[1], of=Order):
        page = staff.get("/admin/shop/customer/")
        assert [customer.name for customer in page.context["cl"].result_list] == ["Bo"]
        assert staff.get(f"/admin/shop/order/{shop.orders[0].pk}/change/").status_code == 302
        # New rows get its key, and no other one.
        form = staff.get("/admin/shop/customer/add/").context["adminform"].form
        assert form.initial["tenant_id"] == shop.tenants[1]
        data = {"tenant_id": shop.tenants[0], "name": "Dee", "joined": "2024-01-01"}
        form = staff.post("/admin/shop/customer/add/", data).context["adminform"].form
        assert form.errors == {"tenant_id": [f"The tenant id must be {shop.tenants[1]} here."]}
        data["tenant_id"] = shop.tenants[1]
        assert staff.post("/admin/shop/customer/add/", data).status_code == 302
    assert staff.get("/admin/shop/customer/add/").context["adminform"].form.initial == {}


@pytest.mark.django_db(databases=CLUSTER)
@pytest.mark.filterwarnings("ignore:Setting ModelAdmin.list_select_related to True is deprecated")
@pytest.mark.parametrize("related", [True, ["customer", "customer__region"], ("customer__country",)])
def test_related_rows_that_are_named(rf, staff, shop: Shop, related) -> None:
    listing = type("Listing", (ShardedModelAdmin,), {"list_display": ["status"], "list_select_related": related})
    asking = rf.get("/")
    asking.user = staff.get("/admin/").wsgi_request.user
    found = list(listing(Order, site).get_changelist_instance(asking).result_list)
    assert len(found) == 6
    assert all("customer" in order._state.fields_cache for order in found)
    if related is not True:
        name = related[-1].rpartition("__")[2]
        assert all(name in order.customer._state.fields_cache for order in found)
