"""
Transfers: plain values that a test makes, and the atomic block in which a client carries one out.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from django.db import transaction

#: No account has this number: an entry of it is refused at the commit, by its deferred constraint.
NOBODY = -1


@dataclass(frozen=True)
class Transfer:
    """What one block does."""

    id: str
    #: (account, amount); the amounts add up to 0.
    legs: tuple[tuple[int, int], ...]
    #: Whether the control database has a part of its own.
    journaled: bool = False
    #: Accounts that are only read, which makes their shards take part without having written.
    reads: tuple[int, ...] = ()
    #: Whether a database refuses its part at the commit.
    broken: bool = False
    #: Whether it does something in a savepoint that is rolled back.
    detour: bool = False

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def is_on_one_database(self) -> bool:
        from sharding import shard_of
        from tests.bank.models import Account

        return not self.journaled and len({shard_of(number, model=Account) for number, _ in self.legs}) == 1

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> Transfer:
        legs = tuple((account, amount) for account, amount in found["legs"])
        return cls(**{**found, "legs": legs, "reads": tuple(found["reads"])})


def random_transfer(rng: random.Random, name: str, accounts: int) -> Transfer:
    """Return a transfer among 2 to 4 of the accounts, wherever they live, with all that may happen in a block."""
    numbers = rng.sample(range(accounts), rng.randrange(2, 5))
    amounts = [rng.randrange(-50, 50) for _ in numbers[1:]]
    return Transfer(
        name,
        tuple(zip(numbers, [-sum(amounts), *amounts], strict=True)),
        journaled=rng.random() < 0.5,
        reads=tuple(rng.sample(range(accounts), rng.randrange(3))),
        broken=rng.random() < 0.1,
        detour=rng.random() < 0.2,
    )


class _Detour(Exception):
    """Ends the savepoint that is rolled back."""


def carry_out(transfer: Transfer, *, on_commit: Callable[[], None], last: Callable[[], None]) -> None:
    """Do the transfer in one atomic block; ``last`` is called when all that is left is its commit."""
    from tests.bank.models import Account, Journal

    with transaction.atomic(using="default"):
        transaction.on_commit(on_commit, using="default")
        for number in transfer.reads:
            Account.objects.get(number=number)
            Journal.objects.filter(transfer=transfer.id).exists()
        # In one order for all, so that no two transfers wait for each other.
        for number, amount in sorted(transfer.legs):
            _enter(transfer, number, amount)
        if transfer.journaled:
            Journal.objects.create(transfer=transfer.id)
        if transfer.detour:
            _take_back(transfer)
        if transfer.broken:
            _entry(transfer, NOBODY, 0)
        last()


def _enter(transfer: Transfer, number: int, amount: int) -> None:
    from django.db.models import F

    from tests.bank.models import Account

    changed = Account.objects.filter(number=number).update(balance=F("balance") + amount)
    assert changed == 1
    _entry(transfer, number, amount)


def _entry(transfer: Transfer, number: int, amount: int) -> None:
    from tests.bank.models import Entry

    parts, journaled = len(transfer.legs), transfer.journaled
    Entry.objects.create(account_id=number, transfer=transfer.id, amount=amount, parts=parts, journaled=journaled)


def _take_back(transfer: Transfer) -> None:
    try:
        with transaction.atomic(using="default"):
            for number, amount in transfer.legs:
                _enter(transfer, number, -amount)
            raise _Detour
    except _Detour:
        pass
