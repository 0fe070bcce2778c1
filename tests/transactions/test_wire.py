"""
What goes over the wire, as libpq itself notes it down: no message more than the protocol of a block needs.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from django.db import connections, transaction
from psycopg.pq import Trace

from sharding import bucket_of
from sharding.backends.rerouting import STATE
from tests.layouts import CLUSTER, SHOP_ONLY, tenant_on
from tests.shop.models import Order, Region
from tests.transactions.conftest import Rows

pytestmark = pytest.mark.django_db(databases=[*CLUSTER, "plain"], transaction=True, available_apps=SHOP_ONLY)

ASKED = "SELECT pg_current_xact_id_if_assigned()::text, current_setting('transaction_isolation')"


@contextmanager
def messages(*aliases: str) -> Iterator[dict[str, list[str]]]:
    """Note the SQL of every message that is sent to some databases inside, BEGIN and COMMIT among them."""
    found: dict[str, list[str]] = {}
    files = {}
    with ExitStack() as stack:
        for alias in aliases:
            connections[alias].ensure_connection()
            files[alias] = stack.enter_context(tempfile.TemporaryFile("w+"))
            connections[alias].connection.pgconn.trace(files[alias].fileno())
            connections[alias].connection.pgconn.set_trace_flags(Trace.SUPPRESS_TIMESTAMPS)
        yield found
        for alias, file in files.items():
            connections[alias].connection.pgconn.untrace()
            file.seek(0)
            # Of a message with parameters, the text is in Parse; Bind, Describe, Execute and Sync go with it.
            sent = re.findall(
                r'^F\t\d+\t(?:Query|Parse)\t ?(?:"" )?"(.*?)"(?: 0)?$', file.read(), re.MULTILINE | re.DOTALL
            )
            found[alias] = [_without_values(text) for text in sent]


def _without_values(text: str) -> str:
    """Leave out what differs from block to block: the names of transactions, and the decision's values."""
    return re.sub(r"shardkit:\w+:\w+\.\d+:", "shardkit:X:", text).partition(" (transaction,")[0]


def test_a_block_of_one_shard_sends_what_djangos_own_backend_sends(rows: Rows) -> None:
    def block(using: str) -> None:
        orders = Order.objects.using("plain") if using == "plain" else Order.objects.all()
        with transaction.atomic(using=using):
            orders.filter(tenant_id=rows.a).update(status="one")
            with transaction.atomic(using=using):
                orders.filter(tenant_id=rows.a, quantity=1).delete()
            list(orders.filter(tenant_id=rows.a).values_list("status"))

    with messages(*CLUSTER, "plain") as sent:
        block("default")
        block("plain")
    here, there = [_alike(text) for text in sent["shard_a"]], [_alike(text) for text in sent["plain"]]
    # That there is nothing to delete is believed when the fence says that the bucket is here.
    empty = next(place for place, text in enumerate(there) if text.startswith("SELECT"))
    bucket = bucket_of(rows.a, model=Order)
    assert here == [*there[: empty + 1], STATE.replace("%s", str(bucket)), *there[empty + 1 :]]
    assert len(there) >= 6
    assert [sent[alias] for alias in ("default", "shard_b", "shard_c")] == [[], [], []]


def _alike(text: str) -> str:
    """Savepoints are named after a thread and a number."""
    return re.sub(r'"[a-z_]*s\d+_x\d+\\?"', "X", text)


def _two_shards(rows: Rows) -> None:
    Order.objects.create(tenant_id=rows.a)
    Order.objects.create(tenant_id=rows.b)


def _two_shards_and_control(rows: Rows) -> None:
    _two_shards(rows)
    Region.objects.create(name="two")


def _two_shards_and_reads(rows: Rows) -> None:
    _two_shards(rows)
    Order.objects.filter(tenant_id=tenant_on("shard_c")).count()
    Region.objects.count()


def _a_shard_and_reads(rows: Rows) -> None:
    Order.objects.create(tenant_id=rows.a)
    Order.objects.filter(tenant_id=rows.b).count()


BOUND = "SHOW lock_timeout; SET LOCAL lock_timeout = '10000ms'"
DECIDED = "INSERT INTO sharding_decision"


def _prepared(alias: str) -> list[str]:
    return [f"PREPARE TRANSACTION 'shardkit:X:{alias}'", f"COMMIT PREPARED 'shardkit:X:{alias}'"]


A = ["BEGIN", "work", BOUND, ASKED, *_prepared("shard_a")]
B = ["BEGIN", BOUND, "work", ASKED, *_prepared("shard_b")]
READ = ["BEGIN", BOUND, "work", ASKED, "COMMIT"]
SENT: list[tuple[Callable[[Rows], None], dict[str, list[str]]]] = [
    (_two_shards, {"shard_a": A, "shard_b": B, "shard_c": [], "default": [DECIDED]}),
    (
        _two_shards_and_control,
        {"shard_a": A, "shard_b": B, "shard_c": [], "default": ["BEGIN", BOUND, "work", ASKED, DECIDED, "COMMIT"]},
    ),
    (
        _two_shards_and_reads,
        {"shard_a": A, "shard_b": B, "shard_c": READ, "default": ["BEGIN", BOUND, "work", ASKED, DECIDED, "COMMIT"]},
    ),
    (
        _a_shard_and_reads,
        {"shard_a": ["BEGIN", "work", BOUND, ASKED, "COMMIT"], "shard_b": READ, "shard_c": [], "default": []},
    ),
]


@pytest.mark.parametrize(("block", "expected"), SENT)
def test_a_block_over_several_databases_sends_no_more(
    block: Callable[[Rows], None], expected: dict[str, list[str]], rows: Rows
) -> None:
    with transaction.atomic(using="default"):
        # The servers have now been asked whether they can prepare.
        _two_shards_and_control(rows)
        Order.objects.create(tenant_id=tenant_on("shard_c"))
    with messages(*CLUSTER) as sent, transaction.atomic(using="default"):
        block(rows)
    found = {alias: ["work" if "shop_" in text else text for text in texts] for alias, texts in sent.items()}
    assert found == expected
