"""What a crash leaves, by hand: prepared transactions with and without a decision, and who finishes them."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import OperationalError, connections, transaction

import sharding
from sharding import bucket_of, cluster_map, routing
from sharding.commits import background, decisions, recovery, resolver, two_phase, waiting
from sharding.commits.gids import Gid
from sharding.control import Decision
from sharding.errors import BlockAborted
from sharding.ids import new_uuid
from tests.clocks import change_time
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.shop.models import Order, Region
from tests.transactions.conftest import Rows, elsewhere, prepared

# Recovery looks at every PostgreSQL database there is.
pytestmark = pytest.mark.django_db(databases="__all__", transaction=True, available_apps=SHOP_ONLY)

CRASHED = "00000000deadbeef.1"


@pytest.fixture(autouse=True)
def _no_decisions(transactional_db: None) -> Iterator[None]:
    # It is not managed, so that no test's flush empties it.
    Decision.objects.using("default").all().delete()
    decisions.carried_out.clear()
    yield
    recovery.resolve_now(min_age=0)
    assert prepared() == []


def leave_prepared(alias: str, tenant: int, *, gid: str | None = None) -> str:
    """Prepare an INSERT on a shard, as a coordinator that died then would have left it."""
    cluster = cluster_map.uuid()
    assert cluster is not None
    name = gid or str(Gid(cluster, CRASHED, alias))

    def work() -> None:
        with connections[alias].cursor() as cursor:
            cursor.execute("BEGIN")
            bucket = bucket_of(tenant, model=Order)
            with routing.native(alias):
                cursor.execute(
                    "INSERT INTO shop_order (id, bucket, tenant_id, status, total) VALUES (%s, %s, %s, %s, 1)",
                    [new_uuid(bucket), bucket, tenant, "left"],
                )
            cursor.execute(f"PREPARE TRANSACTION '{name}'")

    elsewhere(work)
    return name


def decide(*aliases: str) -> None:
    with connections["default"].cursor() as cursor:
        assert decisions.decide(cursor, CRASHED, aliases)


def recover(*arguments: str) -> Any:
    out = io.StringIO()
    call_command("shards", "recover", "--json", *arguments, stdout=out)
    return json.loads(out.getvalue())


def printed(*arguments: str) -> list[str]:
    out = io.StringIO()
    call_command("shards", "recover", *arguments, stdout=out)
    return [" ".join(line.split()) for line in out.getvalue().splitlines()]


def left(tenant: int) -> int:
    return Order.objects.filter(tenant_id=tenant, status="left").count()


class Pipe(io.StringIO):
    """What its reader has got: no more than was flushed."""

    def __init__(self) -> None:
        super().__init__()
        self.read_by_others = ""

    def flush(self) -> None:
        self.read_by_others = self.getvalue()


def test_each_look_of_a_watch_is_a_line_that_is_there_at_once(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, read = Pipe(), []

    def nap(seconds: float) -> None:
        read.append(pipe.read_by_others)
        if len(read) == 2:
            raise KeyboardInterrupt

    change_time(monkeypatch, "sharding.management.subcommands.recover", sleep=nap)
    call_command("shards", "recover", "--watch", "--json", stdout=pipe)
    assert [[json.loads(line)["complete"] for line in text.splitlines()] for text in read] == [[True], [True, True]]


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf"])
@pytest.mark.parametrize("option", ["--watch", "--min-age"])
def test_senseless_seconds_are_refused(transactional_db: None, option: str, seconds: str) -> None:
    with pytest.raises(CommandError) as raised:
        call_command("shards", "recover", option, seconds, stdout=io.StringIO())
    assert str(raised.value) == f"{option} must be a number of seconds, not {float(seconds)}."


def test_what_is_decided_is_committed(rows: Rows, monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    settings.SHARDING = {**settings.SHARDING, "RECOVER_AFTER": 3600}
    leave_prepared("shard_a", rows.a)
    leave_prepared("shard_b", rows.b)
    decide("shard_a", "shard_b")
    # Their coordinator may be at it.
    monkeypatch.setattr(resolver, "GRACE", 600.0)
    assert [each["transaction"] for each in recover()["left"]] == [CRASHED, CRASHED]
    monkeypatch.setattr(resolver, "GRACE", 0.0)
    done = recover()
    assert [(each["database"], each["transaction"]) for each in done["committed"]] == [
        ("shard_a", CRASHED),
        ("shard_b", CRASHED),
    ]
    assert (done["complete"], done["rolled_back"], done["failures"]) == (True, [], {})
    assert (left(rows.a), left(rows.b)) == (1, 1)
    assert not Decision.objects.using("default").exists()


def test_a_transaction_that_a_resolver_is_just_ending(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL says that it is busy; a moment later it is gone, and the block committed."""
    execute = two_phase._execute

    def busy(participant: Any, sql: str) -> None:
        if not sql.startswith("COMMIT PREPARED"):
            return execute(participant, sql)
        monkeypatch.setattr(two_phase, "_execute", execute)
        with pytest.raises(OperationalError) as raised, connections["shard_a"].cursor() as cursor:
            # The same SQLSTATE: a transaction may be ended once only, and by nobody inside a block.
            cursor.execute("DO $$ BEGIN RAISE EXCEPTION 'busy' USING ERRCODE = '55000'; END $$")
        raise raised.value

    monkeypatch.setattr(two_phase, "_execute", busy)
    with transaction.atomic(using="default"):
        Order.objects.create(tenant_id=rows.a, status="left")
        Order.objects.create(tenant_id=rows.b, status="left")
    assert (left(rows.a), left(rows.b)) == (1, 1)
    assert prepared() == []


