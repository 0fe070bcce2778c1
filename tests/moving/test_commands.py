"""The commands that move buckets: what they do to real shards, and what they print."""

from __future__ import annotations

import io
import json
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connections

from sharding import cluster_map
from sharding.bucket_states import BucketState
from sharding.models import Fence, Move
from sharding.rebalance import plan_file
from sharding.rebalance.phases import Phase
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.moving.scenes import Scene, fenced_cluster, plan_of
from tests.moving.ways import impatient, once, set_state, within

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)


def run(*arguments):
    """Return what the command prints."""
    out = io.StringIO()
    call_command("rebalance", *arguments, stdout=out)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def refused(*arguments):
    with pytest.raises(CommandError) as raised:
        run(*arguments)
    return str(raised.value)


@pytest.fixture
def unplanned(transactional_db):
    with fenced_cluster():
        yield Scene("shard_a", "shard_b")


@pytest.fixture
def file(unplanned, tmp_path):
    path = tmp_path / "plan.json"
    plan_file.write(plan_of(cluster_map.refresh(), (unplanned.bucket, "shard_b")), path)
    return str(path)


def test_a_plan_is_applied_and_taken_back(unplanned, file):
    before = unplanned.rows("shard_a")
    printed = run("apply", "--plan", file, "--jobs", "1")
    assert re.sub(r"\d+ ms", "… ms", printed) == (
        f"Bucket {unplanned.bucket}: shard_a -> shard_b, 11 rows copied, closed for … ms.\n"
        "━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━  1 of 1 buckets have changed hands\n"
        "\n"
        "from      to        window   rows\n"
        "─────────────────────────────────\n"
        "shard_a   shard_b        1     11\n"
        "\n"
        "Closed to writes while it changed hands: … ms.\n"
        "\n"
        "The moves in their window can be taken back with `manage.py rebalance rollback`. Run `manage.py rebalance "
        "apply` again afterwards: it deletes the rows that are left on the former owners."
    )
    assert unplanned.rows("shard_b") == before
    verified = json.loads(run("verify", "--json"))
    assert [(each["when"], each["sound"], each["report"]["rows"]) for each in verified] == [("now", True, 11)]
    cluster_map.refresh()
    unplanned.order(8)
    assert json.loads(run("verify", "--json"))[0]["report"]["pending"] == 3
    after = unplanned.rows("shard_b")
    assert run("rollback") == (
        "1 move will be taken back, with what was written since. "
        "Run `manage.py rebalance apply` if no mover is at work."
    )
    data = json.loads(run("apply", "--end-windows", "--to-the-end", "--json"))
    assert data["stages"] == {"done": 2}
    assert data["over"]
    assert unplanned.rows("shard_a") == after
    assert unplanned.rows("shard_b") == {}
    assert run("cleanup") == "Moves have left nothing."


def test_pause_and_resume_and_abort(unplanned, file):
    scene = unplanned
    scene.plan()
    assert run("pause").startswith("1 move will pause.")
    run("apply")
    assert scene.move.phase == "planned"
    assert "1 of 1" not in run("status")
    assert run("resume", "--bucket", str(scene.bucket)).startswith("1 move will go on.")
    assert run("abort", "--json") == json.dumps({"wanted": "abort", "buckets": [scene.bucket]}, indent=2)
    run("apply")
    assert scene.move.phase == "aborted"
    assert run("pause") == "No move is there to pause: all are over, or to be given up or taken back."
    assert run("abort") == (
        "No move is there to give up: all are over, or their buckets have changed hands. `manage.py rebalance "
        "rollback` takes those back whose window is open."
    )
    assert refused("status", "--watch", "0") == "--watch must be a positive number of seconds, not 0.0."
    assert refused("apply") == (
        "No moves are under way. Make a plan with `manage.py rebalance plan --output plan.json`, and give it to --plan."
    )


def test_a_bucket_that_does_not_exist_has_no_moves(unplanned):
    unplanned.plan()
    assert run("verify", "--bucket", "70000") == "There is nothing to compare: no move has copied rows."
    assert run("resume", "--bucket", "70000").startswith("No move is there to go on with")


def test_the_output_is_json_also_if_it_was_stopped(unplanned):
    unplanned.plan()
    err = io.StringIO()
    with once(within("Copy"), lambda: os.kill(os.getpid(), signal.SIGINT)) as met:
        out = io.StringIO()
        with pytest.raises(CommandError) as caught:
            call_command("rebalance", "apply", "--json", stdout=out, stderr=err)
    assert met
    assert str(caught.value) == "Stopped while 1 of 1 moves had not ended. `manage.py rebalance apply` goes on."
    assert caught.value.returncode == 130
    assert json.loads(out.getvalue())["moves"][0]["bucket"] == unplanned.bucket
    assert "Stopping as soon as each move may rest." in err.getvalue()
    assert unplanned.move.phase == Phase.COPYING
    assert not unplanned.move.error


