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
from tests.transactions.conftest import Rows, elsewhere, stored

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


def test_durable(rows: Rows) -> None:
    with transaction.atomic(using="default", durable=True):
        Order.objects.create(tenant_id=rows.a, status="kept")
    assert Order.objects.filter(tenant_id=rows.a, status="kept").exists()
    with transaction.atomic(using="default"):
        Order.objects.filter(tenant_id=rows.a).count()
        message = "A durable atomic block cannot be nested within another atomic block."
        with pytest.raises(RuntimeError, match=whole(message)), transaction.atomic(using="default", durable=True):
            pass


def test_on_commit_runs_once_when_all_is_committed(rows: Rows) -> None:
    seen: list[object] = []

    def look() -> None:
        seen.append(elsewhere(lambda: Order.objects.filter(tenant_id=rows.b).count()))
        seen.append([alias for alias in CLUSTER if connections[alias].in_atomic_block])

    with transaction.atomic(using="default"):
        with transaction.atomic(using="default"):
            transaction.on_commit(look)
        Order.objects.create(tenant_id=rows.b)
        assert seen == []
    assert seen == [1, []]


def test_on_commit_in_blocks_that_are_undone(rows: Rows) -> None:
    called: list[str] = []
    with undone():
        transaction.on_commit(lambda: called.append("undone"))
        Order.objects.create(tenant_id=rows.a)
    with transaction.atomic(using="default"):
        transaction.on_commit(lambda: called.append("outer"))
        with undone():
            transaction.on_commit(lambda: called.append("inner"))
            Order.objects.create(tenant_id=rows.a)
        Order.objects.filter(tenant_id=rows.a).count()
    transaction.on_commit(lambda: called.append("at once"))
    assert called == ["outer", "at once"]


def test_on_commit_of_a_block_that_touches_nothing(transactional_db: None) -> None:
    called: list[int] = []
    with transaction.atomic(using="default"):
        transaction.on_commit(lambda: called.append(1))
    assert called == [1]


def test_select_for_update(rows: Rows) -> None:
    locked = Order.objects.select_for_update(nowait=True).filter(tenant_id=rows.a)
    if not connections["shard_a"].features.has_select_for_update:
        # SQLite has no row locks, and Django leaves the words out.
        with transaction.atomic(using="default"):
            assert list(Order.objects.select_for_update().filter(tenant_id=rows.a)) == [rows.order]
        return
    message = "select_for_update cannot be used outside of a transaction."
    with pytest.raises(TransactionManagementError, match=whole(message)):
        list(locked)

    def lock_elsewhere() -> str:
        with transaction.atomic(using="default"):
            try:
                return f"{len(locked.all())} locked"
            except Exception as error:
                transaction.set_rollback(True, using="default")
                return type(error).__name__

    with transaction.atomic(using="default"):
        assert list(locked) == [rows.order]
        assert elsewhere(lock_elsewhere) == "OperationalError"
    assert elsewhere(lock_elsewhere) == "1 locked"


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
