"""Rows that are fetched as they are needed: whose sessions, whose transactions, and what is left of them."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.management import call_command
from django.core.signals import request_finished
from django.db import DatabaseError, connections, transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Lower
from django.test import Client
from django.test.utils import CaptureQueriesContext

from aggregator import fan_out, own_sessions
from aggregator.batches import DISABLED
from sharding.errors import ShardsUnavailable
from sharding.testing import cluster
from tests.shop.models import Customer, Device, Order
from tests.two_sides import LAYOUTS, plain, rows_on

# No transaction is open around these tests, which look at what autocommit leaves behind.
pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)

OWNERS = LAYOUTS["part"]
NUMBER = 60


@pytest.fixture(scope="module", autouse=True)
def layout(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock(), cluster.owners(*OWNERS):
        yield


@pytest.fixture(autouse=True)
def orders(layout: None, db: None) -> None:
    Order.objects.bulk_create([Order(tenant_id=number % 16, total=number) for number in range(NUMBER)])


def ordered() -> QuerySet[Any]:
    return fan_out(Order.objects).order_by("total")


def asked(alias: str, sql: str) -> Any:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def sessions(state: str) -> list[set[int]]:
    """Return the other sessions of each shard's database that are in a state."""
    sql = (
        "SELECT array_agg(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
        f"AND backend_type = 'client backend' AND state LIKE '{state}'"
    )
    return [{*(asked(alias, sql) or ())} for alias in OWNERS]


def more_sessions(before: list[set[int]], state: str = "%") -> list[int]:
    """Return how many sessions of each shard there are that were not there before."""
    return [len(found - known) for found, known in zip(sessions(state), before, strict=True)]


