"""
Moves that cannot go on, or not now: rows that the target does not take, writers that do not end, and other wishes.
"""

from __future__ import annotations

import json
import re
import threading
import time
from contextlib import closing

import pytest

from sharding import bucket_of, ids
from sharding.rebalance.phases import Phase, Wanted
from tests.layouts import CLUSTER, SHOP_ONLY, tenant_on
from tests.moving.applications import Rows, rows, session
from tests.moving.ways import as_mover, finish, impatient, once, stop_at, within
from tests.shop.models import Member, Order

pytestmark = [
    pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY),
    pytest.mark.slow,
]


def assert_given_up(scene, before: Rows, error: str) -> None:
    """All is as it was, and the row says why."""
    move = scene.move
    assert (move.phase, move.wanted, move.error) == ("aborted", "abort", error)
    assert rows("shard_a", scene.bucket) == before
    assert rows("shard_b", scene.bucket) == {}
    assert scene.states() == ("owned", None)
    assert scene.leftovers() == {}
    scene.order(5)


def test_a_row_that_the_target_does_not_take(scene):
    Member.objects.create(tenant_id=scene.tenant, email="ada@example.org")
    before = rows("shard_a", scene.bucket)
    [row] = before["shop_member"].values()
    other = tenant_on("shard_b")
    bucket = bucket_of(other, model=Order)
    row = {**row, "id": str(ids.new_uuid(bucket)), "tenant_id": other, "bucket": bucket}
    with session("shard_b") as connection:
        connection.execute(
            "INSERT INTO shop_member SELECT * FROM jsonb_populate_record(NULL::shop_member, %s)", [json.dumps(row)]
        )
    finish(scene)
    assert_given_up(
        scene,
        before,
        "'shard_b' does not take rows of shop_member: shop_member_email_key would be broken (duplicate key value "
        "violates unique constraint \"shop_member_email_key\"). Look at the rows that 'shard_b' has already.",
    )


@pytest.fixture
def meddling(scene):
    """A trigger of somebody's on the target that changes rows."""
    with closing(session("shard_b")) as connection:
        # Autovacuum may be at the table.
        connection.execute("SET lock_timeout = '60s'")
        connection.execute(
            "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN NEW.product := upper(NEW.product); RETURN NEW; END $$"
        )
        connection.execute("CREATE TRIGGER a_meddler BEFORE INSERT ON shop_line FOR EACH ROW EXECUTE FUNCTION meddle()")
        try:
            yield
        finally:
            connection.execute("DROP FUNCTION meddle CASCADE")


def test_a_trigger_that_changes_rows_on_the_target(scene, meddling):
    before = rows("shard_a", scene.bucket)
    keys = sorted(before["shop_line"])
    finish(scene)
    assert_given_up(
        scene,
        before,
        f"Rows of shop_line with keys from {keys[0]} to {keys[-1]} are not on 'shard_b' what was sent there, so they "
        f"were not kept. Look for a trigger on shop_line that changes rows, and compare the types of its columns.",
    )


def test_rows_that_somebody_changes_on_the_target(scene):
    before = rows("shard_a", scene.bucket)

    def damage():
        query = "UPDATE shop_customer SET name = 'somebody else' WHERE bucket = %s"
        assert as_mover("shard_b", scene.bucket, query) == 1

    with once(within("Verify"), damage) as met:
        finish(scene)
    assert met
    error = scene.move.error
    assert error.startswith(f"Bucket {scene.bucket} is not the same on 'shard_a' and 'shard_b': ")
    assert error.endswith(
        "The bucket stays on 'shard_a'. Find out who has written to 'shard_b', a trigger perhaps, and start the "
        "move again."
    )
    assert_given_up(scene, before, error)


@pytest.mark.parametrize("phase", [Phase.CAPTURING, Phase.FENCING])
def test_a_transaction_that_does_not_end(scene, monkeypatch, phase):
    impatient(monkeypatch)
    stop_at(scene, phase)
    with closing(session("shard_a")) as long, closing(session("shard_a")) as short:
        short.execute("SET lock_timeout = '10s'")
        long.execute("BEGIN")
        long.execute("UPDATE shop_customer SET name = 'long' WHERE bucket = %s", [scene.bucket])
        waits, over = [], threading.Event()

        def write():
            while not over.is_set():
                begun = time.monotonic()
                short.execute("UPDATE shop_tag SET label = 'short' WHERE bucket = %s", [scene.bucket])
                waits.append(time.monotonic() - begun)
                time.sleep(0.01)

        writing = threading.Thread(target=write)
        writing.start()
        while not scene.move.error:
            scene.mover().run()
        over.set()
        writing.join()
        assert re.fullmatch("canceling statement due to (lock|statement) timeout", scene.move.error)
        assert scene.states_of("shard_a") == ("owned" if phase == Phase.CAPTURING else "capturing")
        # A barrier waits for 0.4 s at most, and so does who waits for it. One of them may meet a machine that stalls.
        assert len(waits) > 5
        assert sorted(waits)[-2] < 2
        long.execute("COMMIT")
    before = rows("shard_a", scene.bucket)
    finish(scene)
    assert scene.move.phase == "done"
    assert rows("shard_b", scene.bucket) == before
    assert scene.leftovers() == {}


@pytest.mark.parametrize(
    ("phase", "wishes", "heeded", "end"),
    [
        (Phase.COPYING, [Wanted.ABORT, Wanted.ROLLBACK], True, "aborted"),
        (Phase.COPYING, [Wanted.ROLLBACK, Wanted.GO], True, "done"),
        (Phase.COPYING, [Wanted.PAUSE, Wanted.ABORT], True, "aborted"),
        (Phase.DECIDED, [Wanted.ABORT], False, "done"),
        (Phase.WINDOW, [Wanted.ABORT], False, "done"),
        (Phase.WINDOW, [Wanted.ROLLBACK, Wanted.GO], True, "done"),
        (Phase.PURGING, [Wanted.ROLLBACK], False, "done"),
        (Phase.ABORTING, [Wanted.ROLLBACK], False, "aborted"),
        (Phase.ABORTING, [Wanted.PAUSE], True, "aborted"),
    ],
)
def test_wishes(scene, phase, wishes, heeded, end):
    before = rows("shard_a", scene.bucket)
    if phase is Phase.ABORTING:
        stop_at(scene, Phase.COPYING)
        scene.wish(Wanted.ABORT)
    stop_at(scene, phase)
    for wanted in wishes:
        assert scene.wish(wanted) == ([scene.bucket] if heeded else [])
    finish(scene)
    assert scene.move.phase == end
    owner, other = ("shard_b", "shard_a") if end == "done" else ("shard_a", "shard_b")
    assert rows(owner, scene.bucket) == before
    assert rows(other, scene.bucket) == {}
    assert scene.leftovers() == {}
