"""
Clients who write one bucket, a transaction after the other, and note what was acknowledged, and when.

    python -m scripts.benchmarks.moves.clients    takes a job of JSON from its input, and ends when that is closed

They are sessions of the driver at each shard, which follow what a fence says as the door does.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from typing import Any

import psycopg

from sharding.ids import new_uuid

MOVED, FENCED, UNKNOWN = "SH001", "SH002", "SH003"
#: As sharding.backends.rerouting: seconds before a statement is sent again.
FIRST_PAUSE, LONGEST_PAUSE = 0.002, 0.05

_UPDATE = "UPDATE flights_flight SET number = %s WHERE id = %s"
_INSERT = """
INSERT INTO flights_flight (bucket, id, tailnum, carrier_id, origin_id, destination_id, number, time_hour, distance)
SELECT %s, %s, %s, 'UA', 'EWR', 'IAH', -1, now(), 1
"""


class Client(threading.Thread):
    """One of them."""

    def __init__(self, job: dict[str, Any], row: str, stop: threading.Event) -> None:
        super().__init__()
        self.job, self.row, self.stop = job, row, stop
        self.sessions = {alias: psycopg.connect(url, autocommit=True) for alias, url in job["urls"].items()}
        self.owner: str = job["owner"]
        self.number = 0
        self.inserted: list[str] = []
        #: When each write was acknowledged, and for how long its transaction was open by the client's own will.
        self.acknowledged: list[tuple[float, float]] = []
        self.refused = 0

    def run(self) -> None:
        while not self.stop.is_set():
            open_for = random.uniform(0, self.job["longest"])
            new = str(new_uuid(self.job["bucket"])) if random.random() < 0.2 else None
            self._write(new, open_for)
            self.acknowledged.append((time.time(), open_for))
            if new:
                self.inserted.append(new)
            else:
                self.number += 1

    def _write(self, new: str | None, open_for: float) -> None:
        pause = FIRST_PAUSE
        while True:
            session = self.sessions[self.owner]
            try:
                with session.transaction():
                    if new:
                        session.execute(_INSERT, [self.job["bucket"], new, self.job["plane"]])
                        found = 1
                    else:
                        found = session.execute(_UPDATE, [self.number + 1, self.row]).rowcount
                    time.sleep(open_for)
                if found:
                    return
                self._look()
            except psycopg.Error as error:
                self.refused += 1
                if error.sqlstate == MOVED:
                    self.owner = json.loads(error.diag.message_detail or "")["forward"]
                    continue
                if error.sqlstate not in {FENCED, UNKNOWN}:
                    raise
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                self._look()

    def _look(self) -> None:
        query = "SELECT shard FROM sharding_bucket WHERE bucket = %s"
        ((self.owner,),) = self.sessions["default"].execute(query, [self.job["bucket"]]).fetchall()


def main() -> None:
    job = json.loads(sys.stdin.readline())
    stop = threading.Event()
    clients = [Client(job, row, stop) for row in job["rows"]]
    for client in clients:
        client.start()
    print("at work", flush=True)
    sys.stdin.read()
    stop.set()
    for client in clients:
        client.join()
    json.dump([[each.row, each.number, each.inserted, each.acknowledged, each.refused] for each in clients], sys.stdout)


if __name__ == "__main__":
    main()