def test_what_nobody_decided_is_rolled_back_when_it_is_old(rows: Rows, settings: Any) -> None:
    settings.SHARDING = {**settings.SHARDING, "RECOVER_AFTER": 3600}
    leave_prepared("shard_a", rows.a)
    young = recover()
    assert ([each["transaction"] for each in young["left"]], young["complete"]) == ([CRASHED], False)
    assert [alias for alias, _ in prepared()] == ["shard_a"]
    assert printed()[-1] == "What is too young may still be at work. Run this again, or with --min-age 0."
    old = recover("--min-age", "0")
    assert [each["transaction"] for each in old["rolled_back"]] == [CRASHED]
    assert left(rows.a) == 0
    tombstone = Decision.objects.using("default").get()
    assert (tombstone.transaction, tombstone.committed) == (CRASHED, False)
    assert printed() == ["Nothing is in doubt."]


def test_the_tombstone_stands_against_its_coordinator(rows: Rows) -> None:
    leave_prepared("shard_a", rows.a)
    recover("--min-age", "0")
    with connections["default"].cursor() as cursor:
        assert not decisions.decide(cursor, CRASHED, ["shard_a"])


def test_nobody_elses_transactions_are_touched(rows: Rows) -> None:
    other = str(Gid(uuid4(), CRASHED, "shard_a"))
    # Names are those of a whole server, where other runs may be.
    own = connections["shard_a"].settings_dict["NAME"]
    gids = (other, f"their own: shardkit:{own}", f"shardkit:{own}")
    names = [leave_prepared("shard_a", rows.a, gid=gid) for gid in gids]
    done = recover("--min-age", "0")
    assert (done["rolled_back"], done["complete"]) == ([], True)
    assert sorted(gid for _, gid in prepared()) == sorted(names)
    with connections["shard_a"].cursor() as cursor:
        for name in names:
            cursor.execute(f"ROLLBACK PREPARED '{name}'")


def test_a_decision_is_kept_while_one_of_its_databases_is_down(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "GRACE", 0.0)
    leave_prepared("shard_a", rows.a)
    decide("shard_a", "shard_b")
    port = connections["shard_b"].settings_dict["PORT"]
    connections["shard_b"].close()
    connections["shard_b"].settings_dict["PORT"] = "1"
    try:
        done = recovery.resolve_now()
    finally:
        connections["shard_b"].settings_dict["PORT"] = port
    assert (list(done.failures), [each.alias for each in done.committed]) == (["shard_b"], ["shard_a"])
    assert isinstance(done.failures["shard_b"], OperationalError)
    assert Decision.objects.using("default").filter(committed=True).exists()
    assert recover()["complete"]
    assert not Decision.objects.using("default").exists()


