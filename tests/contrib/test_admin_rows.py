"""
The admin's pages of one row, by HTTP: to add, change and delete it with its inlines, its history, and what is refused.
"""

from __future__ import annotations

import json

import pytest
from django.contrib.admin.models import ADDITION, CHANGE, DELETION, LogEntry
from django.contrib.auth.models import Permission, User
from django.db.models import UniqueConstraint
from django.test import Client

from sharding import shard_of
from sharding.testing.statements import assert_no_fan_out, statements
from tests.contrib.conftest import SHARDS, Shop
from tests.layouts import CLUSTER
from tests.shop.models import Account, Customer, Device, Entry, Line, Member, Note, Order

pytestmark = pytest.mark.django_db(databases=CLUSTER)

LINES = {"lines-TOTAL_FORMS": 0, "lines-INITIAL_FORMS": 0}


def order_data(**values) -> dict:
    return {"status": "new", "total": "1", "created_0": "", "created_1": "", "_save": "Save"} | LINES | values


def errors(page) -> dict[str, list[str]]:
    assert page.status_code == 200
    found = dict(page.context["adminform"].form.errors)
    for formset in page.context["inline_admin_formsets"]:
        for each in formset.formset.errors:
            found |= each
    return found


def logged(*fields: str) -> list:
    return list(LogEntry.objects.order_by("id").values_list(*fields))


def test_add(staff: Client, shop: Shop) -> None:
    tenant, customer = shop.tenants[1], shop.customers[1]
    inlines = {"lines-TOTAL_FORMS": 2, "lines-0-product": "pen", "lines-0-amount": 2, "lines-1-amount": 1}
    with assert_no_fan_out():
        page = staff.post("/admin/shop/order/add/", order_data(tenant_id=tenant, customer=customer.pk, **inlines))
    assert page.status_code == 302, errors(page)
    order = Order.objects.get(tenant_id=tenant, total=1)
    # The line was not asked for its tenant.
    [line] = order.lines.all()
    assert (line.tenant_id, line.product, line.amount) == (tenant, "pen", 2)
    [(object_id, flag, message)] = logged("object_id", "action_flag", "change_message")
    assert (object_id, flag) == (str(order.pk), ADDITION)
    assert json.loads(message) == [{"added": {}}, {"added": {"name": "line", "object": "2 pen"}}]
    assert LogEntry.objects.get().get_edited_object() == order


def test_add_without_a_key(staff: Client, shop: Shop) -> None:
    page = staff.post("/admin/shop/order/add/", order_data(customer=shop.customers[0].pk))
    assert errors(page) == {"tenant_id": ["This field is required."]}


def test_add_under_another_tenants_customer(staff: Client, shop: Shop) -> None:
    page = staff.post("/admin/shop/order/add/", order_data(tenant_id=shop.tenants[0], customer=shop.customers[1].pk))
    assert errors(page) == {"customer": ["This customer belongs to another tenant id."]}


def test_add_under_a_customer_who_does_not_exist(staff: Client, shop: Shop) -> None:
    customer = shop.customers[0]
    pk = customer.pk
    customer.delete()
    page = staff.post("/admin/shop/order/add/", order_data(tenant_id=shop.tenants[0], customer=pk))
    assert list(errors(page)) == ["customer"]


def test_pages_of_a_row_ask_its_shard(staff: Client, shop: Shop) -> None:
    order = shop.orders[2]
    for what in ("change", "delete", "history"):
        with statements() as sent:
            page = staff.get(f"/admin/shop/order/{order.pk}/{what}/")
        assert page.status_code == 200
        assert set(sent.counts) <= {"default", shard_of(order)}, what


