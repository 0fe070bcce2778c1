"""Work on several shards at once: the caller's connections, errors, shards that are down, partial writes."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, ProgrammingError, connections, transaction
from django.db.models import F
from django.test.utils import override_settings

from aggregator import executor, fan_out, on_each_shard, threads
from sharding.errors import ShardsUnavailable, UnknownShard
from sharding.testing import cluster
from tests import servers
from tests.downtime import down
from tests.layouts import tenant_on
from tests.messages import whole
from tests.shop.models import Order

OWNERS = ("default", "shard_a", "shard_b", "shard_c")
# No transaction is open around these tests, which look at what autocommit leaves behind.
pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)


@pytest.fixture(scope="module", autouse=True)
def layout(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock(), cluster.owners(*OWNERS):
        yield


@pytest.fixture(autouse=True)
def orders(layout: None, db: None) -> None:
    Order.objects.bulk_create([Order(tenant_id=number, total=number, status=str(number)) for number in range(16)])


READS = {
    "rows": lambda: list(fan_out(Order.objects)),
    "a stream": lambda: list(fan_out(Order.objects).order_by("total").iterator(chunk_size=2)),
    "count": lambda: fan_out(Order.objects).count(),
    "groups": lambda: list(fan_out(Order.objects).values("status").annotate(n=F("total"))),
    "several keys": lambda: list(Order.objects.filter(tenant_id__in=range(16))),
    "on_each_shard": lambda: on_each_shard(lambda connection: connection.cursor().close()),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
@pytest.mark.parametrize("atomic", [False, True], ids=["autocommit", "atomic"])
def test_a_shard_that_is_down(read: Any, atomic: bool) -> None:
    message = whole(
        "These shards did not answer: shard_b (OperationalError). A part of an answer is no answer, so there is none. "
        "Repeat the query when they are up; .failures has their errors."
    )
    block: Any = transaction.atomic(using="default") if atomic else nullcontext()
    with down("shard_b"), pytest.raises(ShardsUnavailable, match=message) as caught, block:
        read()
    assert list(caught.value.failures) == ["shard_b"]
    assert isinstance(caught.value.failures["shard_b"], OperationalError)
    assert fan_out(Order.objects).count() == 16


def test_work_on_other_shards_goes_on() -> None:
    with down("shard_b"):
        assert Order.objects.filter(tenant_id=tenant_on("shard_a")).count() == 1


def test_an_update_with_a_shard_down() -> None:
    with down("shard_b"), pytest.raises(ShardsUnavailable) as caught:
        fan_out(Order.objects).update(status="done")
    assert list(caught.value.failures) == ["shard_b"]
    assert not fan_out(Order.objects).filter(status="done").exists()


def test_an_update_inside_a_block_with_a_shard_down() -> None:
    with down("shard_b"), pytest.raises(ShardsUnavailable), transaction.atomic(using="default"):
        fan_out(Order.objects).update(status="done")
    assert not fan_out(Order.objects).filter(status="done").exists()


def test_an_update_whose_first_shard_is_down() -> None:
    """Nothing is written yet, so nothing is partial."""
    tenants = [tenant_on("shard_a"), tenant_on("shard_b")]
    with down("shard_a"), pytest.raises(ShardsUnavailable):
        Order.objects.filter(tenant_id__in=tenants).update(status="done")
    assert not fan_out(Order.objects).filter(status="done").exists()


@contextmanager
def half_migrated(alias: str) -> Iterator[None]:
    """Let a shard lack the column ``weight`` inside."""
    table = Order._meta.db_table
    with connections[alias].schema_editor() as editor:
        editor.execute(f"ALTER TABLE {table} RENAME COLUMN weight TO burden")
    try:
        yield
    finally:
        with connections[alias].schema_editor() as editor:
            editor.execute(f"ALTER TABLE {table} RENAME COLUMN burden TO weight")


def test_a_half_migrated_shard() -> None:
    """A statement that a shard refuses is that shard's own error, with its name; the others stay usable."""
    with half_migrated("shard_b"):
        with pytest.raises(DatabaseError) as caught:
            list(fan_out(Order.objects).order_by("weight"))
        assert isinstance(caught.value, ProgrammingError if servers.engine == "postgresql" else OperationalError)
        assert caught.value.__notes__ == ["on shard 'shard_b'"]
        assert fan_out(Order.objects).values("status").count() == 16


def test_an_update_that_one_shard_refuses() -> None:
    with half_migrated("shard_b"), pytest.raises(DatabaseError) as caught:
        fan_out(Order.objects).update(weight=7)
    assert caught.value.__notes__ == ["on shard 'shard_b'"]
    assert not fan_out(Order.objects).filter(weight=7).exists()


