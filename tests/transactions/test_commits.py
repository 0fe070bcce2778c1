"""
What is committed where: blocks that wrote to several databases, and writes that Django wraps into a block itself.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from django.db import DataError, IntegrityError, OperationalError, connections, transaction
from django.db.models import IntegerField, Value
from django.db.models.signals import post_delete
from django.db.transaction import TransactionManagementError

from sharding.errors import CrossShardTransaction, PartialCommit
from sharding.testing.statements import statements
from tests import servers
from tests.layouts import CLUSTER, SHOP_ONLY, tenant_on
from tests.messages import whole
from tests.shop.models import Customer, Line, Note, Order, Region
from tests.transactions.conftest import Rows, prepared, stored

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)


def _two_shards(rows: Rows) -> None:
    Order.objects.create(tenant_id=rows.b)
    Order.objects.create(tenant_id=rows.a)


def _shard_and_control(rows: Rows) -> None:
    Region.objects.create(name="south")
    Order.objects.create(tenant_id=rows.a)


def _bulk(rows: Rows) -> None:
    Order.objects.bulk_create([Order(tenant_id=rows.a), Order(tenant_id=rows.b)])


def _cascade(rows: Rows) -> None:
    Note.objects.create(order=rows.order, text="goes along")
    rows.order.delete()


def _global_row(rows: Rows) -> None:
    south = Region.objects.create(name="south")
    Customer.objects.filter(pk=rows.customer.pk).update(region=south)
    Customer.objects.create(tenant_id=rows.b, name="Bo", region=south)
    south.delete()


TWO_PHASES = servers.engine == "postgresql"

SEVERAL: dict[str, tuple[Callable[[Rows], None], list[str]]] = {
    "two shards": (_two_shards, ["shard_a", "shard_b"]),
    "a shard and the control database": (_shard_and_control, ["shard_a", "default"]),
    "bulk_create": (_bulk, ["shard_a", "shard_b"]),
    "delete": (_cascade, ["shard_a", "default"]),
    "delete of a global row": (_global_row, ["shard_a", "shard_b", "default"]),
}


@pytest.mark.parametrize(("write", "aliases"), SEVERAL.values(), ids=SEVERAL)
def test_a_block_that_wrote_to_several_databases(write: Callable[[Rows], None], aliases: list[str], rows: Rows) -> None:
    before = stored()
    called: list[int] = []
    with _refused_without_two_phases(aliases), transaction.atomic(using="default"):
        transaction.on_commit(lambda: called.append(1))
        write(rows)
    assert (stored() != before, called) == (TWO_PHASES, [1] if TWO_PHASES else [])
    # The next block is a new one, and its commit is not the commit of this one.
    with transaction.atomic(using="default"):
        Order.objects.create(tenant_id=rows.a)
    assert called == ([1] if TWO_PHASES else [])
    assert not any(connections[alias].in_atomic_block for alias in CLUSTER)
    assert prepared() == []


@contextmanager
def _refused_without_two_phases(aliases: list[str]) -> Iterator[None]:
    if TWO_PHASES:
        yield
        return
    message = (
        f"This atomic block wrote to {', '.join(aliases)}, and was rolled back on all of them: default cannot prepare "
        f"transactions. Put the cluster on PostgreSQL; or write to one database per block; or set "
        f"SHARDING['WITHOUT_TWO_PHASE_COMMIT'] to 'sequential', and they commit one after the other."
    )
    with pytest.raises(CrossShardTransaction, match=whole(message)) as raised:
        yield
    assert raised.value.aliases == aliases


def test_reading_elsewhere_is_no_write(rows: Rows) -> None:
    with transaction.atomic(using="default"):
        Order.objects.filter(tenant_id=rows.b).count()
        Region.objects.count()
        Order.objects.create(tenant_id=rows.a, status="kept")
    assert Order.objects.filter(tenant_id=rows.a, status="kept").exists()


def test_a_block_of_one_shard_asks_nothing_at_commit(rows: Rows) -> None:
    with statements() as sent, transaction.atomic(using="default"):
        Order.objects.create(tenant_id=rows.a)
    assert sent.counts == {"shard_a": 1}


def test_outside_of_blocks_every_database_commits_by_itself(rows: Rows) -> None:
    note = Note.objects.create(order=rows.order, text="goes along")
    called: list[int] = []
    made = Order.objects.bulk_create([Order(tenant_id=tenant) for tenant in (rows.b, rows.a, tenant_on("shard_c"))])
    assert [Order.objects.get(pk=each.pk).tenant_id for each in made] == [each.tenant_id for each in made]
    transaction.on_commit(lambda: called.append(1))
    rows.order.delete()
    assert not Note.objects.filter(pk=note.pk).exists()
    assert called == [1]


def _lines(rows: Rows, *, broken: str) -> list[Line]:
    """Two lines on two shards; the one on ``broken`` names no order that exists, which COMMIT finds out."""
    there = Order.objects.create(tenant_id=rows.b)
    missing = {"shard_a": Order(tenant_id=rows.a), "shard_b": Order(tenant_id=rows.b)}[broken]
    missing.save()
    Order.objects.filter(pk=missing.pk).delete()
    a, b = (missing, there) if broken == "shard_a" else (rows.order, missing)
    return [Line(tenant_id=rows.b, order_id=b.pk), Line(tenant_id=rows.a, order_id=a.pk)]


def test_a_commit_that_fails_later_on(rows: Rows) -> None:
    lines = _lines(rows, broken="shard_b")
    if TWO_PHASES:
        with pytest.raises(IntegrityError, match="foreign key constraint"):
            Line.objects.bulk_create(lines)
        assert stored()["Line"] == []
        assert prepared() == []
    else:
        message = (
            "shard_a committed, but shard_b did not (IntegrityError): the write is only partly done. "
            "Repeat the part of shard_b, which was rolled back."
        )
        with pytest.raises(PartialCommit, match=whole(message)) as raised:
            Line.objects.bulk_create(lines)
        assert raised.value.committed == ["shard_a"]
        assert list(raised.value.failed) == ["shard_b"]
        assert isinstance(raised.value.failed["shard_b"], IntegrityError)
        assert [alias for alias, _ in stored()["Line"]] == ["shard_a"]
    assert not any(connections[alias].in_atomic_block for alias in CLUSTER)


def test_a_commit_that_fails_first(rows: Rows) -> None:
    lines = _lines(rows, broken="shard_a")
    with pytest.raises(IntegrityError):
        Line.objects.bulk_create(lines)
    assert stored()["Line"] == []
    assert not any(connections[alias].in_atomic_block for alias in CLUSTER)


def test_a_statement_that_fails_leaves_nothing_anywhere(rows: Rows) -> None:
    before = stored()
    with pytest.raises(IntegrityError):
        # The ids are taken: the first INSERT, on shard_a, is undone with the second one, on shard_b.
        Order.objects.bulk_create([Order(tenant_id=rows.a), *_twins(rows)])
    assert {name: found for name, found in stored().items() if name != "Order"} == {
        name: found for name, found in before.items() if name != "Order"
    }
    assert [row["status"] for _, row in stored()["Order"]] == ["new", "twin"]


def _twins(rows: Rows) -> list[Order]:
    twin = Order.objects.create(tenant_id=rows.b, status="twin")
    return [Order(pk=twin.pk, tenant_id=rows.b)]


@contextmanager
def _after_delete(function: Callable[..., Any]) -> Iterator[None]:
    post_delete.connect(function, sender=Order)
    try:
        yield
    finally:
        post_delete.disconnect(function, sender=Order)


def test_a_delete_whose_second_commit_fails(rows: Rows) -> None:
    there = Order.objects.create(tenant_id=rows.b)

    def add_a_line(instance: Order, **kwargs: Any) -> None:
        if instance.pk == there.pk:
            Line.objects.create(tenant_id=rows.b, order_id=instance.pk, product="too late")

    both = Order.objects.filter(pk__in=[rows.order.pk, there.pk])
    if TWO_PHASES:
        before = stored()
        with _after_delete(add_a_line), pytest.raises(IntegrityError):
            both.delete()
        assert stored() == before
        return
    with _after_delete(add_a_line), pytest.raises(PartialCommit) as raised:
        both.delete()
    assert (raised.value.committed, list(raised.value.failed)) == (["shard_a"], ["shard_b"])
    assert [(alias, row["id"]) for alias, row in stored()["Order"]] == [("shard_b", there.pk)]
    assert stored()["Line"] == []


def test_a_delete_of_two_shards(rows: Rows) -> None:
    there = Order.objects.create(tenant_id=rows.b)
    assert Order.objects.filter(pk__in=[rows.order.pk, there.pk]).delete() == (2, {"shop.Order": 2})
    assert stored()["Order"] == []


def test_an_update_that_fails_on_the_second_shard(rows: Rows) -> None:
    made = Customer.objects.bulk_create([Customer(tenant_id=rows.b, name=n, email=n) for n in "xy"])
    both = Customer.objects.filter(pk__in=[rows.customer.pk, *(each.pk for each in made)])
    before = stored()
    with pytest.raises(IntegrityError):
        both.update(email="z")
    assert stored() == before
    with pytest.raises(IntegrityError), transaction.atomic(using="default"):
        both.update(email="w")
    assert stored() == before


def test_a_delete_whose_first_commit_fails(rows: Rows) -> None:
    Note.objects.create(order=rows.order, text="stays")
    before = stored()

    def add_a_line(instance: Order, **kwargs: Any) -> None:
        Line.objects.create(tenant_id=rows.a, order_id=instance.pk, product="too late")

    with _after_delete(add_a_line), pytest.raises(IntegrityError):
        Order.objects.get(pk=rows.order.pk).delete()
    assert stored() == before


def test_inside_a_block_nothing_commits_one_by_one(rows: Rows) -> None:
    before = stored()
    with _refused_without_two_phases(["shard_a", "shard_b"]), transaction.atomic(using="default"):
        _bulk(rows)
    assert (stored() == before) is not TWO_PHASES


def test_a_swallowed_error_commits_nothing(rows: Rows) -> None:
    """PostgreSQL would answer the COMMIT of the failed shard by a rollback, and the others would stand."""
    before = stored()
    division = Order.objects.filter(tenant_id=rows.a).annotate(x=Value(1) / Value(0, output_field=IntegerField()))
    if connections["shard_a"].vendor == "sqlite":
        # Nothing fails: SQLite answers NULL.
        assert division.get().x is None
        return
    message = (
        "A statement on shard_a failed inside this atomic block and its error was swallowed, so the whole block was "
        "rolled back. Put such a statement into an atomic() block of its own."
    )
    with (  # noqa: PT012 - the end of the block raises
        pytest.raises(TransactionManagementError, match=whole(message)),
        transaction.atomic(using="default"),
    ):
        Region.objects.create(name="lost")
        with suppress(DataError):
            division.get()
    assert stored() == before


def test_a_swallowed_error_of_save(rows: Rows) -> None:
    """save() has a block of its own inside, so Django itself knows that the outer one is broken."""
    before = stored()
    with transaction.atomic(using="default"):
        Order.objects.create(tenant_id=rows.b)
        with pytest.raises(IntegrityError):
            Order(pk=rows.order.pk, tenant_id=rows.a).save(force_insert=True)
    assert stored() == before


def test_errors_of_commits_can_be_pickled() -> None:
    partial = pickle.loads(pickle.dumps(PartialCommit("m", committed=["a"], failed={"b": OperationalError("x")})))
    assert (str(partial), partial.committed, list(partial.failed)) == ("m", ["a"], ["b"])
    crossed = pickle.loads(pickle.dumps(CrossShardTransaction("m", aliases=["a", "b"])))
    assert (str(crossed), crossed.aliases) == ("m", ["a", "b"])
