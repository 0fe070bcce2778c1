"""Writers beside a bucket that changes hands: every kind of statement, isolation and moment; and no write is lost."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg import errors

from sharding.bucket_states import BucketState
from sharding.fence import barrier
from sharding.fence.functions import SHARD_LOCK
from tests.fence.conftest import BUCKET, OTHER, become
from tests.layouts import CLUSTER, SHOP_ONLY

pytestmark = pytest.mark.django_db(transaction=True, databases=CLUSTER, available_apps=SHOP_ONLY)

INSERT = "INSERT INTO shop_ledger (bucket, tenant_id, number, text) VALUES (%s, 1, %s, 'x')"
LEVELS = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]
#: What ends an attempt to get a barrier: the limit of one lock, or that of all together where time was lost before.
BUSY = (errors.LockNotAvailable, errors.QueryCanceled)


def refused(session: Any, code: str, sql: str, params: Any = None) -> dict[str, Any]:
    with pytest.raises(psycopg.Error) as caught:
        session.execute(sql, params)
    assert caught.value.sqlstate == code
    detail: dict[str, Any] = json.loads(caught.value.diag.message_detail or "{}")
    return detail


def numbers(session: Any) -> list[int]:
    return [number for (number,) in session.execute("SELECT number FROM shop_ledger ORDER BY number").fetchall()]


def noted(session: Any) -> list[tuple[int, str, list[int]]]:
    return list(session.execute("SELECT bucket, table_name, key FROM sharding_dirty ORDER BY seq").fetchall())


@pytest.mark.parametrize("level", LEVELS)
def test_an_early_writer_is_waited_for(admin, connect, level):
    writer = connect()
    writer.execute(f"BEGIN ISOLATION LEVEL {level}")
    writer.execute(INSERT, [BUCKET, 1])
    with pytest.raises(BUSY):
        barrier.behind(admin, BUCKET, lambda cursor: None, waits=(50,))
    writer.execute("COMMIT")
    become(admin, "fenced")
    assert numbers(admin) == [1]


def test_writers_of_each_bucket_are_waited_for(admin, connect):
    for bucket in (BUCKET, OTHER):
        writer = connect()
        writer.execute("BEGIN")
        writer.execute(INSERT, [bucket, 1])
        with pytest.raises(BUSY):
            barrier.behind(admin, {BUCKET, OTHER}, lambda cursor: None, waits=(50,))
        writer.execute("ROLLBACK")
    assert barrier.behind(admin, {BUCKET, OTHER}, _limits) == ("1min", "2min")


def _limits(cursor):
    return cursor.execute("SELECT current_setting('lock_timeout'), current_setting('statement_timeout')").fetchone()


def test_a_barrier_gives_way_to_whoever_has_one_bucket_and_wants_another(admin, connect):
    """It has the lower one, and waits for the higher one."""
    writer = connect()
    lower, higher = sorted((BUCKET, OTHER))
    writer.execute("BEGIN")
    writer.execute(INSERT, [higher, 1])
    with ThreadPoolExecutor(1) as pool:
        # As often as it takes until the writer was seen to go on.
        waiting = pool.submit(barrier.behind, admin, [higher, lower], lambda cursor: "had both", waits=(400,) * 100)
        _wait_for_lock(connect())
        writer.execute(INSERT, [lower, 2])
        writer.execute("COMMIT")
        assert waiting.result() == "had both"
    assert numbers(admin) == [1, 2]


def test_of_several_buckets_all_change_or_none_counts(admin, connect):
    become(admin, "moved", bucket=OTHER)
    change = lambda states, new: barrier.behind(  # noqa: E731
        admin, [BUCKET, OTHER], lambda cursor: barrier.change(cursor, [BUCKET, OTHER], 1, states, new)
    )
    assert not change({BucketState.OWNED}, BucketState.FENCED)
    assert not change({BucketState.MOVED}, None)
    assert not change({None, BucketState.CAPTURING}, BucketState.IMPORTING)
    assert change({*BucketState, None}, BucketState.IMPORTING)
    assert change({BucketState.IMPORTING}, None)
    assert change({BucketState.IMPORTING, None}, None)
    assert change({None}, BucketState.IMPORTING)


def test_a_late_writer_reads_the_state_after_the_lock(admin, connect):
    """With a function that is STABLE, the state would be that of the statement's beginning: a lost write."""
    writer = connect()
    with ThreadPoolExecutor(1) as pool:
        with admin.transaction(), admin.cursor() as cursor:
            barrier.lock(cursor, BUCKET)
            waiting = pool.submit(refused, writer, "SH002", INSERT, [BUCKET, 1])
            _wait_for_lock(connect())
            assert barrier.change(cursor, BUCKET, 1, {BucketState.OWNED}, BucketState.FENCED)
        assert waiting.result()["state"] == "fenced"
    assert numbers(admin) == []


