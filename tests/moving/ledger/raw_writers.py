"""
Writers who go straight to a shard with the driver, and learn from it where a bucket has gone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import psycopg
from django.db import connections

from sharding import bucket_of
from sharding.backends.refusals import FENCED, MOVED, UNKNOWN
from tests.layouts import CLUSTER
from tests.moving.ledger.writers import Writer
from tests.shop.models import Ledger

#: Seconds in which a bucket is with one of its shards for sure.
PATIENCE = 60.0


class Straight(Writer):
    """Sessions at all shards, and for each bucket the shard that was the last to have it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sessions: dict[str, Any] = {}
        self.owners: dict[int, str] = {}
        self.numbers: list[tuple[int, int]] = []

    def close(self) -> None:
        for session in self.sessions.values():
            session.close()

    def session(self, alias: str) -> Any:
        if alias not in self.sessions:
            settings = connections[alias].settings_dict
            names = {"host": "HOST", "port": "PORT", "user": "USER", "password": "PASSWORD", "dbname": "NAME"}
            given: dict[str, Any] = {name: settings[key] for name, key in names.items()}
            self.sessions[alias] = psycopg.connect(**given, autocommit=True)
        return self.sessions[alias]

    def send(self, tenant: int, write: Callable[[Any, int], Any]) -> Any:
        """Return what ``write(cursor, bucket)`` returns, in a transaction of the shard that has the bucket."""
        bucket = bucket_of(tenant, model=Ledger)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            session = self.session(self.owners.setdefault(bucket, CLUSTER[0]))
            try:
                with session.transaction(), session.cursor() as cursor:
                    found = write(cursor, bucket)
                if found:
                    self.book.met["writes"] += 1
                    return found
                # A row that is not there may be elsewhere, and no trigger has seen a statement that found none.
                self.book.met["no row"] += 1
                self.look(bucket)
            except psycopg.Error as error:
                if error.sqlstate not in {MOVED, FENCED, UNKNOWN, "40001", "40P01"}:
                    raise
                self.learn(bucket, error)
        raise AssertionError(f"Bucket {bucket} has not taken a write for {PATIENCE} seconds, or lost its row.")

    def learn(self, bucket: int, error: psycopg.Error) -> None:
        self.book.met[str(error.sqlstate)] += 1
        if error.sqlstate == MOVED:
            self.owners[bucket] = json.loads(error.diag.message_detail or "")["forward"]
        elif error.sqlstate == UNKNOWN:
            self.look(bucket)
        else:
            time.sleep(0.002)

    def look(self, bucket: int) -> None:
        """Read the map."""
        query = "SELECT shard FROM sharding_bucket WHERE bucket = %s"
        ((self.owners[bucket],),) = self.session("default").execute(query, [bucket]).fetchall()
        time.sleep(0.002)


class Copies(Straight):
    """COPY, in transactions that may stay open."""

    def step(self) -> None:
        tenant = self.tenant()
        rows = [
            (tenant, 1_000_000 * self.number + self.made + n, self.name()) for n in range(self.rng.randrange(1, 60))
        ]
        self.made += len(rows)
        pause = self.rng.uniform(0, self.longest) * (self.rng.random() < 0.1)

        def write(cursor: Any, bucket: int) -> int:
            with cursor.copy("COPY shop_ledger (bucket, tenant_id, number, text) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row((bucket, *row))
            time.sleep(pause)
            return int(cursor.rowcount)

        assert self.send(tenant, write) == len(rows)
        for _, number, text in rows:
            self.book.note("Ledger", (tenant, number), text)


class Statements(Straight):
    """INSERT, UPDATE and DELETE of single rows."""

    def step(self) -> None:
        self.rng.choice([self.insert, self.update, self.delete] if self.numbers else [self.insert])()

    def insert(self) -> None:
        tenant = self.tenant()
        text = self.name()
        number = 1_000_000 * self.number + self.made
        values = "INSERT INTO shop_ledger (bucket, tenant_id, number, text) VALUES (%s, %s, %s, %s)"
        self.send(tenant, lambda cursor, bucket: cursor.execute(values, [bucket, tenant, number, text]).rowcount)
        self.numbers.append((tenant, number))
        self.book.note("Ledger", (tenant, number), text)

    def update(self) -> None:
        tenant, number = self.rng.choice(self.numbers)
        text = self.name()
        change = "UPDATE shop_ledger SET text = %s WHERE tenant_id = %s AND number = %s"
        self.send(tenant, lambda cursor, bucket: cursor.execute(change, [text, tenant, number]).rowcount)
        self.book.note("Ledger", (tenant, number), text)

    def delete(self) -> None:
        tenant, number = self.numbers.pop(self.rng.randrange(len(self.numbers)))
        change = "DELETE FROM shop_ledger WHERE tenant_id = %s AND number = %s"
        self.send(tenant, lambda cursor, bucket: cursor.execute(change, [tenant, number]).rowcount)
        self.book.drop("Ledger", (tenant, number))
