"""
Compensations are called, in reverse order, if and only if a part of their block stands and another one does not.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, connections, transaction

import sharding
from sharding.commits import parts
from sharding.errors import PartialCommit
from tests.blocks import Undone, savepoint
from tests.blocks import undone as rolled_back
from tests.layouts import SHOP_ONLY
from tests.messages import whole
from tests.shop.models import Order, Region
from tests.transactions.books import (
    NOWHERE,
    add_book,
    books,
    books_database,
    called,
    failing,
    half,
    logged,
    marks,
    remove_orders,
    sequential,
    titles,
    undo,
    undone,
)
from tests.transactions.conftest import Rows, stored

__all__ = ["books", "books_database", "sequential"]

pytestmark = [
    pytest.mark.django_db(databases="__all__", transaction=True, available_apps=SHOP_ONLY),
    pytest.mark.usefixtures("sequential"),
]
HALF = "shard_a committed, but books did not (IntegrityError): the write is only partly done. "


def test_they_are_called_in_reverse_order_each_in_a_block_of_its_own(rows: Rows, books: str) -> None:
    message = HALF + "books was rolled back. The block's compensations were called."
    with pytest.raises(PartialCommit, match=whole(message)) as raised, half():  # noqa: PT012 - a whole block
        Order.objects.create(tenant_id=rows.a)
        transaction.on_commit(lambda: sharding.compensate(undo, "never"))
        for each in ("first", "second", "third"):
            sharding.compensate(undo, each)
    assert undone() == ["third", "second", "first"]
    assert raised.value.compensated
    assert logged() == []


def test_they_undo_what_stands(rows: Rows, books: str) -> None:
    before = stored()
    with pytest.raises(PartialCommit), half():  # noqa: PT012 - a whole block
        for tenant in (rows.a, rows.b):
            Order.objects.create(tenant_id=tenant, status="made")
            sharding.compensate(remove_orders, "made", tenant=tenant)
    assert len(undone()) == 2
    assert (stored(), titles(), logged()) == (before, [], [])


def test_after_a_commit_of_all_none_is_called(rows: Rows, books: str) -> None:
    with sharding.atomic("books"):
        Order.objects.create(tenant_id=rows.a)
        Region.objects.create(name="south")
        add_book("kept")
        sharding.compensate(undo, "all")
    assert (undone(), logged(), titles()) == ([], [], ["kept"])


def test_in_two_phases_or_with_one_database_none_is_called(rows: Rows) -> None:
    """On SQLite the first is a sequential commit of all."""
    for tenants in ([rows.a, rows.b], [rows.a]):
        with transaction.atomic(using="default"):
            for tenant in tenants:
                Order.objects.create(tenant_id=tenant)
            sharding.compensate(undo, "none")
    assert (undone(), logged()) == ([], [])
    with pytest.raises(Undone), transaction.atomic(using="default"):
        raise Undone
    assert connections["default"].compensations == []


def test_after_a_rollback_of_all_none_is_called(rows: Rows, books: str) -> None:
    before = stored()
    with pytest.raises(Undone), half():  # noqa: PT012 - a whole block
        Order.objects.create(tenant_id=rows.a)
        sharding.compensate(undo, "all")
        raise Undone
    assert (undone(), logged(), titles(), stored()) == ([], [], [], before)
    # Nor those of a block before.
    with pytest.raises(PartialCommit), half():
        Order.objects.create(tenant_id=rows.a)
    assert undone() == []


def test_when_the_first_commit_fails_none_is_called(rows: Rows, books: str) -> None:
    before = stored()
    with pytest.raises(IntegrityError), half():  # noqa: PT012 - a whole block
        Region.objects.create(name="lost")
        sharding.compensate(undo, "all")
    assert (undone(), logged(), titles(), stored()) == ([], [], [], before)


def test_the_rollback_of_a_savepoint_drops_what_was_registered_inside(rows: Rows, books: str) -> None:
    with pytest.raises(PartialCommit), half():  # noqa: PT012 - a whole block
        Order.objects.create(tenant_id=rows.a)
        sharding.compensate(undo, "before")
        with rolled_back():
            sharding.compensate(undo, "dropped")
            with transaction.atomic(using="default"):
                sharding.compensate(undo, "dropped with the outer one")
        sid = savepoint(using="default")
        sharding.compensate(undo, "dropped by hand")
        transaction.savepoint_rollback(sid, using="default")
        sharding.compensate(undo, "between")
        with transaction.atomic(using="default"):
            sharding.compensate(undo, "kept")
    assert undone() == ["kept", "between", "before"]


def test_one_that_fails_is_left_and_the_others_are_called(rows: Rows, books: str, caplog: Any) -> None:
    failing.add("second")
    message = (
        HALF + "books was rolled back. The block's compensations are left to `manage.py shards recover`: 1 of 3 failed."
    )
    with pytest.raises(PartialCommit, match=whole(message)) as raised, half():  # noqa: PT012 - a whole block
        Order.objects.create(tenant_id=rows.a)
        for each in ("first", "second", "third"):
            sharding.compensate(undo, each, more=[1])
    assert undone() == [("third", [1]), ("second", [1]), ("first", [1])]
    assert not raised.value.compensated
    path = "tests.transactions.books:undo"
    assert logged() == [(path, '[["second"], {"more": [1]}]', 1, "RuntimeError: second cannot be undone")]
    [line] = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert line.startswith(f"The compensation {path} of ")


def test_what_a_failed_one_wrote_is_rolled_back(rows: Rows, books: str) -> None:
    with pytest.raises(PartialCommit), half():  # noqa: PT012 - a whole block
        Order.objects.create(tenant_id=rows.a, status="made")
        sharding.compensate(write_and_fail, rows.a)
    assert [row["status"] for _, row in stored()["Order"]] == ["new", "made"]


def write_and_fail(tenant: int) -> None:
    Order.objects.filter(tenant_id=tenant).delete()
    raise Undone


def test_an_interruption_leaves_them_to_recovery(rows: Rows, books: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(connections["books"], "_commit", interrupted)
    with pytest.raises(KeyboardInterrupt), half(shelf=1):  # noqa: PT012 - a whole block
        Order.objects.create(tenant_id=rows.a, status="made")
        sharding.compensate(undo, "left")
    assert undone() == []
    assert [arguments for _, arguments, *_ in logged()] == ['[["left"], {}]']
    assert Order.objects.filter(tenant_id=rows.a, status="made").exists()


def test_marks_are_deleted_by_the_next_block(rows: Rows, books: str) -> None:
    for _ in range(3):
        with sharding.atomic("books"):
            Order.objects.create(tenant_id=rows.a)
            add_book("kept")
            sharding.compensate(undo, "all")
        assert {alias: marks().get(alias) for alias in ("shard_a", "books")} == {"shard_a": 1, "books": 1}
    assert len(parts.settled["books"]) == 1


def test_arguments_that_json_keeps(rows: Rows, books: str) -> None:
    value = [None, True, 1, 1.5, "ä", {"a": [{}]}]
    with pytest.raises(PartialCommit), half(shelf=NOWHERE):  # noqa: PT012 - a whole block
        Order.objects.create(tenant_id=rows.a)
        sharding.compensate(undo, value)
    assert called == [(value, True)]
