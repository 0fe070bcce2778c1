"""
ScopeMiddleware, through Django's test clients: the scope lasts as long as the request, and no longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import ImproperlyConfigured, MiddlewareNotUsed
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.test import AsyncClient, Client
from django.urls import path

from sharding import registry, scope
from sharding.errors import ScopeConflict, ShardKeyMissing
from sharding.middleware import ScopeMiddleware
from tests.layouts import CLUSTER
from tests.messages import whole
from tests.shop.models import Order

pytestmark = [pytest.mark.django_db(databases=CLUSTER), pytest.mark.urls("tests.test_middleware")]

NO_KEY = (
    "This Order query names no tenant_id, so its shard is unknown. Filter on tenant_id, "
    "or ask every shard with aggregator.fan_out()."
)


def scope_of(request: HttpRequest) -> AbstractContextManager[None] | None:
    """What SCOPE_FROM_REQUEST names in these tests: a header says the tenant, and the project has other families."""
    tenant = request.headers.get("Tenant")
    return None if tenant is None else scope(tenant, of=Order)


def tenant_of(request: HttpRequest) -> str | None:
    return request.headers.get("Tenant")


NOT_CALLABLE = 7


def orders(request: HttpRequest) -> HttpResponse:
    return JsonResponse([each.status for each in Order.objects.order_by("pk")], safe=False)


async def async_orders(request: HttpRequest) -> HttpResponse:
    return JsonResponse([each.status async for each in Order.objects.order_by("pk")], safe=False)


def create(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"tenant_id": int(Order.objects.create(status="made").tenant_id)})


async def async_create(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"tenant_id": int((await Order.objects.acreate(status="made")).tenant_id)})


def others(request: HttpRequest) -> HttpResponse:
    return HttpResponse(Order.objects.filter(tenant_id=4).count())


def fail(request: HttpRequest) -> HttpResponse:
    raise KeyError(request.path)


async def async_fail(request: HttpRequest) -> HttpResponse:
    raise KeyError(request.path)


def stream(request: HttpRequest) -> StreamingHttpResponse:
    def lines() -> Iterator[str]:
        yield from (each.status for each in Order.objects.order_by("pk"))

    return StreamingHttpResponse(lines())


urlpatterns = [
    path("orders", orders),
    path("async/orders", async_orders),
    path("create", create),
    path("async/create", async_create),
    path("others", others),
    path("fail", fail),
    path("async/fail", async_fail),
    path("stream", stream),
]


@pytest.fixture(autouse=True)
def scoped(settings: Any) -> None:
    settings.SHARDING = {**settings.SHARDING, "SCOPE_FROM_REQUEST": "tests.test_middleware.scope_of"}
    settings.MIDDLEWARE = ["sharding.middleware.ScopeMiddleware"]


@pytest.fixture(autouse=True)
def two_tenants(scoped: None) -> None:
    Order.objects.create(tenant_id=3, status="three")
    Order.objects.create(tenant_id=4, status="four")


class Both:
    """A browser of either kind."""

    def __init__(self, kind: str) -> None:
        self.client: Any = AsyncClient() if kind == "async" else Client()

    def get(self, path: str, tenant: str | None = None) -> Any:
        headers = {} if tenant is None else {"tenant": tenant}
        if isinstance(self.client, AsyncClient):
            return async_to_sync(self.client.get)(path, headers=headers)
        return self.client.get(path, headers=headers)


@pytest.fixture(params=["sync", "async"])
def browser(request: pytest.FixtureRequest) -> Both:
    return Both(request.param)


def assert_no_scope() -> None:
    with pytest.raises(ShardKeyMissing, match=whole(NO_KEY)):
        Order.objects.count()


@pytest.mark.parametrize("view", ["/orders", "/async/orders"])
def test_requests_see_their_tenant(view: str, browser: Both) -> None:
    assert browser.get(view, "3").json() == ["three"]
    assert browser.get(view, "4").json() == ["four"]
    assert_no_scope()


@pytest.mark.parametrize("view", ["/create", "/async/create"])
def test_new_rows_are_the_tenants(view: str, browser: Both) -> None:
    assert browser.get(view, "3").json() == {"tenant_id": 3}
    assert Order.objects.filter(tenant_id=3).count() == 2


@pytest.mark.parametrize("view", ["/orders", "/async/orders"])
def test_request_without_a_tenant(view: str, browser: Both) -> None:
    with pytest.raises(ShardKeyMissing, match=whole(NO_KEY)):
        browser.get(view)


def test_request_inside_a_scope_keeps_it(browser: Both) -> None:
    with scope(4, of=Order):
        assert browser.get("/orders").json() == ["four"]
        assert browser.get("/orders", "3").json() == ["three"]
        assert Order.objects.get().status == "four"


@pytest.mark.parametrize("view", ["/fail", "/async/fail"])
def test_scope_ends_after_an_exception(view: str, browser: Both) -> None:
    with pytest.raises(KeyError):
        browser.get(view, "3")
    assert_no_scope()


def test_scope_ends_after_an_error_response(browser: Both) -> None:
    browser.client.raise_request_exception = False
    assert browser.get("/fail", "3").status_code == 500
    assert_no_scope()
    assert browser.get("/nowhere", "3").status_code == 404
    assert_no_scope()


def test_another_tenants_rows(browser: Both) -> None:
    message = "This Order names tenant_id=4 inside a scope of tenant_id=3. Leave the scope first."
    with pytest.raises(ScopeConflict, match=whole(message)):
        browser.get("/others", "3")
    assert_no_scope()


def test_streamed_body_is_outside() -> None:
    response = Both("sync").get("/stream", "3")
    with pytest.raises(ShardKeyMissing, match=whole(NO_KEY)):
        list(response)


@pytest.mark.parametrize("key", ["x", ""])
def test_tenant_that_is_no_key(key: str, browser: Both) -> None:
    with pytest.raises(ValueError, match=whole(f"Field 'tenant_id' expected a number but got {key!r}.")):
        browser.get("/orders", key)


def test_not_used_without_the_setting(settings: Any) -> None:
    settings.SHARDING = {**settings.SHARDING, "SCOPE_FROM_REQUEST": None}
    with pytest.raises(MiddlewareNotUsed, match=whole('SHARDING["SCOPE_FROM_REQUEST"] is not set.')):
        ScopeMiddleware(orders)
    with pytest.raises(ShardKeyMissing, match=whole(NO_KEY)):
        Both("sync").get("/orders", "3")


@pytest.fixture
def one_family(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A project whose models all have the same shard key."""
    with monkeypatch.context() as patched:
        patched.setattr(registry, "_models", {"shop.order": Order})
        registry.reset()
        yield
    registry.reset()


