"""
Programs that are interrupted while a block commits: by Ctrl-C, or by what the handler of a signal raises (Celery's soft
time limit), once and again.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from threading import Event, Thread
from typing import Any

import pytest
from django.db import connections, transaction

from sharding.backends.participants import Participant
from sharding.commits import recovery
from sharding.errors import CommitInDoubt
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.moving.applications import session
from tests.shop.models import Order, Region
from tests.transactions.conftest import Rows, elsewhere, prepared

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)


class TimeLimit(Exception):
    """Raised by the handler of a signal, and no error of a database."""


@pytest.fixture(autouse=True)
def later(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """Note how often the thread of the process was asked to finish something; the test does it itself."""
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(recovery, "finish_later", lambda **options: asked.append(options))
    yield asked
    monkeypatch.undo()
    recovery.resolve_now(min_age=0, only=CLUSTER)
    for alias in CLUSTER:
        connections[alias].close()
    assert prepared() == []


#: As long as somebody else has the lock.
SLOWLY = """
CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    WHILE NOT pg_try_advisory_lock_shared(4711) LOOP
        PERFORM pg_sleep(0.02);
    END LOOP;
    PERFORM pg_advisory_unlock_shared(4711);
    RETURN NULL;
END $$
"""
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"


@contextmanager
def slow_commits(alias: str, table: str) -> Iterator[None]:
    """Let PREPARE and COMMIT on a database have no end, inside time_limit_within, when rows were added to a table."""
    connection: Any = connections[alias]
    with connection.cursor() as cursor, connection.sharded_statements():
        cursor.execute(SLOWLY)
        cursor.execute(
            f"CREATE CONSTRAINT TRIGGER slowly AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED "
            f"FOR EACH ROW EXECUTE FUNCTION slowly()"
        )
    try:
        yield
    finally:
        connection.close()
        recovery.resolve_now(min_age=0, only=CLUSTER)
        with connection.cursor() as cursor, connection.sharded_statements():
            cursor.execute("DROP FUNCTION slowly() CASCADE")


@contextmanager
def time_limit_within(alias: str) -> Iterator[None]:
    """
    Let the time be up as soon as a database is at its slow PREPARE or COMMIT, which goes on half a second later.

    In the end the server is through with it.
    """

    def handler(*args: Any) -> None:
        is_up.set()
        raise TimeLimit

    is_up, over = Event(), Event()

    def watch() -> None:
        while not over.wait(0.02):
            if holder.execute(WAITING).fetchone() != (0,):
                os.kill(os.getpid(), signal.SIGALRM)
                is_up.wait(60)
                time.sleep(0.5)
                break
        holder.execute("SELECT pg_advisory_unlock(4711)")
        while holder.execute(WAITING).fetchone() != (0,):
            time.sleep(0.02)

    before = signal.signal(signal.SIGALRM, handler)
    watcher = Thread(target=watch)
    with closing(session(alias)) as holder:
        holder.execute("SELECT pg_advisory_lock(4711)")
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
            signal.signal(signal.SIGALRM, before)


def _write(rows: Rows, called: list[int] | None = None) -> None:
    with transaction.atomic(using="default"):
        transaction.on_commit(lambda: None if called is None else called.append(1))
        Order.objects.create(tenant_id=rows.a, status="made")
        Order.objects.create(tenant_id=rows.b, status="made")
        Region.objects.create(name="made")


def _error_of_write(rows: Rows) -> BaseException | None:
    """Return what is raised; an interruption that came through would end the run of the tests."""
    try:
        _write(rows)
    except BaseException as error:
        return error
    return None


def _made(rows: Rows) -> list[int]:
    def count() -> list[int]:
        orders = [Order.objects.filter(tenant_id=tenant, status="made").count() for tenant in (rows.a, rows.b)]
        return [*orders, Region.objects.filter(name="made").count()]

    found: list[int] = elsewhere(count)
    return found


@pytest.mark.parametrize("again", [KeyboardInterrupt, SystemExit, TimeLimit])
def test_interrupted_again_while_it_asks_what_was_decided(
    again: type[BaseException], rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it may have been, nothing prepared may be rolled back."""
    door: Any = connections["default"]
    commit = door.commit_own_part

    def interrupted() -> None:
        commit()
        raise KeyboardInterrupt

    def interrupted_again(*args: Any) -> None:
        raise again

    with monkeypatch.context() as patched:
        patched.setattr(door, "commit_own_part", interrupted)
        patched.setattr(recovery, "settle", interrupted_again)
        error = _error_of_write(rows)
    assert isinstance(error, CommitInDoubt)
    recovery.resolve_now(min_age=0, only=CLUSTER)
    assert _made(rows) == [1, 1, 1]
    assert not any(connections[alias].in_atomic_block for alias in CLUSTER)


@pytest.mark.parametrize("alias", ["shard_a", "shard_b"])
def test_while_a_shard_prepares(alias: str, rows: Rows, later: list[Any]) -> None:
    """The server goes on with it, so that somebody has to look again."""
    with slow_commits(alias, "shop_order"):
        with time_limit_within(alias), pytest.raises(TimeLimit):
            _write(rows)
        assert later or not elsewhere(prepared)
        recovery.resolve_now(min_age=0, only=CLUSTER)
        assert _made(rows) == [0, 0, 0]


def test_while_the_control_database_decides(rows: Rows) -> None:
    """It is committed, so that no error of a database may be raised: the caller would repeat the block."""
    called: list[int] = []
    with slow_commits("default", "shop_region"):
        try:
            with time_limit_within("default"):
                _write(rows, called)
        except TimeLimit:
            called.append(1)
        recovery.resolve_now(min_age=0, only=CLUSTER)
        assert (_made(rows), called) == ([1, 1, 1], [1])
        assert Region.objects.count() == 1


def test_the_next_block_of_the_thread_is_stored(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard that was left inside the interrupted block would take the next one for nested, and never commit it."""
    leave = Participant.leave

    def interrupted(participant: Participant) -> None:
        if participant.alias == "shard_b":
            raise TimeLimit
        leave(participant)

    with monkeypatch.context() as patched:
        patched.setattr(Participant, "leave", interrupted)
        with pytest.raises(TimeLimit):
            _write(rows)
    elsewhere(lambda: recovery.resolve_now(min_age=0, only=CLUSTER))
    with transaction.atomic(using="default"):
        Order.objects.create(tenant_id=rows.b, status="made")
    assert _made(rows) == [1, 2, 1]
