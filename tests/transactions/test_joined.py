"""
sharding.atomic(): databases beside the cluster take part in a block, by the same rules as the shards.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, connections, transaction

import sharding
from sharding.errors import CrossShardTransaction
from sharding.testing.statements import statements
from tests import servers
from tests.blocks import Undone, savepoint, undone
from tests.layouts import SHOP_ONLY
from tests.messages import whole
from tests.shop.models import Order, Region
from tests.transactions.books import NOWHERE, add_book, add_region, books, books_database, regions, titles
from tests.transactions.conftest import Rows, prepared, stored

__all__ = ["books", "books_database"]

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True, available_apps=SHOP_ONLY)
TWO_PHASES = servers.engine == "postgresql"


def test_a_rollback_undoes_what_was_written_anywhere(rows: Rows, books: str) -> None:
    before = stored()
    with pytest.raises(Undone), sharding.atomic("default", "reference", "books"):  # noqa: PT012 - a whole block
        add_region("lost")
        add_region("lost", "default")
        add_book("lost")
        Order.objects.create(tenant_id=rows.a)
        raise Undone
    assert (stored(), regions("reference"), titles()) == (before, [], [])


def test_nested_blocks_are_savepoints_everywhere(rows: Rows, books: str) -> None:
    with sharding.atomic("reference"):
        add_region("kept 1")
        with undone():
            add_region("lost")
            with transaction.atomic(using="default"):
                add_region("lost, too")
        with undone(), sharding.atomic("books"):
            add_region("lost")
            add_book("lost")
        with transaction.atomic(using="default"):
            add_region("kept 2")
            with transaction.atomic(using="reference"):
                add_region("kept 3")
            with pytest.raises(Undone), transaction.atomic(using="reference"):  # noqa: PT012 - a whole block
                add_region("lost")
                raise Undone
        sid = savepoint(using="default")
        add_region("lost by hand")
        transaction.savepoint_rollback(sid, using="default")
        # It left with the block that it joined in.
        add_book("by itself")
        assert not connections["books"].in_atomic_block
    assert regions("reference") == ["kept 1", "kept 2", "kept 3"]
    assert titles() == ["by itself"]


def test_one_that_joined_in_a_nested_block_stays_until_the_outer_one_ends(rows: Rows) -> None:
    with pytest.raises(Undone), transaction.atomic(using="default"):  # noqa: PT012 - a whole block
        with sharding.atomic("reference"):
            add_region("lost")
        add_region("lost, too")
        raise Undone
    assert regions("reference") == []


def test_an_error_inside_a_nested_block_breaks_no_more_than_that(rows: Rows) -> None:
    with sharding.atomic("reference"):
        add_region("kept")
        twin = Region.objects.using("reference").get()
        with pytest.raises(IntegrityError), transaction.atomic(using="default"):
            Region(pk=twin.pk, name="lost").save(using="reference", force_insert=True)
        add_region("also kept")
    assert regions("reference") == ["also kept", "kept"]


def test_callbacks_of_a_joined_database(rows: Rows) -> None:
    called: list[str] = []
    with sharding.atomic("reference"):
        transaction.on_commit(lambda: called.append(",".join(regions("reference"))), using="reference")
        with undone():
            transaction.on_commit(lambda: called.append("lost"), using="reference")
            add_region("lost")
        add_region("kept")
        assert called == []
    with pytest.raises(Undone), sharding.atomic("reference"):  # noqa: PT012 - a whole block
        transaction.on_commit(lambda: called.append("lost"), using="reference")
        raise Undone
    assert called == ["kept"]


def test_those_that_can_prepare_commit_in_two_phases(rows: Rows) -> None:
    """`reference` has Django's own ENGINE. On SQLite nobody can, and the block is refused."""
    before = stored()

    def block() -> None:
        with sharding.atomic("reference"):
            add_region("joined")
            add_region("own", "default")
            Order.objects.create(tenant_id=rows.a, status="joined")

    if not TWO_PHASES:
        with pytest.raises(CrossShardTransaction) as raised:
            block()
        assert raised.value.aliases == ["shard_a", "reference", "default"]
        assert (stored(), regions("reference")) == (before, [])
        return
    with statements(transactions=True) as sent:
        block()
    assert [sql.split(":")[0] for sql in sent["reference"] if "shardkit:" in sql] == [
        "PREPARE TRANSACTION 'shardkit",
        "COMMIT PREPARED 'shardkit",
    ]
    assert (regions("reference"), regions("default"), prepared()) == (["joined"], ["own"], [])
    assert Order.objects.filter(tenant_id=rows.a, status="joined").exists()


