"""Blocks of the application over rows, entries and other tables, committed in two phases; and clients that race."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import Any

import pytest
from django.db import IntegrityError, connections, transaction

from aggregator import fan_out
from sharding.testing.cluster import owners
from tests.blocks import undone
from tests.layouts import CLUSTER, SHOP_ONLY, tenant_on
from tests.lookups.stored import emails
from tests.shop.models import Member, Region
from tests.transactions.conftest import elsewhere

pytestmark = [
    pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY),
    pytest.mark.usefixtures("kept", "patient"),
]


@pytest.fixture(autouse=True)
def three_shards(transactional_db):
    with owners("shard_a", "shard_b", "shard_c"):
        yield


def test_a_block_over_two_shards_and_a_global_model():
    a, b = tenant_on("shard_a"), tenant_on("shard_b")
    with transaction.atomic(using="default"):
        ada = Member.objects.create(tenant_id=a, email="ada@x")
        Member.objects.create(tenant_id=b, email="ben@x")
        Region.objects.create(name="north")
        ada.email = "new@x"
        ada.save()
    assert emails() == {"new@x", "ben@x"}
    with undone():
        Member.objects.filter(pk=ada.pk).delete()
        Member.objects.create(tenant_id=b, email="new@x")
    assert emails() == {"new@x", "ben@x"}
    with transaction.atomic(using="default"):
        ada.delete()
        Member.objects.create(tenant_id=b, email="new@x")
    assert Member.objects.get(email="new@x").tenant_id == b


def test_an_exchange_in_one_block():
    ada = Member.objects.create(tenant_id=tenant_on("shard_a"), email="ada@x")
    ben = Member.objects.create(tenant_id=tenant_on("shard_b"), email="ben@x")
    with transaction.atomic(using="default"):
        for row, email in ((ada, "tmp@x"), (ben, "ada@x"), (ada, "ben@x")):
            row.email = email
            row.save()
    assert (Member.objects.get(email="ada@x"), Member.objects.get(email="ben@x")) == (ben, ada)


def _at_once(*functions):
    """Run functions in threads that start together; return what each returns or raises."""
    start = threading.Barrier(len(functions))
    outcomes: list[Any] = [None] * len(functions)

    def run(place, function):
        start.wait()
        try:
            outcomes[place] = function()
        except Exception as error:
            outcomes[place] = error
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=each) for each in enumerate(functions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return outcomes


def test_one_of_two_gets_the_value():
    tenants = [tenant_on(alias) for alias in ("shard_a", "shard_b", "shard_c")]
    for round_ in range(25):
        email = f"{round_}@x"
        outcomes = _at_once(*(partial(Member.objects.create, tenant_id=each, email=email) for each in tenants))
        assert sorted(type(each).__name__ for each in outcomes) == ["IntegrityError", "IntegrityError", "Member"]
        assert all("shop_member_email_lookup_key" in str(each) for each in outcomes if isinstance(each, IntegrityError))
    assert fan_out(Member.objects).count() == 25


def test_two_rows_that_want_one_value():
    rows = [Member.objects.create(tenant_id=tenant_on(f"shard_{name}"), email=f"{name}@x") for name in "abc"]

    def rename(row, email):
        row.email = email
        row.save()
        return "renamed"

    for round_ in range(15):
        outcomes = _at_once(*(partial(rename, row, f"{round_}@new") for row in rows))
        assert outcomes.count("renamed") == 1
        for row in rows:
            row.refresh_from_db()


def test_get_or_create_by_many():
    """Who finds the value taken finds the row, though its commit is still under way."""
    tenants = [tenant_on(alias) for alias in ("shard_a", "shard_b", "shard_c", "shard_a")]
    for round_ in range(25):
        outcomes = _at_once(
            *(
                partial(Member.objects.get_or_create, email=f"{round_}@x", defaults={"tenant_id": each})
                for each in tenants
            )
        )
        assert sorted(created for _, created in outcomes) == [False, False, False, True]
        assert len({row.pk for row, _ in outcomes}) == 1


def test_the_loser_waits_for_a_block_that_is_rolled_back():
    a, b = tenant_on("shard_a"), tenant_on("shard_b")
    with undone():
        Member.objects.create(tenant_id=a, email="ada@x")
        waiting = threading.Thread(target=lambda: elsewhere(lambda: Member.objects.create(tenant_id=b, email="ada@x")))
        waiting.start()
        time.sleep(0.2)
        assert waiting.is_alive()
    waiting.join(30)
    assert Member.objects.get(email="ada@x").tenant_id == b
