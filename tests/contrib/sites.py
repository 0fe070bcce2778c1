"""
The admin site of these tests.
"""

from __future__ import annotations

from django.contrib import admin

from aggregator.contrib.admin import ShardedModelAdmin, ShardedStackedInline, ShardedTabularInline
from tests.shop.models import Account, Country, Customer, Device, Entry, Line, Member, Note, Order, Region

site = admin.AdminSite("sharded")


class LineInline(ShardedTabularInline):
    model = Line
    extra = 1


class EntryInline(ShardedStackedInline):
    model = Entry
    extra = 1


class CustomerInline(ShardedTabularInline):
    model = Customer
    fields = ["tenant_id", "name"]
    extra = 0


@admin.register(Region, site=site)
class RegionAdmin(ShardedModelAdmin):
    inlines = [CustomerInline]
    search_fields = ["name"]


@admin.register(Country, site=site)
class CountryAdmin(ShardedModelAdmin):
    pass


@admin.register(Customer, site=site)
class CustomerAdmin(ShardedModelAdmin):
    list_display = ["name", "tenant_id", "region", "country"]
    list_filter = [
        "region",
        ("country", admin.RelatedOnlyFieldListFilter),
        "joined",
        ("email", admin.EmptyFieldListFilter),
    ]
    search_fields = ["name", "email"]
    ordering = ["name"]
    date_hierarchy = "joined"


@admin.action(description="Mark as paid")
def pay(modeladmin, request, queryset):
    modeladmin.message_user(request, f"{queryset.update(status='paid')} paid, {len(queryset.values_list('pk'))} left")


@admin.register(Order, site=site)
class OrderAdmin(ShardedModelAdmin):
    list_display = ["status", "total", "customer", "customer_region", "created"]
    list_editable = ["total"]
    list_select_related = ["customer__region"]
    list_filter = [
        "status",
        "created",
        "customer",
        "customer__name",
        ("customer__region", admin.RelatedOnlyFieldListFilter),
    ]
    search_fields = ["status", "customer__name", "lines__product"]
    autocomplete_fields = ["customer"]
    date_hierarchy = "created"
    ordering = ["-total"]
    list_per_page = 4
    actions = [pay]
    inlines = [LineInline]

    @admin.display(description="region")
    def customer_region(self, order):
        return order.customer and order.customer.region


@admin.register(Line, site=site)
class LineAdmin(ShardedModelAdmin):
    list_display = ["product", "order"]


@admin.register(Account, site=site)
class AccountAdmin(ShardedModelAdmin):
    list_display = ["owner"]
    inlines = [EntryInline]


@admin.register(Device, site=site)
class DeviceAdmin(ShardedModelAdmin):
    save_as = True


@admin.register(Member, site=site)
class MemberAdmin(ShardedModelAdmin):
    save_as = True


@admin.register(Note, site=site)
class NoteAdmin(ShardedModelAdmin):
    list_display = ["text", "order"]
    list_filter = ["order"]
