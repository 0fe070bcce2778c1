"""
Coordinators and resolvers that meet: whoever writes the verdict first is right, and every client learns it.
"""

from __future__ import annotations

import re
import time

import pytest

from sharding.commits.resolver import GRACE
from tests.bank import audit
from tests.bank.conftest import Bank
from tests.bank.processes import Client, await_true
from tests.bank.shapes import DECISION, SHAPES, decision
from tests.bank.steps import Fault

pytestmark = pytest.mark.db

DECIDING = ("two shards", "two shards and control", "a shard and control")
ABORTED = (
    "This atomic block took so long to commit that it was taken for dead and rolled back everywhere (transaction X). "
    "Repeat it."
)
IN_DOUBT = (
    "The control database was lost while it committed this block (OperationalError), and does not answer now "
    "(OperationalError), so it is not known whether the block is stored. All or nothing of it is: `manage.py shards "
    "recover` finishes it when the control database is back. Look before you repeat it."
)


def _at_decision(bank: Bank, shape: str, when: str, *acts: str, stay: float = 0) -> Client:
    """Return a client that is stopped at the statement that commits its decision; another transfer follows."""
    number = decision(bank.undisturbed(shape))
    assert number is not None
    transfers = [*SHAPES[shape](bank), bank.transfer("shard_c", "shard_c")]
    return bank.start(*transfers, fault=Fault(number, when, (*acts, "stop")), stay=stay).wait_until_stopped()


def _first(client: Client) -> str:
    return str(client.notes("begun")[0][0])


@pytest.mark.parametrize("shape", DECIDING)
def test_a_coordinator_that_sleeps_for_too_long(shape: str, bank: Bank) -> None:
    client = bank.start(
        *SHAPES[shape](bank), bank.transfer("shard_c", "shard_c"), fault=Fault(DECISION, "before", ("stop",))
    ).wait_until_stopped()
    done = bank.resolve(min_age=0)
    assert {gid.rpartition(":")[2] for gid in done["rolled_back"]} <= {"shard_a", "shard_b"}
    assert done["rolled_back"]
    client.go_on().wait()
    ((transfer, error, message),) = client.notes("failed")
    assert (transfer, error) == (_first(client), "BlockAborted")
    assert re.sub(r"transaction \w+\.\d+", "transaction X", message) == ABORTED
    # Its callbacks are not those of the next block.
    assert [transfer for (transfer,) in client.notes("called")] == [client.notes("begun")[1][0]]


def test_coordinators_that_are_young_are_left_alone(bank: Bank) -> None:
    clients = [_at_decision(bank, shape, "before") for shape in DECIDING]
    # Beyond that, a resolver looks at them.
    time.sleep(GRACE)
    done = bank.resolve(min_age=60)
    assert len(done["left"]) == 5
    assert (done["committed"], done["rolled_back"], done["failures"]) == ([], [], {})
    for client in clients:
        client.go_on().wait()
        assert [_first(client)] in client.notes("acknowledged")


@pytest.mark.parametrize("shape", ["two shards and control", "a shard and control"])
def test_a_resolver_waits_for_a_decision_that_is_being_committed(shape: str, bank: Bank) -> None:
    client = _at_decision(bank, shape, "before")
    resolver = bank.clients.resolve(min_age=0)
    waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
    await_true(lambda: bank.cluster.ask("default", waiting), "the resolver waits")
    client.go_on().wait()
    ((done,),) = resolver.wait().notes("resolved")
    assert (done["rolled_back"], done["failures"]) == ([], {})
    assert [_first(client)] in client.notes("acknowledged")


@pytest.mark.parametrize("shape", DECIDING)
def test_an_answer_that_is_lost_until_all_is_forgotten(shape: str, bank: Bank) -> None:
    """A resolver carries the decision out and forgets it, before the coordinator asks what was decided."""
    client = _at_decision(bank, shape, "after", "cut")
    assert bank.resolve(min_age=0)["committed"]
    assert audit.read(bank.cluster).committed == []
    client.go_on().wait()
    assert [_first(client)] in client.notes("acknowledged")


@pytest.mark.parametrize("shape", DECIDING)
def test_a_question_that_is_lost_until_a_resolver_has_decided(shape: str, bank: Bank) -> None:
    client = _at_decision(bank, shape, "before", "cut")
    # The control database rolls its own part back when it notices.
    audit.await_silence(bank.cluster, "default")
    assert bank.resolve(min_age=0)["rolled_back"]
    client.go_on().wait()
    assert client.notes("failed")[0][:2] == [_first(client), "OperationalError"]


@pytest.mark.parametrize(("when", "is_stored"), [("before", False), ("after", True)])
def test_blocks_in_doubt(when: str, is_stored: bool, bank: Bank) -> None:
    """The process that met one finishes it by itself, when the control database is back."""
    clients = [_at_decision(bank, shape, when, "cut", stay=240) for shape in DECIDING]
    with bank.cluster.down("default"):
        for client in clients:
            client.go_on()
            await_true(lambda: client.notes("begun")[1:], "the first block has ended")  # noqa: B023
            assert client.notes("doubtful") == [[_first(client), IN_DOUBT]]
    await_true(lambda: not audit.read(bank.cluster).prepared, "nothing is prepared")
    for client in clients:
        client.kill()
        assert (_first(client) in audit.read(bank.cluster).entries) == is_stored


def test_a_shard_that_is_down_after_the_decision(bank: Bank) -> None:
    """The blocks have returned; a thread of the process commits what is prepared, when the shard is back."""
    fault = Fault("COMMIT PREPARED", "before", ("stop",))
    clients = [bank.start(*SHAPES[shape](bank), fault=fault, stay=240).wait_until_stopped() for shape in DECIDING]
    with bank.cluster.down("shard_a"):
        for client in clients:
            client.go_on()
            await_true(lambda: client.notes("acknowledged"), "the block has ended")  # noqa: B023
    await_true(lambda: not audit.read(bank.cluster).prepared, "nothing is prepared")
    for client in clients:
        client.kill()
        assert _first(client) in audit.read(bank.cluster).entries
