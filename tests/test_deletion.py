"""
The collector of sharded rows does all that Django's own does; only its statements by id name the key, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from uuid import uuid4

import pytest
from django.db import DatabaseError, connections, models
from django.db.models import signals
from django.db.models.deletion import Collector, ProtectedError, RestrictedError
from django.test.utils import CaptureQueriesContext, isolate_apps

from sharding import deletion, registry
from sharding.deletion import KeyedCollector
from sharding.fields import ShardUUIDField
from sharding.models import ShardedModel
from sharding.testing.cluster import owners
from tests.layouts import SHOP_ONLY
from tests.shop.models import Customer, Line, Note, Order

pytestmark = pytest.mark.django_db(databases=["default", "plain"], transaction=True, available_apps=SHOP_ONLY)

TENANT = 7


def nobody() -> None:
    return None


#: What Order.customer may say of the deletion of its customer.
ON_DELETE: dict[str, Any] = {
    "CASCADE": models.CASCADE,
    "SET_NULL": models.SET_NULL,
    "SET_DEFAULT": models.SET_DEFAULT,
    "SET": models.SET(nobody),
    "DO_NOTHING": models.DO_NOTHING,
    "PROTECT": models.PROTECT,
    "RESTRICT": models.RESTRICT,
}


@pytest.fixture(autouse=True)
def cluster_of_one(transactional_db: None) -> Iterator[None]:
    with owners("default"):
        yield


@contextmanager
def told() -> Iterator[list[tuple[Any, ...]]]:
    """Collect the signals of deletion of three models, in their order."""
    found: list[tuple[Any, ...]] = []

    def listen(signal: Any, sender: Any, instance: Any, using: str, origin: Any, **kwargs: Any) -> None:
        name = "pre" if signal is signals.pre_delete else "post"
        found.append((name, sender, instance.pk is None, using, type(origin)))

    for signal in (signals.pre_delete, signals.post_delete):
        for sender in (Customer, Order, Note):
            signal.connect(listen, sender=sender)
    try:
        yield found
    finally:
        for signal in (signals.pre_delete, signals.post_delete):
            for sender in (Customer, Order, Note):
                signal.disconnect(listen, sender=sender)


def _customer(alias: str) -> Customer:
    customer = Customer(tenant_id=TENANT, name="Ada", email=f"{uuid4()}@b.com")
    customer.save(using=alias)
    for number in range(2):
        order = Order(tenant_id=TENANT, customer=customer, quantity=number)
        order.save(using=alias)
        Line(tenant_id=TENANT, order=order, product="tea").save(using=alias)
        Note(order=order, text="x").save(using=alias)
    return customer


def _general(sql: str) -> str:
    """Make ids equal, and leave out the keys."""
    sql = re.sub(r"'?[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}'?(::uuid)?", "<id>", sql)
    sql = re.sub(r"\b\d+(?=[,)])", "<id>", sql)
    sql = re.sub(r'\(("\w+")\."tenant_id" = \d+ AND (\1\."id" IN \([^)]*\))\)', r"\2", sql)
    return re.sub(r', "shop_\w+"."tenant_id" FROM', " FROM", sql)


def _deleted_by(collector_class: type[Collector], customer: Customer) -> tuple[Any, list[str]]:
    alias = customer._state.db or ""
    collector = collector_class(using=alias, origin=customer)
    with CaptureQueriesContext(connections[alias]) as context:
        try:
            collector.collect([customer])
            answer: Any = collector.delete()
        except (ProtectedError, RestrictedError) as error:
            answer = str(error)
    return answer, [_general(query["sql"]) for query in context.captured_queries]


@pytest.mark.parametrize("alias", ["default", "plain"])
@pytest.mark.parametrize("listening", [told, nullcontext], ids=["with signals", "without signals"])
@pytest.mark.parametrize("name", ON_DELETE)
def test_same_as_djangos(name: str, listening: Any, alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Order._meta.get_field("customer").remote_field, "on_delete", ON_DELETE[name])
    found = []
    for collector_class in (Collector, KeyedCollector):
        customer = _customer(alias)
        if name == "DO_NOTHING":
            Order.objects.using(alias).filter(tenant_id=TENANT).update(customer=None)
        with listening() as sent:
            found.append((*_deleted_by(collector_class, customer), sent))
        assert (customer.pk is None) is (name not in {"PROTECT", "RESTRICT"})
    assert found[0] == found[1]
    assert found[0][1]


def test_a_key_in_the_table_of_a_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child's table has no such column to name."""
    monkeypatch.setattr(registry, "_models", dict(registry._models))
    with isolate_apps("tests.shop"):

        class Invoice(ShardedModel):
            shard_key = "tenant_id"
            id = ShardUUIDField(primary_key=True)
            tenant_id = models.IntegerField()

            class Meta:
                app_label = "shop"

        class CreditNote(Invoice):
            class Meta:
                app_label = "shop"

    rows = [CreditNote(pk=uuid4(), tenant_id=TENANT) for _ in range(2)]
    with CaptureQueriesContext(connections["plain"]) as context, pytest.raises(DatabaseError):
        deletion.delete_rows(CreditNote, rows, "plain")
    registry.reset()
    (sent,) = context.captured_queries
    assert _general(sent["sql"]) == (
        'DELETE FROM "shop_creditnote" WHERE "shop_creditnote"."invoice_ptr_id" IN (<id>, <id>)'
    )