@pytest.mark.parametrize("level", LEVELS[1:])
@pytest.mark.parametrize("buckets", [1, 100])
def test_a_writer_with_an_older_snapshot_fails_to_serialize(admin, connect, level, buckets):
    """However many buckets its statement writes: many are looked at together."""
    insert = (
        "INSERT INTO shop_ledger (bucket, tenant_id, number, text) "
        f"SELECT {BUCKET} + b, 1, b, '' FROM generate_series(0, {buckets - 1}) AS b"
    )
    writer = connect()
    writer.execute(f"BEGIN ISOLATION LEVEL {level}")
    writer.execute("SELECT 1 FROM shop_ledger")
    become(admin, "fenced")
    with pytest.raises(errors.SerializationFailure):
        writer.execute(insert)
    writer.execute("ROLLBACK")
    refused(writer, "SH002", insert)


def test_what_an_error_says(admin, connect):
    become(admin, "moved")
    with pytest.raises(psycopg.Error) as caught:
        connect().execute(INSERT, [BUCKET, 1])
    diag = caught.value.diag
    assert diag.message_primary == (
        "Bucket 7 has moved from this database to 'shard_b', so no row of it is written to shop_ledger here."
    )
    assert json.loads(diag.message_detail or "") == {
        "bucket": 7,
        "state": "moved",
        "epoch": 5,
        "forward": "shard_b",
        "table": "shop_ledger",
    }


@pytest.mark.parametrize(
    ("state", "code"), [("moved", "SH001"), ("fenced", "SH002"), ("importing", "SH003"), (None, "SH003")]
)
@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO shop_ledger (bucket, tenant_id, number, text) VALUES (7, 1, 5, 'x')",
        "INSERT INTO shop_ledger (bucket, tenant_id, number, text) VALUES (7, 1, 1, 'x') "
        "ON CONFLICT (tenant_id, number) DO UPDATE SET text = 'y'",
        "UPDATE shop_ledger SET text = 'y' WHERE number = 1",
        "UPDATE shop_ledger SET bucket = 8 WHERE number = 1",
        "UPDATE shop_ledger SET bucket = 7 WHERE number = 2",
        "DELETE FROM shop_ledger WHERE number = 1",
        "MERGE INTO shop_ledger AS l USING (SELECT 1 AS number) AS n ON l.number = n.number "
        "WHEN MATCHED THEN UPDATE SET text = 'y'",
    ],
    ids=["insert", "upsert", "update", "out of", "into", "delete", "merge"],
)
def test_every_statement_is_refused(admin, connect, state, code, sql):
    admin.execute(INSERT, [BUCKET, 1])
    admin.execute(INSERT, [OTHER, 2])
    become(admin, state or "moved")
    if state is None:
        admin.execute("DELETE FROM sharding_fence WHERE bucket = 7")
    detail = refused(connect(), code, sql)
    assert (detail["bucket"], detail["state"]) == (7, state)
    connect().execute("UPDATE shop_ledger SET text = 'z' WHERE number = 2")


