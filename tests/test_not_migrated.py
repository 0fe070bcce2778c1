"""What a shard is asked for and does not have is told by a class of its own, whichever way the statement went there."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import ProgrammingError, connections, transaction

from aggregator import fan_out, on_each_shard
from sharding import routing
from sharding.errors import ShardNotMigrated
from tests.layouts import CLUSTER, tenant_on
from tests.shop.models import Country, Order, Tag

pytestmark = pytest.mark.django_db(databases=CLUSTER)

MESSAGE = (
    "The shard 'shard_b' has {}: it is not migrated as this code expects. `manage.py migrate_all --check` shows what "
    "is pending where, and `manage.py migrate_all` applies it."
)
NO_WEIGHT = MESSAGE.format("no column 'weight' in the table 'shop_order' of the sharded model shop.Order")
NO_NAME = MESSAGE.format("no column 'name' in the table 'shop_country' of the reference model shop.Country")
NO_TAGS = MESSAGE.format("no table 'shop_tag' of the sharded model shop.Tag")

#: What another process has left on shard_b, and how it is put right.
CHANGES = {
    "ALTER TABLE shop_order RENAME weight TO burden": "ALTER TABLE shop_order RENAME burden TO weight",
    "ALTER TABLE shop_country RENAME name TO title": "ALTER TABLE shop_country RENAME title TO name",
    "ALTER TABLE shop_tag RENAME TO label": "ALTER TABLE label RENAME TO shop_tag",
}


@pytest.fixture(scope="module", autouse=True)
def half_migrated(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    def execute(statements: Iterable[str]) -> None:
        with django_db_blocker.unblock(), connections["shard_b"].cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    execute(CHANGES.keys())
    yield
    execute(CHANGES.values())


@contextmanager
def refused(message: str) -> Iterator[None]:
    with pytest.raises(ProgrammingError) as caught:
        yield
    error = caught.value
    assert str(error) == message
    assert isinstance(error, ShardNotMigrated)
    assert isinstance(error.__cause__, connections["shard_b"].Database.ProgrammingError)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def tenants() -> list[int]:
    return [tenant_on("shard_a"), tenant_on("shard_b")]


def here() -> Any:
    return Order.objects.filter(tenant_id=tenant_on("shard_b"))


def raw(sql: str) -> Any:
    with connections["shard_b"].cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


RAW = "SELECT o.weight FROM shop_order o"
STATEMENTS: dict[str, tuple[str, Callable[[], Any]]] = {
    "read": (NO_WEIGHT, lambda: list(here())),
    "read by alias": (NO_WEIGHT, lambda: list(Order.objects.using("shard_b"))),
    "stream": (NO_WEIGHT, lambda: list(here().iterator(chunk_size=2))),
    "condition": (NO_WEIGHT, lambda: here().filter(weight=1).count()),
    "create": (NO_WEIGHT, lambda: Order.objects.create(tenant_id=tenant_on("shard_b"))),
    "bulk_create": (NO_WEIGHT, lambda: Order.objects.bulk_create([Order(tenant_id=each) for each in tenants()])),
    "update": (NO_WEIGHT, lambda: here().update(weight=7)),
    "delete": (NO_WEIGHT, lambda: here().filter(weight=1).delete()),
    "no table": (NO_TAGS, lambda: Tag.objects.filter(tenant_id=tenant_on("shard_b")).exists()),
    "joined table": (NO_TAGS, lambda: here().filter(tags__label="x").count()),
    "fan-out": (NO_WEIGHT, lambda: list(fan_out(Order.objects))),
    "ordered fan-out": (NO_WEIGHT, lambda: list(fan_out(Order.objects.values("id")).order_by("weight")[:3])),
    "update of all": (NO_WEIGHT, lambda: fan_out(Order.objects).update(weight=7)),
    "delete of all": (NO_WEIGHT, lambda: fan_out(Order.objects.filter(weight=None)).delete()),
    "several keys": (NO_WEIGHT, lambda: Order.objects.filter(tenant_id__in=tenants()).update(weight=7)),
    "raw everywhere": (NO_WEIGHT, lambda: on_each_shard(lambda each: each.cursor().execute(RAW))),
    "reference model joined": (NO_NAME, lambda: here().filter(customer__country__name="x").count()),
    "reference model written": (NO_NAME, lambda: Country.objects.create(code="NO", name="Norway")),
}


@pytest.mark.parametrize(("message", "work"), STATEMENTS.values(), ids=STATEMENTS)
def test_statements(message: str, work: Callable[[], Any]) -> None:
    """The savepoint around it is rolled back, the block goes on, and no shard has a part of it."""
    Order.objects.create(tenant_id=tenant_on("shard_a"))
    with refused(message), transaction.atomic(using="default"):
        assert here().count() == 0
        work()
    assert fan_out(Order.objects).count() == 1
    assert not Order.objects.filter(tenant_id=tenant_on("shard_a"), weight=7).exists()
    assert not Country.objects.filter(code="NO").exists()


def test_raw_sql() -> None:
    with refused(NO_WEIGHT), transaction.atomic(using="shard_b"):
        raw(RAW)


def test_facts() -> None:
    for work, facts in (
        (lambda: list(here()), ("shop.Order", "shard_b", "shop_order", ("weight",))),
        (lambda: Tag.objects.using("shard_b").count(), ("shop.Tag", "shard_b", "shop_tag", ())),
    ):
        with pytest.raises(ShardNotMigrated) as caught, transaction.atomic(using="default"):
            work()
        error = caught.value
        assert (error.model, error.alias, error.table, error.columns) == facts


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT wieght FROM shop_order",
        "SELECT 1 FROM shop_orders",
        "SELECT shop_line.id FROM shop_order",
        "SELECT weight FROM shop_line",
        "SELECT status, wieght FROM shop_order JOIN shop_line ON true",
    ],
)
def test_what_is_misspelt_stays_the_databases_own_error(sql: str) -> None:
    with pytest.raises(ProgrammingError) as caught, transaction.atomic(using="shard_b"):
        raw(sql)
    assert type(caught.value) is ProgrammingError


def test_a_migration_is_not_told_to_migrate() -> None:
    with pytest.raises(ProgrammingError) as caught, routing.native("shard_b"), transaction.atomic(using="shard_b"):
        raw("SELECT weight FROM shop_order")
    assert type(caught.value) is ProgrammingError


def test_a_shard_that_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own error stands."""
    shard = connections["shard_b"]
    shard.ensure_connection()
    monkeypatch.setitem(shard.settings_dict, "PORT", "1")
    with pytest.raises(ProgrammingError) as caught, transaction.atomic(using="default"):
        list(here())
    assert type(caught.value) is ProgrammingError
