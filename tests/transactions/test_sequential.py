"""
One database after the other, where two-phase commit is not to be had: in which order, what stands after a failure.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, connections, transaction

import sharding
from sharding.backends.participants import Participant
from sharding.errors import PartialCommit
from tests import servers
from tests.layouts import SHOP_ONLY
from tests.messages import whole
from tests.shop.models import Order, Region
from tests.transactions.books import add_book, books, books_database, half, sequential, titles
from tests.transactions.conftest import Rows, stored

__all__ = ["books", "books_database", "sequential"]

pytestmark = [
    pytest.mark.django_db(databases="__all__", transaction=True, available_apps=SHOP_ONLY),
    pytest.mark.usefixtures("sequential"),
]
ON_POSTGRESQL = servers.engine == "postgresql"


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note which databases commit, in order."""
    noted: list[str] = []
    commit = Participant.commit
    own = type(connections["default"]).commit_own_part

    def noting(participant: Participant) -> None:
        noted.append(participant.alias)
        commit(participant)

    def noting_own(door: Any) -> None:
        noted.append(door.alias)
        own(door)

    monkeypatch.setattr(Participant, "commit", noting)
    monkeypatch.setattr(type(connections["default"]), "commit_own_part", noting_own)
    return noted


def test_shards_then_others_then_the_control_database_and_readers_last(
    rows: Rows, books: str, commits: list[str]
) -> None:
    with sharding.atomic("default", "books"):
        Region.objects.create(name="south")
        add_book("kept")
        Order.objects.create(tenant_id=rows.b)
        Order.objects.filter(tenant_id=rows.a).count()
    in_order = ["shard_b", "books", "default"]
    # SQLite is not asked whether it may end last.
    assert commits == ([*in_order, "shard_a"] if ON_POSTGRESQL else ["shard_a", *in_order])
    assert titles() == ["kept"]
    assert Region.objects.get().name == "south"
    assert Order.objects.filter(tenant_id=rows.b).count() == 1


def test_callbacks_run_once_after_the_last_commit(rows: Rows, books: str, commits: list[str]) -> None:
    seen: list[list[str]] = []
    with sharding.atomic("books"):
        transaction.on_commit(lambda: seen.append(list(commits)))
        transaction.on_commit(lambda: seen.append(titles()), using="books")
        Order.objects.create(tenant_id=rows.a)
        add_book("kept")
    assert seen[1:] == [["kept"]]
    assert sorted(seen[0]) == ["books", "default", "shard_a"]


def test_what_stands_and_what_does_not(rows: Rows, books: str) -> None:
    before = stored()
    called: list[int] = []
    message = (
        "shard_a, shard_b committed, but books did not (IntegrityError): the write is only partly done. "
        "Repeat the part of books, default, which was rolled back."
    )
    with pytest.raises(PartialCommit, match=whole(message)) as raised, half():  # noqa: PT012 - a whole block
        transaction.on_commit(lambda: called.append(1))
        Region.objects.create(name="lost")
        kept = [Order.objects.create(tenant_id=tenant, status="kept") for tenant in (rows.a, rows.b)]
    error = raised.value
    assert (error.committed, error.rolled_back, error.in_doubt) == (["shard_a", "shard_b"], ["books", "default"], [])
    assert list(error.failed) == ["books"]
    assert isinstance(error.failed["books"], IntegrityError)
    assert isinstance(error.__cause__, IntegrityError)
    assert not error.compensated
    after = stored()
    assert [row["id"] for _, row in after.pop("Order") if row["status"] == "kept"] == [each.pk for each in kept]
    del before["Order"]
    assert (after, titles(), called) == (before, [], [])
    # The next block is a new one.
    with sharding.atomic("books"):
        add_book("later")
    assert (titles(), called) == (["later"], [])


def test_a_failure_of_the_first_one_leaves_nothing(rows: Rows, books: str) -> None:
    before = stored()
    with pytest.raises(IntegrityError), half():
        Region.objects.create(name="lost")
    assert (stored(), titles()) == (before, [])


def test_a_block_that_is_rolled_back_commits_nothing(rows: Rows, books: str, commits: list[str]) -> None:
    before = stored()
    with pytest.raises(ZeroDivisionError), sharding.atomic("books"):  # noqa: PT012 - a whole block
        Order.objects.create(tenant_id=rows.a)
        add_book("lost")
        1 / 0  # noqa: B018
    assert (stored(), titles(), commits) == (before, [], [])


def test_a_plain_block_over_the_cluster(rows: Rows, commits: list[str]) -> None:
    """SQLite commits it sequentially, PostgreSQL in two phases."""
    with transaction.atomic(using="default"):
        Order.objects.create(tenant_id=rows.a, status="kept")
        Order.objects.create(tenant_id=rows.b, status="kept")
        Region.objects.create(name="kept")
    kept = [alias for name in ("Order", "Region") for alias, row in stored()[name] if "kept" in row.values()]
    assert kept == ["shard_a", "shard_b", "default"]
    assert (commits == ["shard_a", "shard_b", "default"]) is not ON_POSTGRESQL
