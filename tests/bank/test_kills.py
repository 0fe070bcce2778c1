"""
Clients are killed before and after every statement of the commit protocol; nothing of it is left half done.

``pytest tests/bank --long`` kills 1,000 of them, at random statements of random shapes.
"""

from __future__ import annotations

import random

import pytest

from tests.bank.audit import Books
from tests.bank.conftest import Bank
from tests.bank.processes import Client
from tests.bank.shapes import SHAPES, decision
from tests.bank.steps import Fault

pytestmark = pytest.mark.db

#: How many are killed before the resolver runs: each may leave prepared transactions, of which a server takes 64.
BATCH = 40
LONG = 1_000

Point = tuple[str, int, str]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_statement(shape: str, bank: Bank) -> None:
    sent = bank.undisturbed(shape)
    points = [(shape, number, when) for number in range(len(sent)) for when in ("before", "after")]
    killed = _killed(bank, points)
    _check_verdicts(bank.recover(), killed, points, decision(sent))


@pytest.mark.long
def test_random_statements(bank: Bank) -> None:
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    # Shown when it fails, as is what follows it.
    print(f"seed {seed}")
    sent = {shape: bank.undisturbed(shape) for shape in SHAPES}
    for _ in range(LONG // BATCH):
        shapes = rng.choices(list(SHAPES), k=BATCH)
        points = [(shape, rng.randrange(len(sent[shape])), rng.choice(["before", "after"])) for shape in shapes]
        killed = _killed(bank, points)
        books = bank.recover()
        for client, point in zip(killed, points, strict=True):
            _check_verdicts(books, [client], [point], decision(sent[point[0]]))


def _killed(bank: Bank, points: list[Point]) -> list[Client]:
    clients = bank.run((shape, Fault(number, when, ("kill",))) for shape, number, when in points)
    assert [client.notes("finished") for client in clients if client.notes("finished")] == []
    return clients


def _check_verdicts(books: Books, killed: list[Client], points: list[Point], decided: int | None) -> None:
    """Check that a first block is stored if, and only if, its client lived to commit the decision."""
    stored = [client.notes("begun")[0][0] in books.entries for client in killed]
    if decided is not None:
        assert stored == [at > decided or (at == decided and when == "after") for _, at, when in points]
