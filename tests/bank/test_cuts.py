"""
Connections are cut before each statement of the commit protocol, and after it, so that its answer is lost.
"""

from __future__ import annotations

import pytest

from tests.bank.conftest import Bank
from tests.bank.shapes import SHAPES, decision
from tests.bank.steps import Fault

pytestmark = [pytest.mark.db, pytest.mark.slow]

#: A lost answer to a plain COMMIT of one database tells nobody whether it was done, as with Django's own backend.
SEVERAL = [shape for shape in SHAPES if shape != "one shard"]


@pytest.mark.parametrize("shape", SEVERAL)
def test_every_statement(shape: str, bank: Bank) -> None:
    """Every client learns what became of its block: it is committed if the decision reached the server."""
    sent = bank.undisturbed(shape)
    points = [(number, when) for number in range(len(sent)) for when in ("before", "after")]
    clients = bank.run((shape, Fault(number, when, ("cut",))) for number, when in points)
    bank.recover()
    decided = decision(sent)
    for client, (number, when) in zip(clients, points, strict=True):
        first = client.notes("begun")[0][0]
        is_committed = decided is not None and (number > decided or (number == decided and when == "after"))
        expected = "acknowledged" if is_committed else "failed"
        assert first in [transfer for transfer, *_ in client.notes(expected)], (number, when, sent[number])
        assert client.notes("doubtful") == []


@pytest.mark.parametrize("shape", ["two shards and control", "with reads elsewhere"])
def test_servers_end_the_sessions(shape: str, bank: Bank) -> None:
    """All sessions of every server are ended, before each statement."""
    clients = bank.stopped(shape)
    for alias in ("default", "shard_a", "shard_b"):
        bank.cluster.cut(alias)
    for client in clients:
        client.go_on()
    bank.recover()
    assert [client.notes("doubtful") for client in clients if client.notes("doubtful")] == []