def test_a_block_that_was_given_up_is_rolled_back_everywhere(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """The coordinator sleeps between its last PREPARE and its decision, and a resolver takes it for dead."""
    called: list[int] = []
    insert = two_phase._insert

    def late(cursor: Any, transaction: str, aliases: list[str]) -> None:
        elsewhere(lambda: recovery.resolve_now(min_age=0))
        insert(cursor, transaction, aliases)

    monkeypatch.setattr(two_phase, "_insert", late)
    name = connections["default"].coordinator.name  # type: ignore[attr-defined]
    with (  # noqa: PT012 - the end of the block raises
        pytest.raises(BlockAborted) as raised,
        transaction.atomic(using="default"),
    ):
        transaction.on_commit(lambda: called.append(1))
        Order.objects.create(tenant_id=rows.a, status="left")
        Order.objects.create(tenant_id=rows.b, status="left")
    number = raised.value.transaction
    assert number.startswith(f"{name}.")
    assert str(raised.value) == (
        "This atomic block took so long to commit that it was taken for dead and rolled back everywhere "
        f"(transaction {number}). Repeat it."
    )
    assert (left(rows.a), left(rows.b), called) == (0, 0, [])
    assert not any(connections[alias].in_atomic_block for alias in CLUSTER)


def test_status_names_what_is_in_doubt(rows: Rows, settings: Any) -> None:
    leave_prepared("shard_a", rows.a)
    out = io.StringIO()
    call_command("shards", "status", "--json", stdout=out)
    found = json.loads(out.getvalue())["databases"]
    assert found["shard_a"]["in_doubt"] == 1
    assert found["shard_a"]["oldest_in_doubt"] > 0
    assert (found["shard_b"]["in_doubt"], found["shard_b"]["oldest_in_doubt"]) == (0, None)


@contextmanager
def shorter(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the thread that looks after statements look often, and end: it would go on beside all other tests."""
    over, watch = threading.Event(), background._watch

    def nap(seconds: float) -> None:
        if over.wait(seconds):
            raise SystemExit

    def watch_until_over() -> None:
        with suppress(SystemExit):
            watch()

    monkeypatch.setattr(background, "_watch", watch_until_over)
    change_time(monkeypatch, "sharding.commits.background", sleep=nap)
    monkeypatch.setattr(waiting, "PATIENCE", 0.2)
    monkeypatch.setattr(background, "INTERVAL", 0.1)
    monkeypatch.setattr(background, "allowed", True)
    monkeypatch.setattr(background, "_begun", False)
    yield
    over.set()
    for thread in threading.enumerate():
        if thread.name == "shardkit-waiting":
            thread.join(60)
            assert not thread.is_alive()


def lock_for_ever(alias: str, sql: str, *params: Any) -> None:
    """Leave a transaction that holds a lock as a crashed coordinator does."""
    cluster = cluster_map.uuid()
    assert cluster is not None

    def lock() -> None:
        with connections[alias].cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute(sql, params)
            cursor.execute(f"PREPARE TRANSACTION {Gid(cluster, CRASHED, alias).literal}")

    elsewhere(lock)


def test_a_statement_on_a_joined_database_has_the_way_cleared(
    rows: Rows, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.SHARDING = {**settings.SHARDING, "RECOVER_AFTER": 0.5}
    region = Region.objects.using("plain").create(name="free")
    lock_for_ever("plain", "UPDATE shop_region SET name = 'locked' WHERE id = %s", region.pk)
    with shorter(monkeypatch), sharding.atomic("plain"):
        begun = time.monotonic()
        Region.objects.using("plain").filter(pk=region.pk).update(name="changed")
        assert time.monotonic() - begun < 60
    region.refresh_from_db()
    assert region.name == "changed"


def test_a_statement_that_waits_has_the_way_cleared(rows: Rows, monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    settings.SHARDING = {**settings.SHARDING, "RECOVER_AFTER": 0.5}
    lock_for_ever("shard_a", "UPDATE shop_order SET status = 'locked' WHERE id = %s", rows.order.pk)
    with shorter(monkeypatch):
        connections["shard_a"].close()
        begun = time.monotonic()
        # Without help it would wait for ever.
        Order.objects.filter(pk=rows.order.pk).update(status="free")
        assert time.monotonic() - begun < 60
        assert {thread.name for thread in threading.enumerate()} >= {"shardkit-waiting"}
    assert Order.objects.get(pk=rows.order.pk).status == "free"
