"""
PostgreSQL servers that cannot prepare, and sessions that are lost while their database commits in its turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, connections

import sharding
from sharding.commits import parts
from sharding.errors import CrossShardTransaction, PartialCommit
from tests.layouts import SHOP_ONLY
from tests.messages import whole
from tests.shop.models import Line, Order, Region
from tests.transactions.books import books, books_database, logged, recover, sequential, undo, undone
from tests.transactions.conftest import Rows, stored
from tests.transactions.unprepared_server import add_line, end_session, ledger, ledger_database, lines

__all__ = ["books", "books_database", "ledger", "ledger_database", "sequential"]

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True, available_apps=SHOP_ONLY)


@contextmanager
def lost(alias: str, monkeypatch: pytest.MonkeyPatch, *, after: bool = False) -> Iterator[None]:
    """Let the session of a database be lost when it commits: before the server has committed, or right after."""
    connection: Any = connections[alias]
    commit = connection._commit

    def losing() -> None:
        if after:
            commit()
        end_session(alias)
        with connection.wrap_database_errors:
            # The session is found to be lost.
            connection.connection.execute("SELECT 1")

    with monkeypatch.context() as patched:
        patched.setattr(connection, "_commit", losing)
        yield


def block(rows: Rows, *tenants: int, compensated: bool = False) -> None:
    with sharding.atomic("ledger"):
        for tenant in tenants:
            Order.objects.create(tenant_id=tenant, status="made")
        add_line("made")
        if compensated:
            sharding.compensate(undo, "all")


def made() -> list[str]:
    return [alias for alias, row in stored()["Order"] if row["status"] == "made"] + ["ledger"] * len(lines())


def test_a_server_that_cannot_prepare_is_refused(rows: Rows, ledger: str) -> None:
    message = (
        "This atomic block wrote to shard_a, ledger, and was rolled back on all of them: ledger cannot prepare "
        "transactions. Set max_prepared_transactions there to at least max_connections; or write to one database per "
        "block; or set SHARDING['WITHOUT_TWO_PHASE_COMMIT'] to 'sequential', and they commit one after the other."
    )
    with pytest.raises(CrossShardTransaction, match=whole(message)) as raised:
        block(rows, rows.a)
    assert raised.value.aliases == ["shard_a", "ledger"]
    assert made() == []


@pytest.mark.usefixtures("sequential")
class TestSequential:
    def test_all_commit(self, rows: Rows, ledger: str) -> None:
        block(rows, rows.a, rows.b, compensated=True)
        assert made() == ["shard_a", "shard_b", "ledger"]
        assert (undone(), logged()) == ([], [])

    def test_deferred_constraints_are_checked_before_the_first_commit(self, rows: Rows, ledger: str) -> None:
        before = stored()
        missing = Order.objects.create(tenant_id=rows.b)
        Order.objects.filter(pk=missing.pk).delete()
        with pytest.raises(IntegrityError), sharding.atomic("ledger"):  # noqa: PT012 - a whole block
            Order.objects.create(tenant_id=rows.a)
            Line.objects.create(tenant_id=rows.b, order_id=missing.pk)
            add_line("lost")
            sharding.compensate(undo, "nothing")
        assert (stored(), lines(), undone(), logged()) == (before, [], [], [])

    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    def test_without_compensations_nobody_knows(
        self, after: bool, rows: Rows, ledger: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        message = (
            "shard_a committed, but the connection to ledger was lost during its commit (OperationalError), so it may "
            "have committed or not. Look there before you repeat the write."
        )
        with pytest.raises(PartialCommit, match=whole(message)) as raised, lost("ledger", monkeypatch, after=after):
            block(rows, rows.a)
        error = raised.value
        assert (error.committed, error.rolled_back, error.in_doubt) == (["shard_a"], [], ["ledger"])
        assert isinstance(error.failed["ledger"], OperationalError)
        assert made() == ["shard_a"] + ["ledger"] * after

    def test_the_first_one_is_in_doubt(self, rows: Rows, ledger: str, monkeypatch: pytest.MonkeyPatch) -> None:
        message = (
            "The connection to shard_a was lost during its commit (OperationalError), so it may have committed or not. "
            "shard_b, ledger were rolled back. Look there before you repeat the write."
        )
        with pytest.raises(PartialCommit, match=whole(message)), lost("shard_a", monkeypatch):
            block(rows, rows.a, rows.b)
        assert made() == []

    def test_one_that_committed_although_its_session_was_lost(
        self, rows: Rows, ledger: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its mark tells; so the block goes on and is whole."""
        with lost("shard_b", monkeypatch, after=True):
            block(rows, rows.a, rows.b, compensated=True)
        assert made() == ["shard_a", "shard_b", "ledger"]
        assert (undone(), logged()) == ([], [])

    def test_one_that_did_not_commit(self, rows: Rows, ledger: str, monkeypatch: pytest.MonkeyPatch) -> None:
        message = (
            "shard_a committed, but shard_b did not (OperationalError): the write is only partly done. shard_b, ledger "
            "were rolled back. The block's compensations were called."
        )
        with pytest.raises(PartialCommit, match=whole(message)) as raised, lost("shard_b", monkeypatch):
            block(rows, rows.a, rows.b, compensated=True)
        assert raised.value.compensated
        assert (made(), undone(), logged()) == (["shard_a"], ["all"], [])

    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    def test_one_that_does_not_answer_is_left_to_recovery(
        self, after: bool, rows: Rows, ledger: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The last one was lost, and cannot be asked: whether the block is whole is found out later."""
        message = (
            "shard_a committed, but the connection to ledger was lost during its commit (OperationalError), so it may "
            "have committed or not. `manage.py shards recover` finds out, and calls the block's compensations if only "
            "a part of it stands."
        )

        def unreachable(alias: str, block: str) -> bool:
            raise OperationalError("too slow")

        with monkeypatch.context() as patched, lost("ledger", monkeypatch, after=after):
            patched.setattr(parts, "is_committed", unreachable)
            with pytest.raises(PartialCommit, match=whole(message)) as raised:
                block(rows, rows.a, compensated=True)
            assert not raised.value.compensated
            assert (undone(), len(logged())) == ([], 1)
            assert list(recover()["waiting"].values()) == [
                "shard_a does not answer: too slow; ledger does not answer: too slow"
            ]
        recover()
        assert undone() == ([] if after else ["all"])
        assert (made(), logged()) == (["shard_a"] + ["ledger"] * after, [])

    def test_the_control_database_is_lost_at_its_commit(
        self, rows: Rows, ledger: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own = type(connections["default"]).commit_own_part

        def losing(door: object) -> None:
            end_session("default")
            own(door)

        monkeypatch.setattr(type(connections["default"]), "commit_own_part", losing)
        with pytest.raises(PartialCommit) as raised, sharding.atomic("ledger"):  # noqa: PT012 - a whole block
            Order.objects.create(tenant_id=rows.a, status="made")
            add_line("made")
            Region.objects.create(name="lost")
            sharding.compensate(undo, "all")
        assert (raised.value.committed, raised.value.rolled_back) == (["shard_a", "ledger"], ["default"])
        assert re.search("The block's compensations were called.$", str(raised.value))
        monkeypatch.undo()
        assert (made(), undone(), Region.objects.count(), logged()) == (["shard_a", "ledger"], ["all"], 0, [])
