"""What a reader sees of a row whose entry is committed, and whose own commit is under way."""

from __future__ import annotations

import threading
import time

import pytest
from django.db import connections, transaction

from aggregator import fan_out
from sharding.backends import lookup_reads
from sharding.lookups import in_flight, states
from sharding.testing.cluster import owners
from sharding.testing.statements import assert_statements
from tests.layouts import CLUSTER, SHOP_ONLY, tenant_on
from tests.lookups.stored import EMAIL, emails
from tests.shop.models import Member
from tests.transactions.conftest import elsewhere

pytestmark = [
    pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY),
    pytest.mark.usefixtures("kept", "patient"),
]


@pytest.fixture(autouse=True)
def three_shards(transactional_db):
    with owners("shard_a", "shard_b", "shard_c"):
        yield


class CommitHeldBack:
    """Writes in a thread, and stops between the commits of the control database and of the shard."""

    def __init__(self, shard, write):
        self.shard, self.write = shard, write
        self.decided, self.go_on = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=lambda: elsewhere(self._run))

    def _run(self):
        with connections[self.shard].execute_wrapper(self._stop):
            self.write()

    def _stop(self, execute, sql, params, many, context):
        if sql.startswith("COMMIT PREPARED"):
            self.decided.set()
            assert self.go_on.wait(60)
        return execute(sql, params, many, context)

    def __enter__(self):
        self.thread.start()
        assert self.decided.wait(60)
        return self

    def __exit__(self, *exc_info):
        self.go_on.set()
        self.thread.join(60)


@pytest.mark.parametrize(
    "ask",
    [
        lambda rows: rows.get().email,
        lambda rows: rows.first().email,
        lambda rows: next(iter(rows)).email,
        lambda rows: rows.values_list("email", flat=True)[0],
        lambda rows: rows.exists() and "ada@x",
    ],
    ids=["get", "first", "list", "values", "exists"],
)
def test_a_reader_waits_for_the_row_of_a_committed_entry(ask):
    tenant = tenant_on("shard_a")
    with CommitHeldBack("shard_a", lambda: Member.objects.create(tenant_id=tenant, email="ada@x")) as writer:
        assert emails() == {"ada@x"}
        threading.Timer(0.1, writer.go_on.set).start()
        assert ask(Member.objects.filter(email="ada@x")) == "ada@x"


def test_it_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(lookup_reads, "PATIENCE", 0.5)
    tenant = tenant_on("shard_a")
    with CommitHeldBack("shard_a", lambda: Member.objects.create(tenant_id=tenant, email="ada@x")):
        before = time.monotonic()
        assert not Member.objects.filter(email="ada@x").exists()
        assert lookup_reads.PATIENCE <= time.monotonic() - before < 25


@pytest.mark.parametrize(
    "ask",
    [
        lambda rows: rows.count(),
        lambda rows: len(list(rows.iterator())),
        lambda rows: rows.update(note="x"),
        lambda rows: rows.delete()[0],
        lambda rows: len(rows.select_for_update()),
    ],
    ids=["count", "iterator", "update", "delete", "for update"],
)
def test_so_do_counts_and_writes(ask):
    tenant = tenant_on("shard_a")
    with CommitHeldBack("shard_a", lambda: Member.objects.create(tenant_id=tenant, email="ada@x")) as writer:
        threading.Timer(0.1, writer.go_on.set).start()
        with transaction.atomic(using="default"):
            assert ask(Member.objects.filter(email="ada@x")) == 1


def test_the_row_is_committed_after_the_shard_has_answered(monkeypatch):
    """Then no transaction is prepared any more when the reader asks for those under way."""
    tenant = tenant_on("shard_a")
    with CommitHeldBack("shard_a", lambda: Member.objects.create(tenant_id=tenant, email="ada@x")) as writer:
        asked = in_flight.commits

        def late(connection):
            writer.go_on.set()
            writer.thread.join(60)
            return asked(connection)

        monkeypatch.setattr(in_flight, "commits", late)
        assert Member.objects.filter(email="ada@x").first() is not None


def test_a_row_that_the_rest_of_the_query_excludes_is_not_waited_for():
    Member.objects.create(tenant_id=tenant_on("shard_a"), email="ada@x", city="Rome")
    assert states.is_built(EMAIL)
    with assert_statements({"default": 1, "shard_a": 3}) as sent:
        assert not Member.objects.filter(email="ada@x", city="Oslo").exists()
    assert "pg_prepared_xacts" in sent["shard_a"][1]


def test_deleted_while_it_is_read():
    """The entry goes first, so that nobody is sent to a row that is gone."""
    ada = Member.objects.create(tenant_id=tenant_on("shard_a"), email="ada@x")
    with CommitHeldBack("shard_a", ada.delete):
        assert not Member.objects.filter(email="ada@x").exists()
        assert fan_out(Member.objects).filter(email="ada@x").exists()
