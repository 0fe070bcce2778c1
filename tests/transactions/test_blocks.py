"""
Atomic blocks keep their meaning over shards: what is undone, when callbacks run, and what may be nested.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import IntegrityError, connections, transaction
from django.db.transaction import TransactionManagementError

from tests.blocks import Undone, savepoint, undone
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.messages import whole
from tests.shop.models import Customer, Line, Note, Order, Region
from tests.transactions.conftest import Rows, stored

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)


def _saved(rows: Rows) -> None:
    loaded = Order.objects.get(pk=rows.order.pk)
    loaded.status = "lost"
    loaded.save()


def _bulk_updated(rows: Rows) -> None:
    rows.order.status = "lost"
    Order.objects.bulk_update([rows.order], ["status"])


WRITES: dict[str, Callable[[Rows], object]] = {
    "new instance": lambda rows: Order(tenant_id=rows.a).save(),
    "loaded instance": _saved,
    "instance.delete": lambda rows: Order.objects.get(pk=rows.order.pk).delete(),
    "manager.create": lambda rows: Order.objects.create(tenant_id=rows.b),
    "manager.bulk_create": lambda rows: Order.objects.bulk_create([Order(tenant_id=rows.a), Order(tenant_id=rows.b)]),
    "manager.bulk_update": _bulk_updated,
    "manager.get_or_create": lambda rows: Order.objects.get_or_create(tenant_id=rows.a, status="lost"),
    "manager.update_or_create": lambda rows: Order.objects.update_or_create(
        tenant_id=rows.a, status="new", defaults={"status": "lost"}
    ),
    "queryset.update": lambda rows: Order.objects.filter(tenant_id=rows.a).update(status="lost"),
    "queryset.delete": lambda rows: Customer.objects.filter(tenant_id=rows.a).delete(),
    "related create": lambda rows: rows.order.lines.create(tenant_id=rows.a, product="lost"),
    "related add": lambda rows: rows.order.lines.add(Line(tenant_id=rows.a, product="lost"), bulk=False),
    "related clear": lambda rows: rows.customer.orders.clear(),
    "related set": lambda rows: rows.customer.orders.set([]),
    "through add": lambda rows: rows.order.tags.add(rows.tag, through_defaults={"tenant_id": rows.a}),
    "global row": lambda rows: Region.objects.create(name="lost"),
    "global row of a sharded one": lambda rows: rows.order.notes.create(text="lost"),
    "over all": lambda rows: (
        Region.objects.create(name="lost"),
        Order.objects.create(tenant_id=rows.a),
        Order.objects.create(tenant_id=rows.b),
    ),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_all_that_a_block_wrote_is_gone_after_its_rollback(write: Callable[[Rows], object], rows: Rows) -> None:
    before = stored()
    with undone():
        write(rows)
    assert stored() == before
    # Also when only a part of the block is undone.
    with transaction.atomic(using="default"):
        with undone():
            write(rows)
        Order.objects.filter(tenant_id=rows.a).count()
    assert stored() == before


def test_nested_blocks_undo_their_own_part(rows: Rows) -> None:
    with transaction.atomic(using="default"):
        kept = Order.objects.create(tenant_id=rows.a, status="kept")
        with undone():
            Order.objects.create(tenant_id=rows.a, status="lost")
            with transaction.atomic(using="default"):
                Order.objects.create(tenant_id=rows.a, status="lost")
        with transaction.atomic(using="default"):
            also = Order.objects.create(tenant_id=rows.a, status="kept")
    assert set(Order.objects.filter(tenant_id=rows.a)) == {rows.order, kept, also}


def test_a_shard_that_joins_late_has_every_savepoint(rows: Rows) -> None:
    with transaction.atomic(using="default"), transaction.atomic(using="default"):
        with undone():
            Order.objects.create(tenant_id=rows.b, status="lost")
        with undone(), transaction.atomic(using="default"):
            Order.objects.create(tenant_id=rows.b, status="lost")
        kept = Order.objects.create(tenant_id=rows.b, status="kept")
    assert list(Order.objects.filter(tenant_id=rows.b)) == [kept]


def test_manual_savepoints(rows: Rows) -> None:
    with transaction.atomic(using="default"):
        first = savepoint(using="default")
        Order.objects.create(tenant_id=rows.a, status="lost")
        second = savepoint(using="default")
        Order.objects.create(tenant_id=rows.a, status="lost")
        transaction.savepoint_commit(second, using="default")
        transaction.savepoint_rollback(first, using="default")
        kept = Order.objects.create(tenant_id=rows.a, status="kept")
        transaction.savepoint_rollback(savepoint(using="default"), using="default")
    assert set(Order.objects.filter(tenant_id=rows.a)) == {rows.order, kept}


def test_a_block_without_savepoint_takes_the_outer_one_along(rows: Rows) -> None:
    before = stored()
    with transaction.atomic(using="default"):
        Order.objects.create(tenant_id=rows.a)
        try:
            with transaction.atomic(using="default", savepoint=False):
                Order.objects.create(tenant_id=rows.a)
                raise Undone
        except Undone:
            assert transaction.get_rollback(using="default")
        message = (
            "An error occurred in the current transaction. "
            "You can't execute queries until the end of the 'atomic' block."
        )
        with pytest.raises(TransactionManagementError, match=whole(message)):
            Order.objects.filter(tenant_id=rows.a).count()
    assert stored() == before


def test_set_rollback(rows: Rows) -> None:
    before = stored()
    with transaction.atomic(using="default"):
        Order.objects.create(tenant_id=rows.a)
        Order.objects.create(tenant_id=rows.b)
        transaction.set_rollback(True, using="default")
    assert stored() == before


def test_an_error_in_a_block_of_its_own_leaves_the_rest(rows: Rows) -> None:
    twin = Order(pk=rows.order.pk, tenant_id=rows.a, status="twin")
    with transaction.atomic(using="default"):
        kept = Order.objects.create(tenant_id=rows.a)
        with pytest.raises(IntegrityError), transaction.atomic(using="default"):
            twin.save(force_insert=True)
    assert set(Order.objects.filter(tenant_id=rows.a)) == {rows.order, kept}


def test_a_cursor_that_is_older_than_the_block(rows: Rows) -> None:
    with connections["default"].cursor() as cursor:
        with undone():
            cursor.execute("INSERT INTO shop_region (name) VALUES ('undone')")
        with transaction.atomic(using="default"):
            with undone():
                cursor.execute("INSERT INTO shop_region (name) VALUES ('undone')")
            cursor.execute("INSERT INTO shop_region (name) VALUES ('kept')")
    assert list(Region.objects.values_list("name", flat=True)) == ["kept"]


def test_durable(rows: Rows) -> None:
    with transaction.atomic(using="default", durable=True):
        Order.objects.create(tenant_id=rows.a, status="kept")
    assert Order.objects.filter(tenant_id=rows.a, status="kept").exists()
    with transaction.atomic(using="default"):
        Order.objects.filter(tenant_id=rows.a).count()
        message = "A durable atomic block cannot be nested within another atomic block."
        with pytest.raises(RuntimeError, match=whole(message)), transaction.atomic(using="default", durable=True):
            pass


def test_a_block_of_one_shard_by_name(rows: Rows) -> None:
    before = stored()
    with pytest.raises(Undone), transaction.atomic(using="shard_a"):
        _undo_on_shard(rows)
    assert stored() == before


def _undo_on_shard(rows: Rows) -> None:
    Order.objects.create(tenant_id=rows.a)
    rows.order.delete()
    raise Undone


def test_reads_see_the_rows_of_their_own_block(rows: Rows) -> None:
    with undone():
        Order.objects.create(tenant_id=rows.b)
        Note.objects.create(text="in the control database")
        assert Order.objects.filter(tenant_id=rows.b).count() == 1
        assert Note.objects.count() == 1


def test_a_shard_whose_part_is_undone_takes_no_further_part(rows: Rows) -> None:
    with transaction.atomic(using="default"):
        Order.objects.create(tenant_id=rows.a, status="kept")
        with undone():
            Order.objects.create(tenant_id=rows.b)
        assert not connections["shard_b"].in_atomic_block
        with undone():
            with transaction.atomic(using="default"):
                Order.objects.create(tenant_id=rows.b)
            assert connections["shard_b"].in_atomic_block
        assert not connections["shard_b"].in_atomic_block
    assert Order.objects.filter(tenant_id=rows.a, status="kept").exists()
    assert not Order.objects.filter(tenant_id=rows.b).exists()


def test_a_shard_that_joined_in_a_block_that_succeeded_keeps_its_rows(rows: Rows) -> None:
    with transaction.atomic(using="default"):
        with transaction.atomic(using="default"):
            kept = Order.objects.create(tenant_id=rows.b)
        with undone():
            Order.objects.create(tenant_id=rows.b)
    assert list(Order.objects.filter(tenant_id=rows.b)) == [kept]