def test_change(staff: Client, shop: Shop) -> None:
    order, line = shop.orders[0], shop.lines[0]
    form = staff.get(f"/admin/shop/order/{order.pk}/change/").context["adminform"].form
    assert "tenant_id" not in form.fields
    inlines = {
        "lines-TOTAL_FORMS": 2,
        "lines-INITIAL_FORMS": 1,
        "lines-0-id": line.pk,
        "lines-0-order": order.pk,
        "lines-0-product": "ink",
        "lines-0-amount": 1,
        "lines-1-order": order.pk,
        "lines-1-product": "pen",
        "lines-1-amount": 3,
    }
    # A key that is smuggled in is not looked at.
    data = order_data(status="paid", tenant_id=shop.tenants[1], customer=order.customer_id, **inlines)
    with assert_no_fan_out():
        page = staff.post(f"/admin/shop/order/{order.pk}/change/", data)
    assert page.status_code == 302, errors(page)
    order.refresh_from_db()
    assert (order.status, order.tenant_id) == ("paid", shop.tenants[0])
    assert list(order.lines.order_by("product").values_list("product", "tenant_id")) == [
        ("ink", order.tenant_id),
        ("pen", order.tenant_id),
    ]
    [(object_id, flag)] = logged("object_id", "action_flag")
    assert (object_id, flag) == (str(order.pk), CHANGE)
    assert "Changed Status" in staff.get(f"/admin/shop/order/{order.pk}/history/").content.decode()


def test_change_to_another_tenants_customer(staff: Client, shop: Shop) -> None:
    data = order_data(customer=shop.customers[2].pk)
    page = staff.post(f"/admin/shop/order/{shop.orders[0].pk}/change/", data)
    assert errors(page) == {"customer": ["This customer belongs to another tenant id."]}


def test_lines_that_are_taken_away(staff: Client, shop: Shop) -> None:
    order, line = shop.orders[0], shop.lines[0]
    inlines = {
        "lines-TOTAL_FORMS": 1,
        "lines-INITIAL_FORMS": 1,
        "lines-0-id": line.pk,
        "lines-0-order": order.pk,
        "lines-0-product": "tea",
        "lines-0-amount": 1,
        "lines-0-DELETE": "on",
    }
    page = staff.post(f"/admin/shop/order/{order.pk}/change/", order_data(customer=order.customer_id, **inlines))
    assert page.status_code == 302, errors(page)
    assert not order.lines.exists()


