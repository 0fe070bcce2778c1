"""What `shards deadlocks` prints, ends and exits with; and in a process of its own."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import OperationalError, connections

from sharding.commits import sessions
from tests.deadlocks.conftest import BOUND, Block, blocks
from tests.deadlocks.waits import hold_and_wait, mark, opposite, stuck
from tests.layouts import SHOP_ONLY

pytestmark = [
    pytest.mark.django_db(databases="__all__", transaction=True, available_apps=SHOP_ONLY),
    pytest.mark.usefixtures("detector_alone"),
]

ROOT = Path(__file__).resolve().parent.parent.parent


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("shards", "deadlocks", *arguments, stdout=out)
    return out.getvalue()


def refused(*arguments: str) -> tuple[str, str]:
    out = io.StringIO()
    with pytest.raises(CommandError) as raised:
        call_command("shards", "deadlocks", *arguments, stdout=out)
    return out.getvalue(), str(raised.value)


def test_the_command_when_nobody_waits(transactional_db):
    assert run() == "Nobody waits for a lock.\n"
    assert json.loads(run("--json")) == {"sound": True, "waits": [], "deadlocks": [], "failures": {}}


def test_the_command_shows_who_waits(orders):
    first, second = Block(mark(orders["shard_a"], "1")), Block(mark(orders["shard_a"], "2"))
    with blocks(first, second):
        first.go()
        second.go(wait=False)
        stuck(second)
        lines = [" ".join(line.split()) for line in run().splitlines()]
        assert lines[0] == "database block waits for seconds statement"
        assert re.fullmatch(rf"shard_a {second.name} {first.name} \d+\.\d UPDATE shop_order", lines[2])
        assert lines[3:] == ["", "No deadlock."]


def test_the_command_shows_and_ends_a_deadlock(orders):
    with blocks(*opposite(orders)) as (older, younger):
        hold_and_wait(older, younger)
        first, second = sorted([(older.name, "shard_b"), (younger.name, "shard_a")])
        circle = f"Deadlock: {first[0]} waits on {first[1]} for {second[0]} waits on {second[1]} for {first[0]}."
        shown, complaint = refused()
        assert shown.splitlines()[-1] == f"{circle} {younger.name} is the youngest."
        assert complaint == "1 deadlock is left. Run `manage.py shards deadlocks --end`, or wait for LOCK_TIMEOUT."
        shown = run("--end")
        assert shown.splitlines()[-1] == f"{circle} {younger.name} was ended."
        younger.end()


def test_the_json_of_a_deadlock(orders):
    with blocks(*opposite(orders)) as (older, younger):
        hold_and_wait(older, younger)
        found = json.loads(refused("--json")[0])
        first, second = sorted([(older.name, "shard_b"), (younger.name, "shard_a")])
        assert found["deadlocks"] == [
            {
                "blocks": [first[0], second[0]],
                "databases": [first[1], second[1]],
                "youngest": younger.name,
                "ended": False,
            }
        ]
        [wait] = [each for each in found["waits"] if each["block"] == younger.name]
        assert wait.pop("seconds") > 0
        assert type(wait.pop("pid")) is type(wait.pop("blocking_pid")) is int
        assert wait == {
            "database": "shard_a",
            "block": younger.name,
            "waits_for": older.name,
            "statement": "UPDATE shop_order",
        }
        assert json.loads(run("--end", "--json"))["deadlocks"][0]["ended"] is True
        younger.end()


def test_a_server_that_is_down_is_named_and_the_others_are_dealt_with(orders, monkeypatch):
    with blocks(*opposite(orders)) as (older, younger):
        hold_and_wait(older, younger)
        monkeypatch.setitem(connections.settings["shard_c"], "PORT", "1")
        shown, complaint = refused("--end")
        assert complaint == "Not every database could be dealt with: shard_c."
        assert "shard_c: connection failed" in shown
        assert isinstance(younger.end(), OperationalError)
        assert older.end() is None


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
def test_watch_needs_a_pause(seconds):
    assert refused("--watch", seconds)[1] == f"--watch must be a positive number of seconds, not {float(seconds)}."


def test_without_postgresql_there_is_nobody_to_ask(monkeypatch):
    monkeypatch.setattr(sessions, "aliases", list)
    assert refused()[1] == "Only PostgreSQL tells who waits for whom, and no database of this project is one."


def test_watch_in_a_process_of_its_own(orders):
    process = subprocess.Popen(
        [sys.executable, "-m", "django", "shards", "deadlocks", "--watch", "0.2", "--end", "--json"],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "SHARDKIT_TEST_URLS": json.dumps(_urls())},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["sound"] is True
        with blocks(*opposite(orders)) as (older, younger):
            # Both may be seen to wait by nobody but the process, which ends one.
            older.go()
            younger.go()
            older.go(wait=False)
            younger.go(wait=False)
            younger._thread.join(BOUND)
            assert isinstance(younger.error, OperationalError)
            assert older.end() is None
        process.send_signal(signal.SIGINT)
        answers = [json.loads(line) for line in process.stdout]
        assert process.wait(BOUND) == 0
    finally:
        process.kill()
        process.communicate()
    # More than once, if the server takes its time to end it.
    assert {each["deadlocks"][0]["youngest"] for each in answers if each["deadlocks"]} == {younger.name}


def _urls() -> dict[str, str]:
    """Return the addresses of the test databases."""
    found = {}
    for alias in connections:
        settings = connections[alias].settings_dict
        account = f"{quote(settings['USER'])}:{quote(settings['PASSWORD'])}"
        found[alias] = f"postgres://{account}@{settings['HOST']}:{settings['PORT']}/{settings['NAME']}"
    return found
