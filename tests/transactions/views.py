"""Views that write to a shard and to the control database, for ATOMIC_REQUESTS."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import path

from tests.blocks import Undone
from tests.shop.models import Order, Region


def write_and_fail(request: HttpRequest, tenant: int) -> HttpResponse:
    Order.objects.create(tenant_id=tenant, status="lost")
    Region.objects.create(name="lost")
    raise Undone


def write(request: HttpRequest, tenant: int) -> HttpResponse:
    Order.objects.create(tenant_id=tenant, status="kept")
    return HttpResponse(str(Region.objects.count()))


urlpatterns = [path("fail/<int:tenant>", write_and_fail), path("write/<int:tenant>", write)]
