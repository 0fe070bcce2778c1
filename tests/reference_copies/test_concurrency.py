"""Several write reference rows at the same time, while a shard is brought up to date. SQLite has one writer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connections, transaction
from django.db.models import F

from sharding import reference_sync, routing
from sharding.control import ReferenceCopies
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.lookups.test_between_commits import CommitHeldBack
from tests.reference.copies import MODELS, everywhere, rows_of
from tests.shop.models import Country
from tests.transactions.conftest import elsewhere, prepared

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)


@pytest.fixture
def finland(transactional_db: None) -> Iterator[Country]:
    yield Country.objects.create(code="FI", name="Finland")
    for model in MODELS:
        everywhere(model)
    assert prepared() == []


def run_all(*functions: Callable[[], Any]) -> list[BaseException]:
    """Run functions at the same time, each in a thread of its own, and return what they raised."""
    errors: list[BaseException] = []

    def run(function: Callable[[], Any]) -> None:
        try:
            elsewhere(function)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=[function]) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_writers_of_one_row_take_turns(finland: Country) -> None:
    def add() -> None:
        for _ in range(25):
            Country.objects.filter(pk=finland.pk).update(rate=F("rate") + 1)

    assert run_all(add, add, add, add) == []
    finland.refresh_from_db()
    assert finland.rate == 101


def test_writers_of_a_new_row_agree_on_one(finland: Country) -> None:
    def make() -> None:
        for number in range(10):
            Country.objects.get_or_create(code=f"{number}", defaults={"name": str(threading.get_ident())})

    assert run_all(make, make, make) == []
    assert len(everywhere(Country)) == 11


@contextmanager
def taken_away(alias: str) -> Iterator[None]:
    with routing.native(alias), connections[alias].cursor() as cursor:
        cursor.execute("DELETE FROM shop_country")
    for stored in ReferenceCopies.objects.using("default").filter(table_name="shop_country"):
        before = stored.shards
        stored.shards = '["shard_a", "shard_b"]'
        stored.save(using="default")
        yield
        stored.refresh_from_db()
        assert stored.shards == before


def test_no_write_is_missed_by_a_shard_that_is_brought_up_to_date(finland: Country) -> None:
    """Every write comes either before the copying or reaches the shard itself."""
    done = threading.Event()

    def write() -> None:
        number = 0
        while not done.is_set():
            number += 1
            with transaction.atomic(using="default"):
                Country.objects.create(code=f"{number % 100}", name="new")
                Country.objects.filter(pk=finland.pk).update(rate=F("rate") + 1)
            if number % 3:
                Country.objects.filter(code=f"{number % 100}").delete()

    def copy() -> None:
        try:
            for _ in range(10):
                with taken_away("shard_c"):
                    reference_sync.bring_up_to_date("shard_c")
                everything.append(rows_of(Country, "shard_c"))
        finally:
            done.set()

    everything: list[Any] = []
    assert run_all(write, copy) == []
    assert len(everything) == 10


def test_copying_waits_for_a_write_that_did_not_reach_the_shard(finland: Country) -> None:
    written, go_on, copied = threading.Event(), threading.Event(), threading.Event()

    def write() -> None:
        with transaction.atomic(using="default"):
            Country.objects.create(code="SE", name="Sweden")
            written.set()
            assert go_on.wait(30)

    def copy() -> None:
        reference_sync.bring_up_to_date("shard_c")
        copied.set()

    with taken_away("shard_c"):
        threads = [threading.Thread(target=elsewhere, args=[function]) for function in (write, copy)]
        threads[0].start()
        assert written.wait(30)
        threads[1].start()
        early = copied.wait(0.5)
        go_on.set()
        for thread in threads:
            thread.join()
    assert not early
    assert len(everywhere(Country)) == 2


def test_a_row_is_deleted_while_its_insert_commits(transactional_db: None) -> None:
    """A shard that has not committed it yet does not see it, and has to wait for it."""
    with CommitHeldBack("shard_b", lambda: Country.objects.create(code="FI", name="Finland")) as writer:
        threading.Timer(0.2, writer.go_on.set).start()
        assert Country.objects.filter(code="FI").delete()[0] == 1
    assert everywhere(Country) == []


def test_a_row_is_changed_while_its_insert_commits(transactional_db: None) -> None:
    with CommitHeldBack("shard_b", lambda: Country.objects.create(code="FI", name="Finland")) as writer:
        threading.Timer(0.2, writer.go_on.set).start()
        assert Country.objects.filter(code="FI").update(name="Suomi") == 1
    assert everywhere(Country)[0][2] == "Suomi"
