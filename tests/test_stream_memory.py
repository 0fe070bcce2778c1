"""A million rows in order, in a process that is measured: memory does not grow with the number of rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connections

from sharding import bucket_of
from sharding.testing import cluster
from tests import servers
from tests.layouts import tenant_on
from tests.shop.models import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.django_db(databases="__all__", transaction=True)]

OWNERS = ("default", "shard_a", "shard_b", "shard_c")
ROWS = 1_000_000
MEGABYTES = 60
INDEX = "ledger_by_number"


def execute(alias: str, sql: str, *params: Any) -> None:
    connection: Any = connections[alias]
    with connection.sharded_statements(), connection.cursor() as cursor:
        cursor.execute(sql, params)


@pytest.fixture
def million() -> Iterator[None]:
    with cluster.owners(*OWNERS):
        for alias in OWNERS:
            tenant = tenant_on(alias)
            execute(alias, f"CREATE INDEX {INDEX} ON shop_ledger (number, tenant_id)")
            execute(
                alias,
                "INSERT INTO shop_ledger (bucket, tenant_id, number, text) "
                "SELECT %s, %s, number, left(md5(number::text), 20) FROM generate_series(1, %s) AS number",
                *(bucket_of(tenant, model=Ledger), tenant, ROWS // len(OWNERS)),
            )
            execute(alias, "VACUUM ANALYZE shop_ledger")
    yield
    for alias in OWNERS:
        execute(alias, "TRUNCATE shop_ledger")
        execute(alias, f"DROP INDEX {INDEX}")


def urls() -> dict[str, str]:
    found = {}
    for alias in (*OWNERS, "reference", "plain"):
        chosen = connections[alias].settings_dict
        account = f"{quote(chosen['USER'])}:{quote(chosen['PASSWORD'])}"
        found[alias] = f"postgres://{account}@{chosen['HOST']}:{chosen['PORT']}/{chosen['NAME']}"
    return found


def measured(how: str, what: str) -> float:
    """Return the megabytes that a process takes for all rows."""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "SHARDKIT_TEST_URLS": json.dumps(urls())}
    command = [sys.executable, "-m", "tests.streaming_process", how, what]
    done = subprocess.run(command, cwd=servers.ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["rows"] == ROWS
    return float(found["megabytes"])


def test_memory_stays_flat(million: None) -> None:
    taken = {(how, what): measured(how, what) for how in ("cursors", "batches") for what in ("instances", "values")}
    assert max(taken.values()) <= MEGABYTES, taken
    # What it takes without a stream shows that it is measured.
    assert measured("list", "values") > MEGABYTES
