"""
A client of the bank: ``python -m tests.bank.client`` forks a process for each job, a line of JSON, and prints its pid.

A job names what to do and the file in which its outcome is noted, line by line, as it becomes known. What is written
before a SIGKILL stays, since the file belongs to the system.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import django

from tests.bank.steps import Fault, Steps


class Outcome:
    """The file to which a job appends what has become of it."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, *words: object) -> None:
        os.write(self._file, (json.dumps(words) + "\n").encode())


def transfers(job: dict[str, Any], outcome: Outcome) -> None:
    """Do transfers, one after the other; acknowledge each one whose block has returned."""
    from tests.bank.transfers import Transfer

    steps = _steps(job)
    for each in job["transfers"]:
        _transfer(Transfer.from_dict(each), outcome, steps)
    outcome.note("steps", steps.sent)
    # Its threads may have something left to finish.
    time.sleep(job["stay"])


def _transfer(transfer: Any, outcome: Outcome, steps: Steps) -> None:
    from django.db import Error, OperationalError

    from sharding.errors import CommitInDoubt, ShardingError
    from tests.bank.transfers import carry_out

    outcome.note("begun", transfer.id)
    try:
        carry_out(transfer, on_commit=lambda: outcome.note("called", transfer.id), last=steps.begin)
    except CommitInDoubt as error:
        outcome.note("doubtful", transfer.id, str(error))
    except (Error, ShardingError) as error:
        # A lost answer to the plain COMMIT of one database tells nobody whether it was done.
        is_unknown = isinstance(error, OperationalError) and transfer.is_on_one_database()
        outcome.note("unknown" if is_unknown else "failed", transfer.id, type(error).__name__, str(error))
    else:
        outcome.note("acknowledged", transfer.id)
    steps.end()


def work(job: dict[str, Any], outcome: Outcome) -> None:
    """Do random transfers among all accounts until there are enough of them, or this process is killed."""
    from tests.bank.transfers import random_transfer

    rng = random.Random(job["seed"])
    steps = Steps()
    for number in range(job["transfers"]):
        _transfer(random_transfer(rng, f"{job['name']}.{number}", job["accounts"]), outcome, steps)


def resolve(job: dict[str, Any], outcome: Outcome) -> None:
    """Let the resolver look at every database once."""
    from sharding.commits import decisions, recovery

    decisions.PATIENCE = job["patience"]
    steps = _steps(job)
    steps.begin()
    done = recovery.resolve_now(min_age=job["min_age"])
    steps.end()
    outcome.note(
        "resolved",
        {
            "committed": [str(each.gid) for each in done.committed],
            "rolled_back": [str(each.gid) for each in done.rolled_back],
            "left": [str(each.gid) for each in done.left],
            "failures": {alias: str(error) for alias, error in done.failures.items()},
        },
    )
    outcome.note("steps", steps.sent)


def open_accounts(job: dict[str, Any], outcome: Outcome) -> None:
    """Make the accounts, and tell where each of them lives."""
    from django.core.management import call_command

    from sharding import shard_of
    from tests.bank.models import Account

    call_command("migrate_all", verbosity=0)
    call_command("shards", "init", verbosity=0)
    numbers = range(job["accounts"])
    Account.objects.bulk_create([Account(number=number, balance=job["balance"]) for number in numbers])
    outcome.note("opened", [shard_of(number, model=Account) for number in numbers])


JOBS: dict[str, Callable[[dict[str, Any], Outcome], None]] = {
    each.__name__: each for each in (transfers, work, resolve, open_accounts)
}


def _steps(job: dict[str, Any]) -> Steps:
    fault = job["fault"]
    return Steps(Fault(fault["at"], fault["when"], tuple(fault["acts"])) if fault else None)


def main() -> None:
    django.setup()
    _warm_up()
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os._exit(_run(job))
        print(pid, flush=True)
        _bury()


def _warm_up() -> None:
    """Import what every fork needs, and read the bucket map, if there is one."""
    from django.db import connections

    import tests.bank.models
    import tests.bank.transfers  # noqa: F401
    from sharding import cluster_map
    from sharding.commits import decisions
    from sharding.errors import MapMissing

    # So that few blocks suffice.
    decisions.BATCH = 1
    with suppress(MapMissing):
        cluster_map.refresh()
    connections.close_all()


def _run(job: dict[str, Any]) -> int:
    outcome = Outcome(job["outcome"])
    try:
        JOBS[job["job"]](job, outcome)
    except BaseException:
        outcome.note("crashed", traceback.format_exc())
        return 1
    outcome.note("finished")
    return 0


def _bury() -> None:
    """Let those that have ended go."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


if __name__ == "__main__":
    main()
