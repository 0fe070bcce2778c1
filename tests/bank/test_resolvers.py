"""
Resolvers that are killed, that run at the same time, and that meet what is not theirs.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest

from tests.bank import audit
from tests.bank.conftest import Bank
from tests.bank.processes import Client
from tests.bank.shapes import SHAPES
from tests.bank.steps import Fault

pytestmark = [pytest.mark.db, pytest.mark.slow]

#: Where a client is killed, and so what is left to a resolver.
LEFT = {
    "undecided": Fault("INSERT INTO sharding_decision", "before", ("kill",)),
    "decided": Fault("COMMIT PREPARED", "before", ("kill",)),
    "carried out by half": Fault("COMMIT PREPARED", "after", ("kill",)),
}


def _leave(bank: Bank, fault: Fault, *, times: int = 1) -> None:
    for client in [bank.start(*SHAPES["two shards and control"](bank), fault=fault) for _ in range(times)]:
        client.wait()


def _statements(bank: Bank, fault: Fault) -> int:
    _leave(bank, fault)
    return len(bank.clients.resolve().wait().notes("steps")[0][0])


@pytest.mark.parametrize("fault", LEFT.values(), ids=LEFT)
def test_a_resolver_that_is_killed_before_every_statement(fault: Fault, bank: Bank) -> None:
    for number in range(_statements(bank, fault)):
        _leave(bank, fault)
        assert not bank.clients.resolve(fault=Fault(number, "before", ("kill",))).wait().notes("resolved")
        done = bank.resolve()
        assert (done["left"], done["failures"]) == ([], {})
    bank.recover()


@pytest.mark.parametrize("fault", LEFT.values(), ids=LEFT)
def test_a_resolver_that_is_overtaken_before_every_statement(fault: Fault, bank: Bank) -> None:
    for number in range(_statements(bank, fault)):
        _leave(bank, fault)
        slow = bank.clients.resolve(fault=Fault(number, "before", ("stop",))).wait_until_stopped()
        quick = bank.clients.resolve(patience=1).wait()
        slow.go_on().wait()
        # One may have waited in vain for the other one's tombstone.
        done = {**quick.notes("resolved")[0][0]["failures"], **slow.notes("resolved")[0][0]["failures"]}
        assert all("lock timeout" in failure for failure in done.values())
        assert bank.resolve()["failures"] == {}
    bank.recover()


def test_several_resolvers_at_once(bank: Bank) -> None:
    for fault in LEFT.values():
        _leave(bank, fault, times=5)
    done = _all([bank.clients.resolve() for _ in range(4)])
    assert [each["failures"] for each in done] == [{}] * 4
    finished = sorted(chain.from_iterable(each["committed"] + each["rolled_back"] for each in done))
    # Each is finished once: 5 x 2 undecided, 5 x 2 decided, 5 of which only one is left.
    assert (len(finished), len(set(finished))) == (25, 25)
    bank.check()


def _all(resolvers: list[Client]) -> list[dict[str, Any]]:
    return [resolver.wait().notes("resolved")[0][0] for resolver in resolvers]


def test_what_is_not_ours(bank: Bank) -> None:
    """Other programs, other clusters, and names that only look like ours."""
    bank.start(*SHAPES["two shards"](bank), fault=LEFT["undecided"]).wait()
    ours = audit.read(bank.cluster).prepared[0][1]
    _, cluster, transaction, _ = ours.split(":")
    foreign = [
        f"foreign {ours}",
        f"other:{cluster}:{transaction}:shard_a",
        f"shardkit:{'0' * 32}:{transaction}:shard_a",
        f"shardkit:{cluster}:{transaction}",
        f"shardkit:{cluster}:1.1:shard_a",
        f"Shardkit:{cluster}:{transaction}:shard_a",
    ]
    with bank.cluster.connect("shard_a") as connection:
        for gid in foreign:
            connection.execute("BEGIN; SELECT pg_current_xact_id()")
            connection.execute(f"PREPARE TRANSACTION '{gid}'")
        try:
            assert len(bank.resolve()["rolled_back"]) == 2
            found = connection.execute("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()")
            assert sorted(gid for (gid,) in found) == sorted(foreign)
        finally:
            for gid in foreign:
                connection.execute(f"ROLLBACK PREPARED '{gid}'")
    bank.recover()