def assert_no_more_sessions(before: list[set[int]]) -> None:
    """A server needs a moment until a session that was closed is none, also one of before."""
    deadline = time.monotonic() + 60
    while any(more_sessions(before)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert more_sessions(before) == [0, 0, 0]


def cursors() -> list[int]:
    """Return how many cursors the caller's sessions have open that end with their transaction."""
    return [asked(alias, "SELECT count(*) FROM pg_cursors WHERE NOT is_holdable AND name <> ''") for alias in OWNERS]


def test_a_stream_has_transactions_of_its_own() -> None:
    before = sessions("%")
    rows = ordered().iterator(chunk_size=30)
    assert next(rows).total == 0
    assert more_sessions(before, "idle in transaction") == [1, 1, 1]
    assert cursors() == [0, 0, 0]
    assert [order.total for order in rows] == [*range(1, NUMBER)]
    assert_no_more_sessions(before)


def leave(rows: Any) -> None:
    rows.close()


def fail(rows: Any) -> None:
    def loop() -> None:
        for row in rows:
            raise LookupError(row)

    with pytest.raises(LookupError):
        loop()


@pytest.mark.parametrize("end", [leave, fail, lambda rows: None], ids=["closed", "failed in the loop", "forgotten"])
def test_a_stream_that_is_left_ends_its_sessions(end: Any) -> None:
    before = sessions("%")
    rows = ordered().iterator(chunk_size=3)
    next(rows)
    end(rows)
    del rows
    assert_no_more_sessions(before)


def test_an_async_loop_that_is_left_ends_its_sessions() -> None:
    before = sessions("%")

    async def begin() -> int:
        async for order in ordered().aiterator(chunk_size=2):
            if order.total == 3:
                break
        # The event loop goes on, and closes what was dropped.
        await asyncio.sleep(0.1)
        return await fan_out(Order.objects).acount()

    assert async_to_sync(begin)() == NUMBER
    assert_no_more_sessions(before)


def test_what_a_loop_writes_is_committed_at_once_and_changes_no_stream() -> None:
    """The rows come as they were when the stream began, also when a write would move them to its end."""
    found = []
    for order in ordered().iterator(chunk_size=6):
        found.append(int(order.total))
        order.total += 1000
        order.save()
        assert not connections["shard_a"].in_atomic_block
        if len(found) == 40:
            break
    assert found == [*range(40)]
    # What was not committed would be gone with the sessions.
    connections.close_all()
    assert fan_out(Order.objects).filter(total__gte=1000).count() == 40


def test_inside_a_block_the_stream_is_a_part_of_it() -> None:
    with transaction.atomic(using="default"):
        Order.objects.create(tenant_id=3, total=-1)
        before = sessions("%")
        rows = ordered().iterator(chunk_size=30)
        assert next(rows).total == -1
        assert (cursors(), more_sessions(before)) == ([1, 1, 1], [0, 0, 0])
        rows.close()
        assert cursors() == [0, 0, 0]
        transaction.set_rollback(True, using="default")
    assert fan_out(Order.objects).count() == NUMBER


def test_a_block_that_ends_takes_its_streams_along() -> None:
    with transaction.atomic(using="default"):
        rows = ordered().iterator(chunk_size=3)
        assert next(rows).total == 0
    with pytest.raises(DatabaseError, match=r"cursor .* does not exist"):
        list(rows)
    assert fan_out(Order.objects).count() == NUMBER


def test_a_block_that_fails_while_it_streams() -> None:
    """Closing the cursor is no further error, and what was written is undone."""

    def overflow() -> None:
        with transaction.atomic(using="default"):
            for order in ordered().iterator(chunk_size=3):
                Order.objects.filter(tenant_id=order.tenant_id).update(total=10**12)

    with pytest.raises(DatabaseError, match="numeric field overflow"):
        overflow()
    assert [order.total for order in ordered()] == [*range(NUMBER)]


def test_streams_within_streams() -> None:
    pairs = [(a.total, b.total) for a in ordered()[:5].iterator(10) for b in ordered()[:3].iterator(10)]
    assert pairs == [(a, b) for a in range(5) for b in range(3)]


def test_statements_are_seen_by_who_watches_the_caller() -> None:
    with CaptureQueriesContext(connections["shard_a"]) as captured:
        assert len(list(ordered().iterator(chunk_size=3))) == NUMBER
    assert len([query for query in captured.captured_queries if "FROM" in query["sql"]]) == 1


def test_a_statement_that_fails_leaves_no_session() -> None:
    before = sessions("%")
    with pytest.raises(DatabaseError, match="division by zero"):
        list(fan_out(Order.objects).annotate(x=1 / (F("total") - F("total"))).iterator(chunk_size=3))
    assert_no_more_sessions(before)


# Batches


@contextmanager
def pooled(*aliases: str) -> Iterator[None]:
    """Let no server-side cursors be used inside."""
    for alias in aliases:
        connections[alias].settings_dict[DISABLED] = True
    try:
        yield
    finally:
        for alias in aliases:
            connections[alias].settings_dict[DISABLED] = False


READS = {
    "unordered": lambda of: sorted(of(Order).values_list("id").iterator(chunk_size=7)),
    "by a total order": lambda of: of(Order).order_by("id").iterator(chunk_size=1),
    "by many ties": lambda of: of(Order).order_by("status", "id").iterator(chunk_size=4),
    "by NULLs": lambda of: of(Order).order_by("quantity", "-weight", "id").iterator(chunk_size=3),
    "by NULLs, descending": lambda of: of(Order).order_by("-quantity", "weight", "id").iterator(chunk_size=3),
    "NULLs first": lambda of: of(Order).order_by(F("weight").asc(nulls_first=True), "id").iterator(chunk_size=4),
    "NULLs last": lambda of: (
        of(Order).order_by(F("created").desc(nulls_last=True), F("quantity").asc(nulls_first=True), "id").iterator(3)
    ),
    "mixed": lambda of: of(Order).order_by("-total", "created", "-id").iterator(chunk_size=5),
    "by a related field": lambda of: of(Order).order_by("customer__name", "id").iterator(chunk_size=5),
    "by an expression": lambda of: of(Customer).order_by(Lower("name").desc(), "id").iterator(chunk_size=5),
    "values without keys": lambda of: of(Order).order_by("-created", "id").values_list("status").iterator(chunk_size=4),
    "a slice": lambda of: of(Order).order_by("total", "id")[5:31].iterator(chunk_size=4),
    "groups": lambda of: of(Order).values("status", "tenant_id").distinct().order_by("tenant_id", "status").iterator(4),
    "a join to many": lambda of: sorted(of(Order).values_list("id", "lines__amount").iterator(chunk_size=4), key=str),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("disabled", [("default",), ("shard_a", "shard_b", "shard_c")], ids=["door", "shards"])
def test_batches_are_what_one_database_gives(name: str, disabled: tuple[str, ...], orders: None) -> None:
    fan_out(Order.objects).delete()
    with rows_on(LAYOUTS[name]), pooled(*disabled):
        for label, read in READS.items():
            found = plain(read(lambda model: fan_out(model._default_manager)))
            assert found == plain(read(lambda model: model._default_manager.using("reference"))), label


def test_batches_have_no_session_and_are_small() -> None:
    before = sessions("%")
    with pooled(*OWNERS), CaptureQueriesContext(connections["shard_a"]) as captured:
        rows = ordered().iterator(chunk_size=5)
        assert next(rows).total == 0
        assert (more_sessions(before), cursors()) == ([0, 0, 0], [0, 0, 0])
        assert len([query for query in captured.captured_queries if "shop_order" in query["sql"]]) == 1
        assert len(list(rows)) == NUMBER - 1
    sent = [query["sql"] for query in captured.captured_queries if "shop_order" in query["sql"]]
    assert len(sent) >= 4
    assert all(sql.endswith("LIMIT 5") for sql in sent)


def test_batches_of_text_keys() -> None:
    Device.objects.bulk_create([Device(serial=f"{'äÄaB_'[number % 5]}{number}") for number in range(30)])
    expected = [device.serial for device in fan_out(Device.objects).order_by("serial")]
    with pooled("default"):
        assert [each.serial for each in fan_out(Device.objects).order_by("serial").iterator(chunk_size=3)] == expected
        assert {each.serial for each in fan_out(Device.objects).iterator(chunk_size=3)} == {*expected}


def test_loops_over_batches_commit_what_they_write() -> None:
    with pooled("default"):
        for order in fan_out(Order.objects).iterator(chunk_size=4):
            order.status = "seen"
            order.save()
    connections.close_all()
    assert fan_out(Order.objects).filter(status="seen").count() == NUMBER


def test_a_half_read_stream_that_somebody_holds_is_in_nobodys_way() -> None:
    """A failed test keeps its frame, for one, and the tables are emptied after it."""
    before = sessions("%")
    rows = ordered().iterator(chunk_size=3)
    next(rows)
    call_command("flush", database="shard_a", interactive=False, verbosity=0)
    assert_no_more_sessions(before)
    with pytest.raises(ShardsUnavailable):
        list(rows)


def test_no_session_outlives_its_request() -> None:
    before = sessions("%")
    rows = ordered().iterator(chunk_size=3)
    next(rows)
    assert any(more_sessions(before))
    request_finished.send(sender=None)
    assert_no_more_sessions(before)
    del rows


def test_requests_of_other_threads_begin_and_end_meanwhile() -> None:
    def serve() -> None:
        while not over.is_set():
            wrapper = sessions_made.popleft()
            own_sessions._open[wrapper] = (0, 0)
            del own_sessions._open[wrapper]
            sessions_made.append(wrapper)

    over, interval = threading.Event(), sys.getswitchinterval()
    wrappers = [connections["shard_a"].copy() for _ in range(32)]
    sessions_made = deque(wrappers[:2])
    # As if a thread was in the middle of each of them.
    own_sessions._open.update(dict.fromkeys(wrappers[2:], (0, 0)))
    others = [threading.Thread(target=serve) for _ in range(2)]
    sys.setswitchinterval(1e-6)
    try:
        for other in others:
            other.start()
        for _ in range(5_000):
            own_sessions.end_all()
    finally:
        over.set()
        sys.setswitchinterval(interval)
        for other in others:
            other.join()
    assert len(own_sessions._open) == 30


def test_a_request_inside_a_loop_ends_no_stream_of_the_loop() -> None:
    """A test's client makes one, in the thread of the test."""
    before = sessions("%")
    rows = ordered().iterator(chunk_size=3)
    for row in rows:
        Client().get(f"/nothing/{row.total}")
    assert_no_more_sessions(before)