def test_the_command_can_be_called_in_a_thread(unplanned):
    unplanned.plan()

    def apply():
        run("apply")
        connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(apply).result()
    assert unplanned.move.phase == Phase.WINDOW


@pytest.mark.parametrize("wish", ["abort", "rollback"])
def test_a_wish_for_all_moves_takes_back_no_abort(unplanned, wish):
    """Nobody who lets other moves rest and go on means those that are to be given up."""
    unplanned.plan()
    run(wish)
    assert run("pause") == "No move is there to pause: all are over, or to be given up or taken back."
    assert unplanned.move.wanted == wish
    Move.objects.using("default").update(retry_at="2999-01-01T00:00Z")
    assert run("resume").startswith("1 move will go on.")
    assert (unplanned.move.wanted, unplanned.move.retry_at) == (wish, None)
    assert run("resume", "--bucket", str(unplanned.bucket)).startswith("1 move will go on.")
    assert unplanned.move.wanted == "go"


@pytest.fixture
def _surplus(unplanned):
    """A column that one shard has and the other has not."""
    with connections["shard_b"].cursor() as cursor:
        cursor.execute("ALTER TABLE shop_line ADD COLUMN surplus integer")
    yield
    with connections["shard_b"].cursor() as cursor:
        cursor.execute("ALTER TABLE shop_line DROP COLUMN surplus")


@pytest.mark.usefixtures("_surplus")
def test_nothing_begins_that_could_not_end(file):
    message = refused("apply", "--plan", file)
    assert message.startswith("No move was begun, because of what was found before: ")
    assert "shop_line has a column surplus on 'shard_b', and none on 'shard_a'." in message
    assert not Move.objects.using("default").exists()


@pytest.mark.usefixtures("_surplus")
def test_what_has_failed_is_told(unplanned):
    unplanned.plan()
    assert refused("apply") == "1 of 1 moves have failed."
    move = Move.objects.using("default").get()
    assert move.phase == Phase.ABORTED
    assert "shop_line has a column surplus on 'shard_b', and none on 'shard_a'." in move.error
    assert f"Bucket {unplanned.bucket}, shard_a -> shard_b, was given up: The tables of" in run("status")


def test_what_has_failed_and_gone_on_since_is_no_failure(unplanned, monkeypatch):
    impatient(monkeypatch)
    unplanned.plan()

    def fail():
        raise psycopg.OperationalError("The server is gone.")

    with once(within("Copy"), fail) as met:
        run("apply")
    assert met
    assert (unplanned.move.phase, unplanned.move.error) == (Phase.WINDOW, "The server is gone.")
    assert "gone" not in run("status")


def test_leftovers_are_found_and_taken_away(unplanned):
    Fence.objects.using("shard_b").create(bucket=unplanned.bucket, state="importing", epoch=1, generation=1, mark=0)
    assert [line.split() for line in run("cleanup").splitlines()[2:3]] == [
        ["shard_b", str(unplanned.bucket), "rows", "the", "bucket", "is", "importing", "left"]
    ]
    found = json.loads(run("cleanup", "--apply", "--json"))
    assert found["cleaned"] == found["found"]
    assert unplanned.states() == ("owned", None)


def test_cleanup_leaves_what_the_owner_hides(unplanned):
    """Its fence is of another day than the map: `shards certify` asks whether these rows are all there is."""
    before = unplanned.rows("shard_a")
    set_state("shard_a", unplanned.bucket, BucketState.MOVED)
    try:
        assert run("cleanup", "--apply") == "Moves have left nothing."
        assert unplanned.rows("shard_a") == before
        assert unplanned.states() == ("moved", None)
    finally:
        set_state("shard_a", unplanned.bucket, BucketState.OWNED)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--jobs", "0"], "--jobs is a number of 1 or more, not 0."),
        (["--together", "9"], "--together is a number of 1 to 8, not 9."),
        (["--share", "1.5"], "--share is more than 0 and at most 1, not 1.5."),
        (["--window", "-1"], "--window is a number of seconds from 0 to 1,000,000,000, not -1."),
        (["--window", "inf"], "--window is a number of seconds from 0 to 1,000,000,000, not inf."),
        (["--window", "nan"], "--window is a number of seconds from 0 to 1,000,000,000, not nan."),
        (["--rows-per-second", "0"], "--rows-per-second is more than 0, not 0."),
    ],
)
def test_wrong_options(unplanned, file, arguments, message):
    assert refused("apply", "--plan", file, *arguments) == message
    assert not Move.objects.using("default").exists()
