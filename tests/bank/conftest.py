"""The bank: servers of its own with 1,000 accounts, and clients. SQLite has no servers to kill."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count, cycle
from pathlib import Path
from typing import Any

import pytest

from tests import servers
from tests.bank import audit, cluster
from tests.bank.audit import BALANCE, Books
from tests.bank.cluster import SHARDS, BankCluster
from tests.bank.processes import Client, Clients
from tests.bank.shapes import SHAPES
from tests.bank.steps import Fault
from tests.bank.transfers import Transfer

ACCOUNTS = 1_000
#: How many clients run at a time.
TOGETHER = 4

collect_ignore_glob = [] if servers.engine == "postgresql" else ["test_*.py"]


@dataclass
class Bank:
    """The bank as tests use it."""

    cluster: BankCluster
    clients: Clients
    #: Those whose processes recover by themselves, as an application's do.
    recovering: Clients
    #: By shard, its accounts, for ever in turn.
    accounts: dict[str, Any]
    #: Those whose outcome the next audit looks at.
    at_work: list[Client] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.numbers = count()

    def transfer(self, *shards: str, reads: Iterable[str] = (), **options: Any) -> Transfer:
        """Return a transfer among one account of each shard, from the first to the others."""
        numbers = [next(self.accounts[shard]) for shard in shards]
        legs = ((numbers[0], 1 - len(numbers)), *((number, 1) for number in numbers[1:]))
        read = tuple(next(self.accounts[shard]) for shard in reads)
        return Transfer(f"t{next(self.numbers)}", legs, reads=read, **options)

    def start(self, *transfers: Transfer, **options: Any) -> Client:
        self.at_work.append(self.clients.transfers(transfers, **options))
        return self.at_work[-1]

    def undisturbed(self, shape: str) -> list[str]:
        """Return what the commits of a shape send when nobody disturbs them."""
        return list(self.start(*SHAPES[shape](self)).wait().notes("steps")[-1][0])

    def run(self, cases: Iterable[tuple[str, Fault]]) -> list[Client]:
        """Return a client for each shape and fault, a few at a time, that has ended in whatever way."""
        clients: list[Client] = []
        for number, (shape, fault) in enumerate(cases):
            if number >= TOGETHER:
                clients[number - TOGETHER].wait()
            clients.append(self.start(*SHAPES[shape](self), fault=fault))
        return [client.wait() for client in clients]

    def stopped(self, shape: str) -> list[Client]:
        """Return clients that are stopped, one before each statement of the commits of a shape."""
        faults = [Fault(number, "before", ("stop",)) for number in range(len(self.undisturbed(shape)))]
        clients = [self.start(*SHAPES[shape](self), fault=fault) for fault in faults]
        return [client.wait_until_stopped() for client in clients]

    def resolve(self, **options: Any) -> dict[str, Any]:
        """Let a resolver look at every database once, and return what it has done."""
        ((done,),) = self.clients.resolve(**options).wait().notes("resolved")
        return dict(done)

    def recover(self) -> Books:
        """Let the clients end, recover, check, and return the books."""
        for client in self.at_work:
            client.wait()
        audit.await_silence(self.cluster)
        done = self.resolve()
        assert (done["left"], done["failures"]) == ([], {})
        return self.check()

    def check(self) -> Books:
        """Check the books as they are, against what the clients noted since the last time."""
        books = audit.read(self.cluster)
        audit.check(books, self.at_work)
        self.at_work.clear()
        return books


@pytest.fixture(scope="session")
def _bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    with cluster.running() as own:
        folder: Path = tmp_path_factory.mktemp("bank")
        accounts = _opened(Clients(own.databases(), folder))
        # Those of another process, which has read the bucket map before it forks.
        clients = Clients(own.databases(), tmp_path_factory.mktemp("clients"))
        recovering = Clients(own.databases(), tmp_path_factory.mktemp("recovering"), {"RECOVER_IN_PROCESS": True})
        try:
            yield Bank(own, clients, recovering, accounts)
        finally:
            clients.close()
            recovering.close()


def _opened(clients: Clients) -> dict[str, Any]:
    try:
        ((homes,),) = clients.open_accounts(ACCOUNTS, BALANCE).wait().notes("opened")
    finally:
        clients.close()
    return {shard: cycle([n for n, home in enumerate(homes) if home == shard]) for shard in SHARDS}


@pytest.fixture
def bank(_bank: Bank) -> Iterator[Bank]:
    """The bank; after each test its books are in order."""
    yield _bank
    for client in _bank.at_work:
        client.kill()
    _bank.recover()
