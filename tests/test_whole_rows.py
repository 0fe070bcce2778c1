"""The SELECT clause of whole rows is kept: for queries that select nothing else, while the model has these fields."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import models
from django.db.models import F

from aggregator import fan_out
from sharding import ownership
from sharding.backends import whole_rows
from sharding.testing import cluster
from tests.shop.models import Customer, Order, PaidOrder

OWNERS = ("default", "shard_a", "shard_b", "shard_c")
pytestmark = pytest.mark.django_db(databases="__all__")


@pytest.fixture(scope="module", autouse=True)
def layout(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock(), cluster.owners(*OWNERS):
        yield


@pytest.fixture(autouse=True)
def rows(layout: None, db: None) -> None:
    Order.objects.bulk_create([Order(tenant_id=number, total=number, status="paid") for number in range(8)])
    # What is kept of this is what a wrong answer would be made of.
    assert len(fan_out(Order.objects)) == 8


def sql(queryset: Any) -> str:
    """Return the statement of every shard, as far as its reader has asked for it."""
    return ownership.as_asked(*queryset.query.get_compiler("default").as_sql())[0]


SELECTS: dict[str, Callable[[Any], Any]] = {
    "all": lambda of: of(Order),
    "a slice": lambda of: of(Order).order_by("-total")[2:4],
    "a proxy": lambda of: of(PaidOrder),
    "another model": lambda of: of(Customer),
    "only()": lambda of: of(Order).only("total"),
    "defer()": lambda of: of(Order).defer("total"),
    "values()": lambda of: of(Order).values("total", "id"),
    "values() of all": lambda of: of(Order).values(),
    "annotate()": lambda of: of(Order).annotate(more=F("total") + 1),
    "alias()": lambda of: of(Order).alias(more=F("total") + 1).filter(more__gt=2),
    "select_related()": lambda of: of(Order).select_related("customer"),
    "a join": lambda of: of(Order).filter(customer__name="Ada"),
}


@pytest.mark.parametrize("select", SELECTS.values(), ids=SELECTS.keys())
def test_statements_are_djangos(select: Callable[[Any], Any]) -> None:
    """To all shards, and to one."""
    wanted = selected(select(lambda model: model.objects.using("plain")).query.get_compiler("plain").as_sql()[0])
    many = select(lambda model: fan_out(model.objects))
    one = select(lambda model: model.objects.using("shard_a"))
    for _ in range(2):
        assert selected(sql(many.all())) == wanted
        assert selected(one.all().query.get_compiler("shard_a").as_sql()[0]) == wanted


def selected(statement: str) -> str:
    return re.split(" WHERE | ORDER BY ", statement)[0]


def test_tables_by_another_name() -> None:
    queryset = fan_out(Order.objects).order_by("id")
    queryset.query.get_initial_alias()
    queryset.query.change_aliases({"shop_order": "other"})
    assert 'SELECT "other"."bucket", ' in sql(queryset).replace("other.", '"other".')
    assert "shop_order." not in sql(queryset).replace('"', "")


def test_instances_are_their_own() -> None:
    first, second = (list(fan_out(Order.objects).order_by("total")) for _ in range(2))
    first[0].status = "changed"
    assert second[0].status == "paid"
    assert [order.total for order in second] == list(range(8))


@contextmanager
def another_field(field: models.Field[Any, Any]) -> Iterator[None]:
    field.contribute_to_class(Order, "more")
    try:
        yield
    finally:
        Order._meta.local_fields.remove(field)
        Order._meta._expire_cache()
        del Order.more  # type: ignore[attr-defined]


def test_fields_may_be_added() -> None:
    before = sql(fan_out(Order.objects))
    with another_field(models.IntegerField()):
        assert '"shop_order"."more"' in sql(fan_out(Order.objects))
    assert sql(fan_out(Order.objects)) == before


class Formatted(models.IntegerField):
    """Is selected in a way of its own, which may be another one each time."""

    by = "abs"

    def select_format(self, compiler: Any, sql: str, params: Any) -> Any:
        return f"{self.by}({sql})", params


def test_fields_may_be_selected_in_their_own_way() -> None:
    field = Formatted()
    with another_field(field):
        assert 'abs("shop_order"."more")' in sql(fan_out(Order.objects))
        field.by = "sign"
        assert 'sign("shop_order"."more")' in sql(fan_out(Order.objects))


def test_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(compiler: Any, make: Any) -> Any:
        return select(compiler, lambda: pytest.fail("It was made again."))

    select = whole_rows.select
    monkeypatch.setattr(whole_rows, "select", asked)
    assert len(fan_out(Order.objects).filter(total__gte=4).order_by("-total")) == 4
    assert Order.objects.get(tenant_id=3).total == 3


def test_proxies_give_their_own_instances() -> None:
    assert {type(order) for order in fan_out(PaidOrder.objects)} == {PaidOrder}
    assert {type(order) for order in fan_out(Order.objects)} == {Order}
