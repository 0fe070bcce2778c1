"""
Transfers among 1,000 accounts by several processes at once, which are killed whenever it pleases chance.
"""

from __future__ import annotations

import random
import time

import pytest

from tests.bank.audit import told
from tests.bank.cluster import SHARDS
from tests.bank.conftest import ACCOUNTS, Bank
from tests.bank.processes import Client

pytestmark = [pytest.mark.db, pytest.mark.slow]

WORKERS = 4
#: More than a client lives for.
TRANSFERS = 10_000


@pytest.mark.parametrize("recovers", [True, False], ids=["and recover", "beside a resolver"])
def test_killed_at_random(recovers: bool, bank: Bank, request: pytest.FixtureRequest) -> None:
    long = request.config.getoption("--long")
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    end = time.monotonic() + (120 if long else 4)
    workers: list[Client] = []
    while time.monotonic() < end:
        while len(workers) < WORKERS:
            workers.append(_hired(bank, chance, recovers=recovers))
        time.sleep(chance.uniform(0.02, 0.4))
        workers.pop(chance.randrange(WORKERS)).kill()
        if long and chance.random() < 0.05:
            bank.cluster.restart(chance.choice(["default", *SHARDS]))
        if not recovers:
            # Young enough to meet coordinators that are still at work, now and then.
            bank.clients.resolve(min_age=chance.choice([0.0, 0.05])).wait()
    for worker in workers:
        worker.kill()
    at_work = list(bank.at_work)
    bank.recover()
    print(f"seed {seed}: " + ", ".join(f"{len(told(at_work, kind))} {kind}" for kind in KINDS))
    assert len(told(at_work, "acknowledged")) > 20


KINDS = ("begun", "acknowledged", "failed", "doubtful", "unknown")


def _hired(bank: Bank, chance: random.Random, *, recovers: bool) -> Client:
    clients = bank.recovering if recovers else bank.clients
    name = f"w{next(bank.numbers)}"
    bank.at_work.append(clients.work(name, seed=chance.randrange(2**32), transfers=TRANSFERS, accounts=ACCOUNTS))
    return bank.at_work[-1]