def test_key_of_the_only_family(settings: Any, one_family: None, browser: Both) -> None:
    settings.SHARDING = {**settings.SHARDING, "SCOPE_FROM_REQUEST": "tests.test_middleware.tenant_of"}
    assert browser.get("/orders", "3").json() == ["three"]
    assert_no_scope()


def test_key_of_one_of_several_families(settings: Any) -> None:
    settings.SHARDING = {**settings.SHARDING, "SCOPE_FROM_REQUEST": "tests.test_middleware.tenant_of"}
    message = (
        "scope() needs of=…, a model of the family that the key belongs to, since this project has several: "
        "shop.Account, shop.Device, tenant_id."
    )
    with pytest.raises(ShardKeyMissing, match=whole(message)):
        Both("sync").get("/orders", "3")


def test_setting_that_names_no_function(settings: Any) -> None:
    settings.SHARDING = {**settings.SHARDING, "SCOPE_FROM_REQUEST": "tests.test_middleware.NOT_CALLABLE"}
    message = (
        "SHARDING[\"SCOPE_FROM_REQUEST\"] is 'tests.test_middleware.NOT_CALLABLE', which is not callable. "
        "Name a function that takes the request and returns its shard key."
    )
    with pytest.raises(ImproperlyConfigured, match=whole(message)):
        ScopeMiddleware(orders)