def copied(session: Any, *rows: tuple[Any, ...]) -> None:
    columns = "bucket, tenant_id, number, text"
    with session.cursor() as cursor, cursor.copy(f"COPY shop_ledger ({columns}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def test_copy_is_refused(admin, connect):
    become(admin, "moved")
    with pytest.raises(psycopg.Error) as caught:
        copied(connect(), (OTHER, 1, 1, "x"), (BUCKET, 1, 2, "x"))
    assert caught.value.sqlstate == "SH001"


@pytest.mark.parametrize(
    ("state", "is_allowed"),
    [("owned", True), ("moved", True), ("capturing", False), ("fenced", False), ("importing", False)],
)
def test_truncate_is_refused_while_a_bucket_moves(admin, connect, state, is_allowed):
    become(admin, state)
    if is_allowed:
        connect().execute("TRUNCATE shop_ledger")
    else:
        assert refused(connect(), "SH006", "TRUNCATE shop_ledger")["state"] == state


def test_truncate_with_an_older_snapshot_fails_to_serialize(admin, connect):
    writer = connect()
    writer.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    writer.execute("SELECT 1 FROM shop_entry")
    admin.execute("DELETE FROM sharding_fence WHERE bucket = 7")
    become(admin, "importing")
    with pytest.raises(errors.SerializationFailure):
        writer.execute("TRUNCATE shop_ledger")


def test_a_savepoint_gives_back_the_lock_and_the_memory_of_it(admin, connect):
    writer = connect()
    writer.execute("BEGIN")
    writer.execute(INSERT, [OTHER, 1])
    writer.execute("SAVEPOINT s")
    writer.execute(INSERT, [BUCKET, 2])
    writer.execute(INSERT, [BUCKET, 3])
    writer.execute("ROLLBACK TO s")
    become(admin, "fenced")
    assert refused(writer, "SH002", INSERT, [BUCKET, 2])["bucket"] == BUCKET


def test_a_savepoint_that_is_released_keeps_the_lock(admin, connect):
    writer = connect()
    writer.execute("BEGIN")
    writer.execute("SAVEPOINT s")
    writer.execute(INSERT, [BUCKET, 2])
    writer.execute("RELEASE s")
    with pytest.raises(BUSY):
        barrier.behind(admin, BUCKET, lambda cursor: None, waits=(50,))


def test_a_prepared_transaction_keeps_the_lock(admin, connect):
    writer = connect()
    writer.execute("BEGIN")
    writer.execute(INSERT, [BUCKET, 1])
    name = f"fence test {writer.info.dbname}"
    writer.execute(f"PREPARE TRANSACTION '{name}'")
    try:
        with pytest.raises(BUSY):
            barrier.behind(admin, BUCKET, lambda cursor: None, waits=(50,))
    finally:
        writer.execute(f"COMMIT PREPARED '{name}'")
    become(admin, "fenced")


def test_a_transaction_that_changes_the_fence_itself_forgets_what_it_has_checked(admin, connect):
    writer = connect()
    writer.execute("BEGIN")
    writer.execute(INSERT, [BUCKET, 1])
    writer.execute(INSERT, [BUCKET, 2])
    writer.execute("UPDATE sharding_fence SET state = 'fenced' WHERE bucket = 7")
    refused(writer, "SH002", INSERT, [BUCKET, 3])


def test_keys_are_noted_while_a_bucket_is_copied(admin, connect):
    admin.execute(INSERT, [BUCKET, 1])
    admin.execute(INSERT, [OTHER, 2])
    become(admin, "capturing")
    writer = connect()
    writer.execute("BEGIN")
    writer.execute(INSERT, [BUCKET, 3])
    writer.execute(INSERT, [BUCKET, 4])
    writer.execute("UPDATE shop_ledger SET text = 'y' WHERE number IN (1, 2)")
    writer.execute("UPDATE shop_ledger SET number = 9 WHERE number = 4")
    writer.execute("DELETE FROM shop_ledger WHERE number = 3")
    copied(writer, (BUCKET, 1, 11, "x"), (BUCKET, 1, 12, "x"))
    writer.execute("SAVEPOINT s")
    writer.execute(INSERT, [BUCKET, 13])
    writer.execute("ROLLBACK TO s")
    writer.execute("COMMIT")
    found = noted(admin)
    assert {(bucket, table) for bucket, table, _ in found} == {(BUCKET, "shop_ledger")}
    assert {tuple(key) for *_, key in found} == {(1, number) for number in (1, 3, 4, 9, 11, 12)}


def test_nothing_is_noted_of_a_bucket_that_is_owned(admin, connect):
    connect().execute(INSERT, [BUCKET, 1])
    assert noted(admin) == []


def test_a_mover_writes_what_is_its_own(admin, connect):
    become(admin, "importing", generation=4)
    mover = connect()
    with mover.transaction():
        mover.execute("SET LOCAL sharding.mover = '4'")
        mover.execute(INSERT, [BUCKET, 1])
        mover.execute(INSERT, [BUCKET, 2])
    assert numbers(admin) == [1, 2]
    refused(mover, "SH003", INSERT, [BUCKET, 3])


@pytest.mark.parametrize(
    ("generation", "bucket"), [("3", BUCKET), ("5", BUCKET), ("x", BUCKET), ("4", OTHER), ("0", OTHER)]
)
def test_a_mover_of_another_attempt_or_bucket_is_refused(admin, connect, generation, bucket):
    become(admin, "importing", generation=4)
    mover = connect()
    mover.execute("BEGIN")
    mover.execute("SELECT set_config('sharding.mover', %s, true)", [generation])
    assert refused(mover, "SH005", INSERT, [bucket, 1])["bucket"] == bucket


def test_a_mover_keeps_the_next_attempt_waiting(admin, connect):
    become(admin, "importing", generation=4)
    mover = connect()
    mover.execute("BEGIN; SET LOCAL sharding.mover = '4'")
    mover.execute(INSERT, [BUCKET, 1])
    admin.execute("SET lock_timeout = '50ms'")
    with pytest.raises(errors.LockNotAvailable):
        admin.execute("UPDATE sharding_fence SET generation = 5 WHERE bucket = 7")
    mover.execute("COMMIT")
    admin.execute("UPDATE sharding_fence SET generation = 5 WHERE bucket = 7")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("at_once", [True, False], ids=["one statement", "many statements"])
def test_many_buckets_take_few_locks_and_are_waited_for(admin, connect, form, level, at_once):
    writer = connect()
    writer.execute(f"BEGIN ISOLATION LEVEL {level}")
    if at_once:
        writer.execute(
            "INSERT INTO shop_ledger (bucket, tenant_id, number, text) "
            "SELECT b, 1, b, '' FROM generate_series(0, 999) b"
        )
    else:
        for bucket in range(200):
            writer.execute(INSERT, [bucket, bucket])
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
    # Triggers of statements know of all of them, and take the shard's lock at once.
    assert writer.execute(held).fetchone()[0] <= (1 if at_once and form == "statement" else 67)
    last = 999 if at_once else 199
    with pytest.raises(BUSY):
        barrier.behind(admin, last, lambda cursor: None, waits=(50,))
    writer.execute("COMMIT")
    become(admin, "fenced", bucket=last)
    refused(writer, "SH002", "UPDATE shop_ledger SET text = 'late'")
    writer.execute("UPDATE shop_ledger SET text = 'late' WHERE bucket < %s", [last])


def test_the_lock_of_the_shard_does_for_every_bucket_after_it(admin, connect, form):
    """A bucket's lock, taken after it, would be in the way of a barrier that has it and waits for the shard's."""
    become(admin, "capturing")
    writer = connect()
    writer.execute("BEGIN")
    writer.execute(
        "INSERT INTO shop_ledger (bucket, tenant_id, number, text) SELECT b, 1, b, '' FROM generate_series(0, 99) b"
    )
    held = "SELECT classid, objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() ORDER BY 1, 2"
    locks = writer.execute(held).fetchall()
    assert locks[-1] == (SHARD_LOCK, 0)
    assert len(locks) <= (67 if form == "row" else 1)
    writer.execute(INSERT, [200, 200])
    writer.execute("UPDATE shop_ledger SET text = 'x' WHERE number = 99")
    assert writer.execute(held).fetchall() == locks


def test_beyond_the_list_what_was_checked_is_forgotten_just_the_same(admin, connect):
    writer = connect()
    writer.execute("BEGIN")
    for bucket in range(1000, 1100):
        writer.execute(INSERT, [bucket, bucket])
    remembered = "SELECT current_setting('sharding.checked_more')"
    before = writer.execute(remembered).fetchone()
    writer.execute("SAVEPOINT s")
    writer.execute(INSERT, [BUCKET, 1])
    assert writer.execute(remembered).fetchone() != before
    writer.execute("ROLLBACK TO s")
    assert writer.execute(remembered).fetchone() == before
    writer.execute(INSERT, [BUCKET, 1])
    writer.execute("UPDATE sharding_fence SET state = 'fenced' WHERE bucket = 7")
    writer.execute("SAVEPOINT s")
    refused(writer, "SH002", INSERT, [BUCKET, 2])
    writer.execute("ROLLBACK TO s")
    # With a new list, the old bits count no more.
    writer.execute(INSERT, [OTHER, 2])
    refused(writer, "SH002", INSERT, [BUCKET, 3])


@pytest.mark.parametrize("bucket", [-1, 4096, 32767])
def test_a_bucket_that_there_is_not_is_refused_beyond_the_list_too(admin, connect, bucket):
    writer = connect()
    writer.execute("BEGIN")
    for each in range(100):
        writer.execute(INSERT, [each, each])
    assert refused(writer, "SH003", INSERT, [bucket, 100])["bucket"] == bucket


def test_a_barrier_compares_the_generation_and_the_state(admin):
    become(admin, "fenced", generation=4)
    owned, fenced = {BucketState.OWNED}, {BucketState.FENCED}

    def change(generation: int, expected: Any, new: Any) -> bool:
        return barrier.behind(admin, BUCKET, lambda cursor: barrier.change(cursor, BUCKET, generation, expected, new))

    assert not change(3, fenced, BucketState.CAPTURING)
    assert not change(4, owned, BucketState.CAPTURING)
    assert not change(4, {None}, BucketState.IMPORTING)
    assert change(5, fenced, BucketState.CAPTURING)
    assert not change(4, {BucketState.CAPTURING}, None)
    assert change(5, {BucketState.CAPTURING}, None)
    assert change(5, {None}, None)
    assert change(6, {None}, BucketState.IMPORTING)


def _wait_for_lock(session: Any) -> None:
    # Other runs have databases of their own on the server.
    waiting = (
        "SELECT count(*) FROM pg_locks JOIN pg_database AS d ON d.oid = database "
        "WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"
    )
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if session.execute(waiting).fetchone()[0]:
            return
        session.execute("SELECT pg_sleep(0.01)")
    raise AssertionError("Nobody waits for an advisory lock.")