def test_the_decision_is_written_although_default_is_not_named(rows: Rows) -> None:
    def block() -> None:
        with sharding.atomic("reference", "plain"):
            add_region("joined")
            add_region("joined", "plain")
            transaction.on_commit(lambda: seen.append(regions("plain")))

    seen: list[Any] = []
    if not TWO_PHASES:
        with pytest.raises(CrossShardTransaction):
            block()
        return
    with statements() as sent:
        block()
    assert any("sharding_decision" in sql for sql in sent["default"])
    assert (regions("reference"), seen) == (["joined"], [["joined"]])


def test_a_failed_prepare_rolls_all_back(rows: Rows, books: str) -> None:
    """A mix with an engine that cannot prepare is refused before anything is committed."""
    before = stored()
    message = (
        "This atomic block wrote to shard_a, books, and was rolled back on all of them: books cannot prepare "
        "transactions. Put it on PostgreSQL; or write to one database per block; or set "
        "SHARDING['WITHOUT_TWO_PHASE_COMMIT'] to 'sequential', and they commit one after the other."
    )
    if not TWO_PHASES:
        message = message.replace("books cannot", "default cannot").replace("Put it", "Put the cluster")
    with (  # noqa: PT012 - a whole block
        pytest.raises(CrossShardTransaction, match=whole(message)) as raised,
        sharding.atomic("books"),
    ):
        add_book("lost", NOWHERE)
        Order.objects.create(tenant_id=rows.a)
    assert raised.value.aliases == ["shard_a", "books"]
    assert (stored(), titles()) == (before, [])


def test_one_database_commits_by_itself(rows: Rows, books: str) -> None:
    with statements(transactions=True) as sent, sharding.atomic("books", "reference"):
        add_book("kept")
        Order.objects.filter(tenant_id=rows.a).count()
    assert titles() == ["kept"]
    assert not [sql for alias in sent for sql in sent[alias] if "PREPARE" in sql]
    with pytest.raises(IntegrityError), sharding.atomic("books"):
        add_book("lost", NOWHERE)
    assert titles() == ["kept"]


def test_a_shard_may_be_named(rows: Rows) -> None:
    with sharding.atomic("default", "shard_a"):
        Order.objects.using("shard_a").create(tenant_id=rows.a, status="kept")
        with undone():
            Order.objects.using("shard_a").create(tenant_id=rows.a, status="lost")
            Order.objects.create(tenant_id=rows.a, status="lost")
    assert sorted(Order.objects.filter(tenant_id=rows.a).values_list("status", flat=True)) == ["kept", "new"]


def test_other_databases_stay_djangos_own(rows: Rows, books: str) -> None:
    """Neither does a plain block of theirs belong to the cluster, nor one of the cluster to them."""
    with undone():
        add_book("kept 1")
        with transaction.atomic(using="books"):
            add_book("kept 2")
        add_region("kept")
    with pytest.raises(Undone), transaction.atomic(using="books"):  # noqa: PT012 - a whole block
        add_book("lost")
        Order.objects.create(tenant_id=rows.a, status="kept")
        raise Undone
    with transaction.atomic(using="default"), transaction.atomic(using="reference"):
        add_region("kept, too")
        Order.objects.create(tenant_id=rows.a)
    assert titles() == ["kept 1", "kept 2"]
    assert regions("reference") == ["kept", "kept, too"]
    assert Order.objects.filter(tenant_id=rows.a, status="kept").exists()


def test_as_a_decorator(rows: Rows) -> None:
    @sharding.atomic("default", "reference", durable=True)
    def write(name: str, *, fail: bool) -> str:
        add_region(name)
        if fail:
            raise Undone
        return name

    @sharding.atomic
    def bare() -> bool:
        return bool(connections["default"].in_atomic_block)

    assert write("kept", fail=False) == "kept"
    with pytest.raises(Undone):
        write("lost", fail=True)
    assert regions("reference") == ["kept"]
    assert bare()
    nested = "A durable atomic block cannot be nested within another atomic block."
    with pytest.raises(RuntimeError, match=whole(nested)), sharding.atomic():
        write("lost", fail=False)
    assert regions("reference") == ["kept"]