@pytest.mark.parametrize("place", ["add/", "{}/change/"])
def test_lines_that_are_unique_within_the_tenant(
    staff: Client, shop: Shop, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """The key that their form does not ask for is their parent's."""
    unique = UniqueConstraint(fields=["tenant_id", "product"], name="one_product_a_tenant")
    monkeypatch.setattr(Line._meta, "constraints", [unique])
    order = shop.orders[1]
    inlines = {"lines-TOTAL_FORMS": 1, "lines-0-product": "tea", "lines-0-amount": 1}
    data = order_data(tenant_id=order.tenant_id, customer=order.customer_id, **inlines)
    url = f"/admin/shop/order/{place.format(order.pk)}"
    assert errors(staff.post(url, data)) == {"__all__": ["Line with this Tenant id and Product already exists."]}
    assert staff.post(url, data | {"lines-0-product": "pen"}).status_code == 302


def test_inlines_whose_parent_is_the_key(staff: Client) -> None:
    data = {"owner": "Ada", "entries-TOTAL_FORMS": 1, "entries-INITIAL_FORMS": 0, "entries-0-amount": 7}
    assert staff.post("/admin/shop/account/add/", data).status_code == 302
    account = Account.objects.get(pk=LogEntry.objects.get().object_id)
    assert account.entries.get().amount == 7
    data |= {
        "owner": "Bo",
        "entries-INITIAL_FORMS": 1,
        "entries-0-id": account.entries.get().pk,
        "entries-0-account": account.pk,
        "entries-0-amount": 8,
    }
    with assert_no_fan_out():
        assert staff.post(f"/admin/shop/account/{account.pk}/change/", data).status_code == 302
    assert Entry.objects.get(account=account).amount == 8


def test_inlines_of_a_global_row_come_from_every_shard(staff: Client, shop: Shop) -> None:
    region = shop.regions[0]
    Customer.objects.filter(pk=shop.customers[2].pk).update(region=region)
    page = staff.get(f"/admin/shop/region/{region.pk}/change/")
    [formset] = page.context["inline_admin_formsets"]
    assert sorted(form.instance.name for form in formset.formset.initial_forms) == ["Ada", "Cy"]
    forms = formset.formset.initial_forms
    data = {"name": "North", "customers-TOTAL_FORMS": 3, "customers-INITIAL_FORMS": 2}
    for number, form in enumerate(forms):
        data |= {
            f"customers-{number}-id": form.instance.pk,
            f"customers-{number}-region": region.pk,
            f"customers-{number}-tenant_id": form.instance.tenant_id,
            f"customers-{number}-name": form.instance.name.upper(),
        }
    data |= {"customers-2-region": region.pk, "customers-2-tenant_id": shop.tenants[1], "customers-2-name": "DI"}
    assert staff.post(f"/admin/shop/region/{region.pk}/change/", data).status_code == 302
    found = page_names(staff, region)
    assert found == ["ADA", "CY", "DI"]
    # Their own keys are shown, and changing one is an error of the form.
    data["customers-0-tenant_id"] = shop.tenants[1]
    data |= {"customers-INITIAL_FORMS": 2, "customers-TOTAL_FORMS": 2}
    assert errors(staff.post(f"/admin/shop/region/{region.pk}/change/", data)) == {
        "tenant_id": ["The tenant id of a stored row cannot be changed."]
    }


def page_names(staff: Client, region) -> list[str]:
    [formset] = staff.get(f"/admin/shop/region/{region.pk}/change/").context["inline_admin_formsets"]
    return sorted(form.instance.name for form in formset.formset.initial_forms)


def test_delete_with_what_depends_on_it(staff: Client, shop: Shop) -> None:
    customer = shop.customers[0]
    url = f"/admin/shop/customer/{customer.pk}/delete/"
    page = staff.get(url)
    # The note is a global row, and the line has no admin of its own here but for its list.
    assert dict(page.context["model_count"]) == {"customers": 1, "orders": 2, "lines": 1, "notes": 1}
    shown = page.content.decode()
    assert f'Order: <a href="/admin/shop/order/{shop.orders[0].pk}/change/">new 3.00</a>' in shown
    assert f'Note: <a href="/admin/shop/note/{shop.note.pk}/change/">call</a>' in shown
    assert staff.post(url, {"post": "yes"}).status_code == 302
    assert not Customer.objects.filter(pk=customer.pk).exists()
    assert not Order.objects.filter(tenant_id=shop.tenants[0]).exists()
    assert not Line.objects.filter(pk=shop.lines[0].pk).exists()
    assert not Note.objects.exists()
    assert logged("object_id", "object_repr", "action_flag") == [(str(customer.pk), "Ada", DELETION)]


def test_page_before_a_deletion_costs_no_query_a_row(staff: Client, shop: Shop) -> None:
    url = f"/admin/shop/order/{shop.orders[0].pk}/delete/"
    staff.get(url)
    with statements() as before:
        staff.get(url)
    for number in range(5):
        Note.objects.create(order=shop.orders[0], text=str(number))
        shop.orders[0].lines.create(product=str(number))
    with statements() as after:
        assert dict(staff.get(url).context["model_count"]) == {"orders": 1, "lines": 6, "notes": 6}
    assert after.counts == before.counts


def test_delete_a_global_row(staff: Client, shop: Shop) -> None:
    url = f"/admin/shop/region/{shop.regions[0].pk}/delete/"
    assert dict(staff.get(url).context["model_count"]) == {"regions": 1}
    assert staff.post(url, {"post": "yes"}).status_code == 302
    assert Customer.objects.get(pk=shop.customers[0].pk).region is None


def test_row_that_is_gone(staff: Client, shop: Shop) -> None:
    pk = shop.orders[0].pk
    shop.orders[0].delete()
    assert staff.get(f"/admin/shop/order/{pk}/change/", follow=True).redirect_chain == [("/admin/", 302)]
    assert staff.get("/admin/shop/order/nonsense/change/")["Location"] == "/admin/"


def test_key_that_is_the_id(staff: Client) -> None:
    assert staff.post("/admin/shop/device/add/", {"serial": "a/1", "model": "x"}).status_code == 302
    assert staff.post("/admin/shop/device/a_2F1/change/", {"serial": "a/1", "model": "y"}).status_code == 302
    assert Device.objects.get(serial="a/1").model == "y"
    page = staff.post("/admin/shop/device/add/", {"serial": "a/1", "model": "z"})
    assert errors(page) == {"serial": ["Device with this Serial already exists."]}


def test_save_as_new(staff: Client, shop: Shop) -> None:
    member = Member.objects.create(tenant_id=shop.tenants[0], email="m@x.org", note="old")
    url = f"/admin/shop/member/{member.pk}/change/"
    data = {"tenant_id": shop.tenants[1], "email": "n@x.org", "note": "new"}
    assert errors(staff.post(url, data)) == {"tenant_id": ["The tenant id of a stored row cannot be changed."]}
    assert staff.post(url, data | {"_saveasnew": "1"}).status_code == 302
    assert Member.objects.get(email="n@x.org").tenant_id == shop.tenants[1]
    assert Member.objects.get(email="m@x.org").note == "old"


def test_unique_over_the_cluster(staff: Client, shop: Shop) -> None:
    Member.objects.create(tenant_id=shop.tenants[0], email="m@x.org", provider="p", subject=1)
    data = {"tenant_id": shop.tenants[1], "email": "m@x.org", "provider": "p", "subject": 1}
    page = staff.post("/admin/shop/member/add/", data)
    assert errors(page) == {
        "__all__": ["Member with this Provider and Subject already exists."],
        "email": ["Member with this Email already exists."],
    }
    assert staff.post("/admin/shop/member/add/", data | {"email": "n@x.org", "subject": 2}).status_code == 302


def test_unique_within_a_tenant(staff: Client, shop: Shop) -> None:
    data = {"tenant_id": shop.tenants[0], "name": "Eve", "email": "a@x.org", "joined": "2024-01-01"}
    page = staff.post("/admin/shop/customer/add/", data)
    assert errors(page) == {"__all__": ["Customer with this Tenant id and Email already exists."]}
    assert staff.post("/admin/shop/customer/add/", data | {"tenant_id": shop.tenants[1]}).status_code == 302


def test_unique_within_the_tenant_of_a_stored_row(staff: Client, shop: Shop) -> None:
    """The form does not ask for the tenant, and checks all the same."""
    ada = shop.customers[0]
    data = {"name": "Eve", "email": "e@x.org", "joined": "2024-01-01"}
    eve = Customer.objects.create(tenant_id=ada.tenant_id, **data)
    page = staff.post(f"/admin/shop/customer/{eve.pk}/change/", data | {"email": ada.email})
    assert errors(page) == {"__all__": ["Customer with this Tenant id and Email already exists."]}
    data["email"] = shop.customers[1].email
    assert staff.post(f"/admin/shop/customer/{eve.pk}/change/", data).status_code == 302


def test_foreign_keys_are_entered_by_id(staff: Client, shop: Shop) -> None:
    page = staff.get(f"/admin/shop/line/{shop.lines[1].pk}/change/").content.decode()
    # The widget names the row, and links to the list to choose from.
    assert f'name="order" value="{shop.orders[2].pk}"' in page
    assert f'<a href="/admin/shop/order/{shop.orders[2].pk}/change/">new 13.00</a>' in page
    data = {"order": shop.orders[3].pk, "product": "pen", "amount": 1}
    assert staff.post(f"/admin/shop/line/{shop.lines[1].pk}/change/", data).status_code == 302
    assert Line.objects.get(pk=shop.lines[1].pk).order_id == shop.orders[3].pk
    page = staff.post(f"/admin/shop/line/{shop.lines[1].pk}/change/", data | {"order": "nonsense"})
    assert list(errors(page)) == ["order"]


def test_global_row_that_refers_to_a_sharded_one(staff: Client, shop: Shop) -> None:
    assert staff.post("/admin/shop/note/add/", {"order": shop.orders[4].pk, "text": "x"}).status_code == 302
    assert Note.objects.get(text="x").order == shop.orders[4]
    assert staff.post("/admin/shop/note/add/", {"order": "", "text": "y"}).status_code == 200


def test_autocomplete(staff: Client, shop: Shop) -> None:
    url = "/admin/autocomplete/?app_label=shop&model_name=order&field_name=customer&term="
    found = staff.get(url).json()
    assert [each["text"] for each in found["results"]] == ["Ada", "Bo", "Cy"]
    assert found["pagination"] == {"more": False}
    assert staff.get(url + "cy").json()["results"] == [{"id": str(shop.customers[2].pk), "text": "Cy"}]
    for number in range(20):
        Customer.objects.create(tenant_id=shop.tenants[number % 3], name=f"n{number:02}", email=str(number))
    first, second = staff.get(url).json(), staff.get(url + "&page=2").json()
    assert first["pagination"] == {"more": True}
    texts = [each["text"] for page in (first, second) for each in page["results"]]
    assert texts == ["Ada", "Bo", "Cy", *(f"n{number:02}" for number in range(20))]
    # The form shows the chosen one without asking for others.
    with assert_no_fan_out():
        page = staff.get(f"/admin/shop/order/{shop.orders[0].pk}/change/").content.decode()
    assert f'<option value="{shop.customers[0].pk}" selected>Ada</option>' in page


def test_permissions(settings, shop: Shop) -> None:
    settings.ROOT_URLCONF = "tests.contrib.urls"
    clerk = User.objects.create_user("clerk", is_staff=True)
    clerk.user_permissions.add(
        *Permission.objects.filter(codename__in=["view_order", "delete_customer", "view_customer"])
    )
    client = Client()
    client.force_login(clerk)
    page = client.get("/admin/shop/order/")
    assert page.status_code == 200
    assert client.get(f"/admin/shop/order/{shop.orders[0].pk}/change/").status_code == 200
    assert client.post(f"/admin/shop/order/{shop.orders[0].pk}/change/", order_data()).status_code == 403
    assert client.get("/admin/shop/order/add/").status_code == 403
    # What depends on it may not be deleted.
    page = client.get(f"/admin/shop/customer/{shop.customers[0].pk}/delete/")
    assert page.context["perms_lacking"] == {"line", "note", "order"}
    assert client.post(f"/admin/shop/customer/{shop.customers[0].pk}/delete/", {"post": "yes"}).status_code == 403
    assert Customer.objects.filter(pk=shop.customers[0].pk).exists()


def test_actions(staff: Client, shop: Shop) -> None:
    chosen = [shop.orders[0].pk, shop.orders[3].pk]
    page = staff.post("/admin/shop/order/", {"action": "pay", "_selected_action": chosen}, follow=True)
    assert [str(each) for each in page.context["messages"]] == ["2 paid, 2 left"]
    assert sorted(order.status for order in shop_orders(shop)) == ["new", "new", "paid", "paid", "sent", "sent"]
    # All rows that match, on every page.
    data = {"action": "pay", "_selected_action": chosen, "select_across": 1, "index": 0}
    page = staff.post("/admin/shop/order/?status=sent", data, follow=True)
    assert sorted(order.status for order in shop_orders(shop)) == ["new", "new", "paid", "paid", "paid", "paid"]


def shop_orders(shop: Shop) -> list[Order]:
    return [Order.objects.get(pk=order.pk) for order in shop.orders]


def test_delete_selected(staff: Client, shop: Shop) -> None:
    data = {"action": "delete_selected", "_selected_action": [customer.pk for customer in shop.customers[:2]]}
    page = staff.post("/admin/shop/customer/", data)
    assert dict(page.context["model_count"]) == {"customers": 2, "orders": 4, "lines": 2, "notes": 1}
    page = staff.post("/admin/shop/customer/", data | {"post": "yes"}, follow=True)
    assert [str(each) for each in page.context["messages"]] == ["Successfully deleted 2 customers."]
    left = [Customer.objects.filter(tenant_id=tenant).count() for tenant in shop.tenants]
    assert left == [0, 0, 1]
    assert [Order.objects.filter(tenant_id=tenant).count() for tenant in shop.tenants] == [0, 0, 2]
    assert sorted(logged("object_repr", "action_flag")) == [("Ada", DELETION), ("Bo", DELETION)]
    assert len({shard_of(customer) for customer in shop.customers}) == len(SHARDS)
