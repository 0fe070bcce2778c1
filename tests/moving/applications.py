"""
An application beside the movers: it writes rows of the bucket wherever that is allowed, and knows what it was promised.

It asks both shards each time, by sessions that know nothing of the map: at most one may accept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
from django.db import connections

from sharding import bucket_of, ids
from tests.moving.scenes import Scene
from tests.shop.models import Account, Device, Entry, Ledger, Member, Reading, Seat

#: All tables of the shop that have a bucket in each row, and the columns of their primary keys.
TABLES = {
    **dict.fromkeys(
        [f"shop_{name}" for name in ("customer", "tag", "order", "line", "ordertag", "member", "account", "entry")],
        ("id",),
    ),
    "shop_reading": ("id",),
    "shop_device": ("serial",),
    "shop_ledger": ("tenant_id", "number"),
    "shop_seat": ("tenant_id", "number"),
}
#: {table: {key: row}}, rows as JSON has them.
Rows = dict[str, dict[str, dict[str, Any]]]
#: A table, the columns and values by which a row is found, and those that it gets; None deletes it.
Change = tuple[str, dict[str, Any], dict[str, Any] | None]


def fill(scene: Scene) -> None:
    """Write rows of the bucket into the tables that a scene leaves out."""
    tenant, bucket = scene.tenant, scene.bucket
    account = Account.objects.create(id=ids.new_uuid(bucket), owner="Ada")
    Entry.objects.create(account=account, amount=2**40)
    serials = (f"device {number}" for number in range(100_000))
    device = Device.objects.create(serial=next(each for each in serials if bucket_of(each, model=Device) == bucket))
    Reading.objects.create(device=device, value=-1)
    for number in range(4):
        Ledger.objects.create(tenant_id=tenant, number=number, text=f"line {number}")
    member = Member.objects.create(tenant_id=tenant, email=f"ada-{bucket}@example.org", city="Turin")
    Seat.objects.create(tenant_id=tenant, number=1, member=member, code=f"window-{bucket}")


def rows(alias: str, bucket: int) -> Rows:
    """Return what one database has of a bucket, table by table."""
    found = {}
    with session(alias) as connection:
        for table, key in TABLES.items():
            read = connection.execute(f"SELECT to_jsonb(t) FROM {table} AS t WHERE bucket = %s", [bucket]).fetchall()
            found[table] = {key_of(row, key): row for (row,) in read}
    return {table: each for table, each in found.items() if each}


def key_of(row: dict[str, Any], key: tuple[str, ...]) -> str:
    return json.dumps([row[name] for name in key])


def session(alias: str) -> psycopg.Connection[Any]:
    """Return a session at one database that knows nothing of the cluster, and waits for nobody."""
    settings = connections[alias].settings_dict
    connection: psycopg.Connection[Any] = psycopg.connect(
        host=settings["HOST"],
        port=settings["PORT"],
        user=settings["USER"],
        password=settings["PASSWORD"],
        dbname=settings["NAME"],
        autocommit=True,
    )
    # What was acknowledged is there when a server has crashed, although those of tests are set up to forget it.
    connection.execute("SET lock_timeout = '20ms'; SET synchronous_commit = 'on'")
    return connection


class TwoOwnersError(AssertionError):
    """Both shards have accepted a write."""


@dataclass
class Application:
    """Writes one thing after the other, and keeps what was acknowledged."""

    scene: Scene
    expected: Rows
    #: How many writes were tried.
    tried: int = 0
    _sessions: dict[str, psycopg.Connection[Any]] = field(default_factory=dict)

    def write(self) -> list[Change]:
        """Try to write, and return what was acknowledged: nothing, if no shard takes it at this moment."""
        self.tried += 1
        changes = next(each for place, each in enumerate(self._choices()) if place == self.tried % 7)
        takers = [alias for alias in (self.scene.source, self.scene.target) if self._is_taken(alias, changes)]
        if len(takers) > 1:
            raise TwoOwnersError(f"{takers} have both accepted {changes}.")
        for change in changes if takers else ():
            self.acknowledge(change)
        return changes if takers else []

    def close(self) -> None:
        for connection in self._sessions.values():
            connection.close()

    def acknowledge(self, change: Change) -> None:
        table, key, row = change
        known = self.expected[table]
        found = json.dumps([*key.values()])
        before = known.pop(found, {})
        if row is not None:
            after = {**before, **row}
            known[key_of(after, TABLES[table])] = after

    def _choices(self) -> Iterator[list[Change]]:
        number, tenant = self.tried, self.scene.tenant
        orders = sorted(self.expected["shop_order"].values(), key=lambda row: row["id"])
        some, last = orders[number % len(orders)], orders[-1]
        lines = [row for row in self.expected["shop_line"].values() if row["order_id"] == last["id"]]
        links = [row for row in self.expected["shop_ordertag"].values() if row["order_id"] == last["id"]]
        ledgers = sorted(row["number"] for row in self.expected["shop_ledger"].values())
        new = {**some, "id": str(ids.new_uuid(self.scene.bucket)), "status": "new"}
        line = {
            **next(iter(self.expected["shop_line"].values())),
            "id": (self.scene.bucket + 2**20) * 2**20 + number,
            "order_id": new["id"],
        }
        customer = next(iter(self.expected["shop_customer"].values()))
        yield [("shop_order", {"id": some["id"]}, {"total": number, "status": "changed"})]
        yield [("shop_order", {"id": new["id"]}, new), ("shop_line", {"id": line["id"]}, line)]
        yield [("shop_customer", {"id": customer["id"]}, {"name": f"name {number}"})]
        # A key that changes: one row less, and one more.
        key = {"tenant_id": tenant, "number": ledgers[number % len(ledgers)]}
        yield [("shop_ledger", key, {"number": 1000 + number})]
        if len(orders) < 4:
            yield [("shop_order", {"id": some["id"]}, {"total": -number})]
        else:
            gone = [("shop_line", row) for row in lines] + [("shop_ordertag", row) for row in links]
            yield [(table, {"id": row["id"]}, None) for table, row in [*gone, ("shop_order", last)]]
        entry = next(iter(self.expected["shop_entry"].values()))
        yield [("shop_entry", {"id": entry["id"]}, {"amount": number})]
        seat = next(iter(self.expected["shop_seat"].values()))
        yield [("shop_seat", {"tenant_id": tenant, "number": seat["number"]}, {"code": f"code-{number}"})]

    def _is_taken(self, alias: str, changes: list[Change]) -> bool:
        connection = self._session(alias)
        try:
            with connection.transaction():
                for table, key, row in changes:
                    if self._carry_out(connection, table, key, row) != 1:
                        raise _NotHereError
        except (_NotHereError, psycopg.Error):
            return False
        return True

    def _carry_out(
        self, connection: psycopg.Connection[Any], table: str, key: dict[str, Any], row: dict[str, Any] | None
    ) -> int:
        where = " AND ".join(f"{name} = %s" for name in key)
        if row is None:
            return connection.execute(f"DELETE FROM {table} WHERE {where}", [*key.values()]).rowcount
        if "bucket" in row:
            query = f"INSERT INTO {table} SELECT * FROM jsonb_populate_record(NULL::{table}, %s::jsonb)"
            return connection.execute(query, [json.dumps(row)]).rowcount
        pairs = ", ".join(f"{name} = %s" for name in row)
        return connection.execute(f"UPDATE {table} SET {pairs} WHERE {where}", [*row.values(), *key.values()]).rowcount

    def _session(self, alias: str) -> psycopg.Connection[Any]:
        if alias not in self._sessions or self._sessions[alias].closed:
            self._sessions[alias] = session(alias)
        return self._sessions[alias]


class _NotHereError(Exception):
    """There is no such row."""
