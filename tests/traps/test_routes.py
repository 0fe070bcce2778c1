"""Who is asked at all: one shard where one is enough, and every shard's own rows where its join leads nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connections
from django.db.models import Exists, F, OuterRef

from aggregator import fan_out
from sharding import shard_of
from sharding.ids import new_uuid
from sharding.testing.statements import assert_statements, statements
from tests import servers
from tests.shop.models import Line, Order
from tests.traps.naive import joined, of_each_shard, orders, require
from tests.two_sides import save
from tests.unfenced import unfenced

pytestmark = pytest.mark.django_db(databases="__all__")


def test_one_shard_is_sent_djangos_own_statement(tenants: list[int]) -> None:
    orders(tenants, "abc", "x", "y")
    rows = Order.objects.filter(tenant_id=tenants[0]).order_by("-status")[1:3]
    with statements() as sent:
        assert [row.status for row in rows] == ["b", "a"]
    plain = Order.objects.using("plain").filter(tenant_id=tenants[0]).order_by("-status")[1:3]
    assert {alias: len(found) for alias, found in sent.items() if found} == {"shard_a": 1}
    assert sent["shard_a"] == [plain.query.sql_with_params()[0]]


def test_writes_are_not_broadcast(tenants: list[int]) -> None:
    """A row of the same key that lies elsewhere, left there by a move, is none of the cluster's."""
    orders(tenants, "ab")
    [first, _] = Order.objects.using("shard_a").order_by("status")
    with unfenced("shard_b", "shop_order"), connections["shard_b"].cursor() as cursor:
        cursor.execute(
            "INSERT INTO shop_order (bucket, id, tenant_id, status, total) VALUES (%s, %s, %s, 'old', 0)",
            [first.bucket, new_uuid(first.bucket), tenants[0]],
        )
    with assert_statements({"shard_a": 1}):
        assert Order.objects.filter(tenant_id=tenants[0]).update(status="new") == 2
    everywhere = of_each_shard(lambda of: of(Order).filter(tenant_id=tenants[0]).count())
    assert sum(everywhere) == 3
    assert Order.objects.using("shard_b").get().status == "old"


def test_joins_of_other_buckets_are_not_left_to_each_shard(tenants: list[int]) -> None:
    """A line of another shard may have the amount that is looked for."""
    orders(tenants, [7], [8], [9], field="quantity")
    owners = [Order(tenant_id=tenant) for tenant in tenants]
    save(Order, owners)
    save(
        Line,
        [
            Line(tenant_id=each.tenant_id, order=each, amount=amount)
            for each, amount in zip(owners, (8, 9, 9), strict=True)
        ],
    )

    def ask(of: Any) -> Any:
        wanted = Exists(of(Line).filter(amount=OuterRef("quantity")))
        return of(Order).filter(wanted).order_by("quantity").values_list("quantity", flat=True)

    assert require(ask, sorted(joined(of_each_shard(ask)))) == [8, 9]


def test_joins_by_the_key_are_left_to_each_shard(tenants: list[int]) -> None:
    made = [Order(tenant_id=tenant, status=status) for tenant, status in zip(tenants, "abc", strict=True)]
    save(Order, made)
    save(Line, [Line(tenant_id=each.tenant_id, order=each, amount=number) for number, each in enumerate(made)])
    lines = fan_out(Line.objects).filter(order__status__gte="b").order_by("-amount").annotate(status=F("order__status"))
    with assert_statements(dict.fromkeys(servers.SHARDS, 1)):
        assert [(line.amount, line.status) for line in lines] == [(2, "c"), (1, "b")]
    assert {shard_of(each.tenant_id, model=Order) for each in made} == set(servers.SHARDS)