def test_an_update_that_the_first_shard_refuses() -> None:
    with half_migrated("default"), pytest.raises(DatabaseError) as caught:
        fan_out(Order.objects).update(weight=7)
    assert caught.value.__notes__ == ["on shard 'default'"]
    assert not fan_out(Order.objects).filter(weight=7).exists()


def test_uncommitted_rows_are_seen() -> None:
    with transaction.atomic(using="default"):
        Order.objects.create(tenant_id=tenant_on("shard_c"), total=1)
        assert fan_out(Order.objects).count() == 17
        transaction.set_rollback(True, using="default")
    assert fan_out(Order.objects).count() == 16


variable: ContextVar[str] = ContextVar("variable", default="unset")


def test_context_variables_are_the_callers() -> None:
    token = variable.set("set")
    try:
        assert set(on_each_shard(lambda connection: variable.get(), parallel=True).values()) == {"set"}
    finally:
        variable.reset(token)


def test_no_other_connection_is_opened() -> None:
    """The threads of the pool use the caller's wrappers, and have none of their own afterwards."""
    seen: dict[str, set[int]] = {alias: set() for alias in OWNERS}

    def watch(alias: str) -> Any:
        def wrapper(execute: Any, *args: Any) -> Any:
            seen[alias].add(id(args[-1]["connection"]))
            return execute(*args)

        return wrapper

    with ExitStack() as stack:
        for alias in OWNERS:
            stack.enter_context(connections[alias].execute_wrapper(watch(alias)))
        for _ in range(5):
            list(fan_out(Order.objects).order_by("total")[:5])
    assert seen == {alias: {id(connections[alias])} for alias in OWNERS}
    assert not any(connections[alias].allow_thread_sharing for alias in OWNERS)


def test_lanes_are_limited() -> None:
    running: list[int] = []
    most: list[int] = []
    # On a slow machine, one of two might be over before the other one begins.
    both = threading.Barrier(2 if servers.engine == "postgresql" else 1)

    def work(connection: Any) -> None:
        running.append(1)
        most.append(len(running))
        both.wait(60)
        threading.Event().wait(0.02)
        running.pop()

    with override_settings(SHARDING={"SHARDS": ["shard_a", "shard_b", "shard_c"], "MAX_PARALLEL": 2}):
        wrappers = [connections[alias] for alias in OWNERS]
        executor.run(wrappers, work)
    assert max(most) == (2 if servers.engine == "postgresql" else 1)


def test_every_shard_is_waited_for_before_an_error() -> None:
    finished: list[str] = []

    def work(connection: Any) -> None:
        if connection.alias == "shard_a":
            raise ValueError("at once")
        threading.Event().wait(0.05)
        finished.append(connection.alias)

    with pytest.raises(ValueError, match="at once"):
        on_each_shard(work, parallel=True)
    assert sorted(finished) == ["default", "shard_b", "shard_c"]


@pytest.mark.parametrize("alias", OWNERS)
def test_what_is_no_error_ends_the_whole(alias: str) -> None:
    """Whichever thread it comes from, SystemExit say."""

    def work(connection: Any) -> str:
        threading.Event().wait(0.05)
        if connection.alias == alias:
            raise SystemExit(alias)
        return str(connection.alias)

    with pytest.raises(SystemExit, match=f"^{alias}$"):
        on_each_shard(work, parallel=True)


def test_a_pool_does_not_survive_a_fork() -> None:
    """Its threads do not, and a child that waited for them would wait for ever."""
    threads._threads()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os._exit(0 if threads._pool is None else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert threads._pool is not None


def test_on_each_shard_with_raw_sql() -> None:
    def count(connection: Any) -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM shop_order")
            return int(cursor.fetchone()[0])

    found = on_each_shard(count)
    assert list(found) == sorted(OWNERS)
    assert sum(found.values()) == 16
    assert list(on_each_shard(count, shards=["shard_b"])) == ["shard_b"]


def test_on_each_shard_of_strangers() -> None:
    message = whole("'reference' is no shard of this cluster. Its shards are default, shard_a, shard_b, shard_c.")
    with pytest.raises(UnknownShard, match=message):
        on_each_shard(lambda connection: None, shards=["reference"])


def test_a_stream_that_is_left_closes_its_cursors() -> None:
    rows: Any = fan_out(Order.objects).order_by("total").iterator(chunk_size=2)
    assert next(rows).total == 0
    rows.close()
    assert [order.total for order in fan_out(Order.objects).order_by("total").iterator(chunk_size=3)] == [*range(16)]
