"""As many sessions as a server of default settings takes well, each writing more buckets than it has locks for."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from psycopg import errors

from tests.fence.conftest import become
from tests.layouts import CLUSTER, SHOP_ONLY

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=CLUSTER, available_apps=SHOP_ONLY),
    pytest.mark.slow,
]

WRITERS, BUCKETS, TURNS = 50, 512, 3


#: What a server of default settings has room for: max_locks_per_transaction * max_connections.
ROOM = 64 * 100


def room_of_a_default_server(session: Any) -> None:
    """
    Take all locks that the server has room for, and give as many back as PostgreSQL's defaults would promise.

    How much it has beyond what it promises depends on what else is in its shared memory.
    """
    session.execute("SET statement_timeout = 0")
    taken = 0
    with suppress(errors.OutOfMemory):
        while True:
            session.execute(
                "SELECT pg_advisory_lock(1, n) FROM generate_series(%s::int, %s::int) n", [taken, taken + 99]
            )
            taken += 100
    session.execute("SELECT pg_advisory_unlock(1, n) FROM generate_series(0, %s) n", [ROOM - 1])


def test_fifty_updates_of_many_buckets_beside_barriers(admin, connect):
    """With a lock for each bucket, the eighth would end with `out of shared memory`; as it is, all wait their turn."""
    room_of_a_default_server(admin)
    admin.execute(
        "INSERT INTO shop_ledger (bucket, tenant_id, number, text) "
        f"SELECT b, 1, {BUCKETS} * s + b, '0' FROM generate_series(0, {WRITERS - 1}) s, "
        f"generate_series(0, {BUCKETS - 1}) b"
    )
    sessions = [connect() for _ in range(WRITERS)]
    gate = threading.Barrier(WRITERS, timeout=60)
    is_over = threading.Event()

    def update(number: int, session: Any) -> None:
        session.execute("SET lock_timeout = 0; SET statement_timeout = 0")
        gate.wait()
        for turn in range(TURNS):
            # Each has rows of its own, of all these buckets: they wait for no locks of rows.
            with session.transaction():
                session.execute(
                    f"UPDATE shop_ledger SET text = '{turn + 1}' WHERE tenant_id = 1 AND number / {BUCKETS} = {number}"
                )
                # So that all have their locks at the same time.
                session.execute("SELECT pg_sleep(0.1)")

    def close_and_open() -> int:
        taken = 0
        while not is_over.is_set():
            # Fifty sessions need their time on a busy machine.
            become(admin, "capturing" if taken % 2 else "owned", waits=(2_000,) * 10)
            taken += 1
        return taken

    with ThreadPoolExecutor(WRITERS + 1) as pool:
        done = [pool.submit(update, number, session) for number, session in enumerate(sessions)]
        barriers = pool.submit(close_and_open)
        try:
            for each in done:
                each.result()
        finally:
            is_over.set()
        assert barriers.result() > 1
    assert admin.execute("SELECT DISTINCT text FROM shop_ledger").fetchall() == [(str(TURNS),)]
