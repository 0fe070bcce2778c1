"""Building and verifying while several clients write: no entry is older than its row."""

from __future__ import annotations

import random
import threading
import time

import pytest
from django.db import IntegrityError, OperationalError, transaction

from aggregator import fan_out
from sharding.control import LookupState
from sharding.lookups import states
from sharding.operations import lookup_orphans, lookup_rows, lookups
from sharding.testing.cluster import owners
from tests.layouts import CLUSTER, SHOP_ONLY, tenant_on
from tests.lookups.stored import EMAIL, differences, entries, lookup, tamper
from tests.lookups.test_between_commits import CommitHeldBack
from tests.shop.models import Member
from tests.transactions.conftest import elsewhere

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)

ROWS = 120


@pytest.fixture(autouse=True)
def rows(transactional_db, monkeypatch):
    monkeypatch.setattr(lookup_rows, "CHUNK", 10)
    monkeypatch.setattr(lookup_orphans, "CHUNK", 10)
    with owners("shard_a", "shard_b", "shard_c"):
        tenants = [tenant_on(f"shard_{name}") for name in "abc"]
        rows = [Member(tenant_id=tenants[place % 3], email=f"{place}@x") for place in range(ROWS)]
        Member.objects.bulk_create(rows)
        tamper().all()._raw_delete("default")
        LookupState.objects.using("default").filter(name=EMAIL).update(built=False, progress="{}")
        states.forget()
        yield rows
        states.mark_built([EMAIL])
    states.forget()


def _write(rows, seed, stop, written):
    """Create, rename and delete rows of one third until told to stop, and count what is done."""
    rng = random.Random(seed)
    tenant = rows[seed].tenant_id
    mine = [row.pk for row in rows[seed::3]]
    number = 0
    while not stop.is_set():
        written[seed] = number
        number += 1
        act = rng.random()
        pk = rng.choice(mine)
        # Some names are wanted by all writers.
        name = f"{rng.randrange(40)}@new" if act < 0.2 else f"{seed}-{number}@new"
        try:
            if act < 0.5:
                Member.objects.filter(pk=pk).update(email=name)
            elif act < 0.7:
                Member.objects.filter(pk=pk).delete()
            else:
                mine.append(Member.objects.create(tenant_id=tenant, email=name).pk)
        except IntegrityError:
            pass


@pytest.mark.parametrize(
    "act", [lookups.build, lambda each: lookups.verify(each, repair=True)], ids=["build", "repair"]
)
def test_while_others_write(rows, act):
    stop = threading.Event()
    written = {}

    def work(seed):
        elsewhere(lambda: _write(rows, seed, stop, written))

    writers = [threading.Thread(target=work, args=[seed]) for seed in range(3)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(3):
            report = act(lookup())
            assert not report.wrong
            # Once more: the writers have made entries of their own by now.
            tamper().filter(email__endswith="@x")._raw_delete("default")
            LookupState.objects.using("default").filter(name=EMAIL).update(built=False, progress="{}")
        # However quickly that went.
        while sum(written.values()) <= 50 and all(writer.is_alive() for writer in writers):
            time.sleep(0.01)
        report = act(lookup())
    finally:
        stop.set()
        for writer in writers:
            writer.join(60)
    assert len(written) == 3
    assert sum(written.values()) > 50
    assert not report.wrong
    assert differences() == []


def test_a_row_that_a_block_holds_is_waited_for(rows, monkeypatch):
    monkeypatch.setattr(lookup_rows, "LOCK_TIMEOUT", 0.1)
    monkeypatch.setattr(lookup_rows, "ATTEMPTS", 1000)
    held, go_on = threading.Event(), threading.Event()

    def hold():
        with transaction.atomic(using="default"):
            Member.objects.filter(pk=rows[0].pk).update(email="held@x")
            held.set()
            assert go_on.wait(30)

    holder = threading.Thread(target=lambda: elsewhere(hold))
    holder.start()
    assert held.wait(30)
    threading.Timer(0.5, go_on.set).start()
    assert lookups.build(lookup()).built
    holder.join(30)
    assert entries()[rows[0].pk][1] == "held@x"
    assert differences() == []


def test_a_row_that_is_held_for_too_long(rows, monkeypatch):
    monkeypatch.setattr(lookup_rows, "LOCK_TIMEOUT", 0.05)
    monkeypatch.setattr(lookup_rows, "ATTEMPTS", 2)
    held, go_on = threading.Event(), threading.Event()

    def hold():
        with transaction.atomic(using="default"):
            Member.objects.select_for_update().get(pk=rows[0].pk)
            held.set()
            assert go_on.wait(30)

    holder = threading.Thread(target=lambda: elsewhere(hold))
    holder.start()
    try:
        assert held.wait(30)
        with pytest.raises(OperationalError, match="lock timeout"):
            lookups.build(lookup())
    finally:
        go_on.set()
        holder.join(30)
    assert not states.is_built(EMAIL)
    assert lookups.build(lookup()).built


def test_an_entry_whose_row_is_about_to_be_committed_is_no_orphan(rows):
    lookups.build(lookup())
    with CommitHeldBack("shard_a", lambda: Member.objects.create(tenant_id=rows[0].tenant_id, email="a@x")) as writer:
        threading.Timer(0.3, writer.go_on.set).start()
        report = lookups.verify(lookup(), repair=True)
    assert not report.tallies
    assert differences() == []


def test_what_a_crash_has_left_is_not_told(rows, monkeypatch):
    monkeypatch.setattr(lookup_orphans, "PATIENCE", 0.2)
    lookups.build(lookup())
    with CommitHeldBack("shard_a", lambda: Member.objects.create(tenant_id=rows[0].tenant_id, email="a@x")):
        report = lookups.verify(lookup(), repair=True)
        assert not report.tallies
    assert differences() == []


def test_the_first_write_of_a_row_makes_the_missing_entry(rows):
    """So that a row that was changed since the declaration needs no build."""
    rows[0].email = "new@x"
    rows[0].save()
    assert set(entries()) == {rows[0].pk}
    assert fan_out(Member.objects).count() == ROWS
