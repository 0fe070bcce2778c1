"""
A process that is killed between two commits leaves its compensations to `shards recover`, and nothing else does.
"""

from __future__ import annotations

import json
import re
import signal
import time

import pytest

from tests.transactions.crashing_project import CrashingProject, crashable, crashing

__all__ = ["crashable", "crashing"]

pytestmark = [pytest.mark.db, pytest.mark.slow]

PATH = "garden.undoing:undo"
ORDER = ["shard_a", "shard_b", "books", "default"]
#: Before which call of which function the process is killed, and how many databases have committed by then.
STEPS = {
    "while the marks are written": ("parts", "write", 2, 0),
    "before the log": ("compensation_log", "write", 1, 0),
    "before the first commit": ("Participant", "commit", 1, 0),
    "before the second commit": ("Participant", "commit", 2, 1),
    "before the third commit": ("Participant", "commit", 3, 2),
    "before the control database's commit": ("DoorTransactions", "commit_own_part", 1, 3),
    "before the log is deleted": ("compensating", "forget", 1, 4),
}


@pytest.mark.parametrize(("owner", "name", "number", "committed"), STEPS.values(), ids=STEPS)
def test_killed(owner: str, name: str, number: int, committed: int, crashing: CrashingProject) -> None:
    crashing.crash(owner, name, number)
    assert crashing.undone() == []
    found = crashing.recover()
    assert crashing.standing() == ORDER[:committed]
    in_part = 0 < committed < len(ORDER)
    assert crashing.undone() == (["second", "first"] if in_part else [])
    assert [each["compensation"] for each in found["called"]] == [PATH] * (2 if in_part else 0)
    assert (found["failed"], found["waiting"], found["failures"]) == ([], {}, {})
    # Nothing is left, and nothing is called again.
    assert crashing.recover() == {"called": [], "failed": [], "waiting": {}, "failures": {}}
    assert len(crashing.undone()) == (2 if in_part else 0)
    assert crashing.left() == []


def test_killed_while_it_compensates(crashing: CrashingProject) -> None:
    """Each is called at least once: the one that was at work is called again."""
    crashing.when("kill_second").touch()
    crashing.crash("Participant", "commit", 2)
    crashing.manage("shards", "recover")
    assert crashing.undone() == ["second"]
    crashing.recover()
    assert crashing.undone() == ["second", "second", "first"]


def test_one_that_fails_stays(crashing: CrashingProject) -> None:
    crashing.when("fail_second").touch()
    crashing.crash("Participant", "commit", 3)
    code, output, errors = crashing.manage("shards", "recover")
    assert code == 1
    assert "CommandError: Compensations are left: 1 failed. Run this again when the cause is mended.\n" in errors
    lines = [re.split(r"\s{2,}", line.strip())[1:] for line in output.splitlines() if PATH in line]
    assert lines == [[PATH, "failed: RuntimeError: second cannot be undone"], [PATH, "called"]]
    [failed] = crashing.recover()["failed"]
    assert (failed["compensation"], failed["error"]) == (PATH, "RuntimeError: second cannot be undone")
    crashing.when("fail_second").unlink()
    assert [each["compensation"] for each in crashing.recover()["called"]] == [PATH]
    assert crashing.undone() == ["second", "first", "second", "second"]
    assert crashing.succeed("shards", "recover") == "Nothing is in doubt.\n"


def test_a_database_that_is_down_lets_them_wait(crashing: CrashingProject) -> None:
    """Only shard_a committed. Without shard_a nobody knows; without shard_b, the books still tell."""
    crashing.crash("Participant", "commit", 2)
    address = dict(crashing.addresses["shard_a"])
    crashing.take_down("shard_a")
    code, _, _ = crashing.manage("shards", "recover")
    assert (code, crashing.undone()) == (1, [])
    crashing.addresses["shard_a"] = address
    crashing.take_down("shard_b")
    crashing.manage("shards", "recover")
    assert crashing.undone() == ["second", "first"]


def test_a_whole_block_stays_whole_while_a_database_is_down(crashing: CrashingProject) -> None:
    """The marks of the others are needed until all have answered."""
    crashing.crash("compensating", "forget")
    address = dict(crashing.addresses["shard_b"])
    crashing.take_down("shard_b")
    crashing.recover()
    crashing.addresses["shard_b"] = address
    crashing.write("databases.json", json.dumps(crashing.addresses))
    assert crashing.recover() == {"called": [], "failed": [], "waiting": {}, "failures": {}}
    assert (crashing.undone(), crashing.standing()) == ([], ORDER)


def test_watching_outlives_a_restart_of_the_servers(crashing: CrashingProject) -> None:
    watching = crashing.start("shards", "recover", "--watch", "0.2", "--json")
    try:
        crashing.crash("Participant", "commit", 2)
        _wait_for(crashing, 2)
        crashing.end_sessions()
        crashing.crash("Participant", "commit", 2)
        _wait_for(crashing, 4)
    finally:
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=60)
    assert crashing.undone() == ["second", "first"] * 2


def _wait_for(crashing: CrashingProject, number: int) -> None:
    deadline = time.monotonic() + 60
    while len(crashing.undone()) < number:
        assert time.monotonic() < deadline, crashing.undone()
        time.sleep(0.1)
