"""
Servers crash before each statement of the commit protocol, and come back at once or later.
"""

from __future__ import annotations

import pytest

from tests.bank.audit import told
from tests.bank.conftest import Bank
from tests.bank.processes import Client
from tests.bank.shapes import SHAPES as bank_shapes
from tests.bank.shapes import decision
from tests.bank.steps import Fault

pytestmark = [pytest.mark.db, pytest.mark.slow]

SHAPES = ("two shards", "two shards and control")


@pytest.mark.parametrize("alias", ["shard_a", "default"])
def test_a_server_that_restarts(alias: str, bank: Bank) -> None:
    clients = [client for shape in SHAPES for client in bank.stopped(shape)]
    bank.cluster.restart(alias)
    _go_on(clients)
    bank.recover()
    assert told(clients, "doubtful") == set()
    assert told(clients, "failed")
    assert told(clients, "acknowledged")


def test_a_shard_that_is_down(bank: Bank) -> None:
    """A block that is decided is committed, whatever becomes of the shard; another one fails."""
    sent = {shape: bank.undisturbed(shape) for shape in SHAPES}
    clients = {shape: bank.stopped(shape) for shape in SHAPES}
    with bank.cluster.down("shard_a"):
        for shape in SHAPES:
            _go_on(clients[shape])
            decided = decision(sent[shape])
            assert decided is not None
            outcomes = ["acknowledged" if client.notes("acknowledged") else "failed" for client in clients[shape]]
            unprepared = [number for number, text in enumerate(sent[shape]) if "PREPARE TRANSACTION" in text]
            # What has been prepared needs the shard no more.
            assert outcomes[: unprepared[0]] == ["failed"] * unprepared[0]
            assert outcomes[unprepared[-1] + 1 :] == ["acknowledged"] * (len(outcomes) - unprepared[-1] - 1)
        assert told([each for shape in SHAPES for each in clients[shape]], "doubtful") == set()
    bank.recover()


def test_a_control_database_that_is_down(bank: Bank) -> None:
    """Only a block whose decision was on its way is in doubt: earlier ones fail, and later ones are committed."""
    sent = {shape: bank.undisturbed(shape) for shape in SHAPES}
    clients = {shape: bank.stopped(shape) for shape in SHAPES}
    with bank.cluster.down("default"):
        for shape in SHAPES:
            _go_on(clients[shape])
            decided = decision(sent[shape])
            assert decided is not None
            kinds = [_outcome(client) for client in clients[shape]]
            after = len(kinds) - decided - 1
            assert kinds == ["failed"] * decided + ["doubtful"] + ["acknowledged"] * after
    bank.recover()


def test_a_resolver_without_a_shard(bank: Bank) -> None:
    """What cannot be carried out everywhere is not forgotten."""
    fault = Fault("COMMIT PREPARED", "before", ("kill",))
    clients = [bank.start(*bank_shapes[shape](bank), fault=fault).wait() for shape in SHAPES]
    with bank.cluster.down("shard_a"):
        done = bank.resolve()
        assert (len(done["committed"]), list(done["failures"])) == (2, ["shard_a"])
    books = bank.recover()
    assert told(clients, "begun") <= set(books.entries)


def _go_on(clients: list[Client]) -> None:
    for client in clients:
        client.go_on()
    for client in clients:
        client.wait()


def _outcome(client: Client) -> str:
    (kind,) = (kind for kind in ("acknowledged", "failed", "doubtful") if client.notes(kind))
    return kind
