"""
What must hold once recovery is through, asked with plain SQL: no half transfer, no wrong balance, nothing in doubt.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.bank.cluster import ALIASES, NAME, SHARDS, BankCluster
from tests.bank.processes import Client, await_true

BALANCE = 1_000


@dataclass
class Books:
    """What all databases hold."""

    #: By account: its balance, and the sum of its entries.
    balances: dict[int, int] = field(default_factory=dict)
    sums: Counter[int] = field(default_factory=Counter)
    #: By transfer: (amount, parts, journaled) of its entries.
    entries: defaultdict[str, list[tuple[int, int, bool]]] = field(default_factory=lambda: defaultdict(list))
    journal: set[str] = field(default_factory=set)
    #: (alias, gid)
    prepared: list[tuple[str, str]] = field(default_factory=list)
    #: Decisions to commit that nobody has forgotten.
    committed: list[str] = field(default_factory=list)


def read(cluster: BankCluster) -> Books:
    books = Books()
    for alias in ALIASES:
        own = cluster.ask(alias, "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()")
        books.prepared += [(alias, gid) for (gid,) in own]
    books.journal = {transfer for (transfer,) in cluster.ask("default", "SELECT transfer FROM bank_journal")}
    rows = cluster.ask("default", "SELECT transaction FROM sharding_decision WHERE committed")
    books.committed = [transaction for (transaction,) in rows]
    for alias in SHARDS:
        books.balances.update(dict(cluster.ask(alias, "SELECT number, balance FROM bank_account")))
        query = "SELECT account_id, transfer, amount, parts, journaled FROM bank_entry"
        for account, transfer, amount, parts, journaled in cluster.ask(alias, query):
            books.sums[account] += amount
            books.entries[transfer].append((amount, parts, journaled))
    return books


def check(books: Books, clients: Iterable[Client]) -> None:
    """Check the books against each other, and against what clients were told."""
    clients = list(clients)
    assert books.prepared == []
    assert books.committed == []
    assert {number: books.sums[number] + BALANCE for number in books.balances} == books.balances
    assert sum(books.balances.values()) == BALANCE * len(books.balances)
    half = {
        transfer: found
        for transfer, found in books.entries.items()
        if any(parts != len(found) or journaled != (transfer in books.journal) for _, parts, journaled in found)
    }
    assert half == {}
    stored = set(books.entries)
    assert books.journal <= stored
    assert told(clients, "acknowledged") - stored == set()
    assert told(clients, "called") - stored == set()
    assert told(clients, "failed") & stored == set()
    calls = Counter(transfer for client in clients for transfer, *_ in client.notes("called"))
    assert [transfer for transfer, times in calls.items() if times > 1] == []
    assert told(clients, "acknowledged") <= set(calls)


def told(clients: Iterable[Client], kind: str) -> set[str]:
    """Return the transfers of which clients noted this."""
    return {transfer for client in clients for transfer, *_ in client.notes(kind)}


def await_silence(cluster: BankCluster, *aliases: str) -> None:
    """Wait until the servers have noticed that killed clients are gone, and are done with what they had been sent."""
    query = "SELECT query FROM pg_stat_activity WHERE application_name LIKE %s AND datname = current_database()"
    for alias in aliases or ALIASES:
        await_true(lambda: not cluster.ask(alias, query, f"{NAME}%"), f"no session is left on {alias}")  # noqa: B023
