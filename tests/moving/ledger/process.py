"""
A process with writers: ``python -m tests.moving.ledger.process`` reads a job from its input, and prints their books.

{"databases": {alias: name}, "sharding": …, "isolation": …, "seconds": …, "writers": [{"kind": …, "number": …}, …]}
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
import traceback
from typing import Any

import django
from django.conf import settings

#: Seconds between two steps of a writer at most.
REST = 0.06


def main(job: dict[str, Any]) -> dict[str, Any]:
    from tests import settings as base

    sharding = {**base.SHARDING, **job["sharding"]}
    databases = {alias: {**each, "NAME": job["databases"][alias]} for alias, each in base.DATABASES.items()}
    if job["isolation"]:
        from psycopg import IsolationLevel

        for each in databases.values():
            each["OPTIONS"] = {**each.get("OPTIONS", {}), "isolation_level": IsolationLevel[job["isolation"]]}
    values = {name: getattr(base, name) for name in dir(base) if name.isupper()}
    settings.configure(**{**values, "SHARDING": sharding, "DATABASES": databases})
    django.setup()
    from sharding import cluster_map

    cluster_map.refresh()
    print("ready", flush=True)
    return together(job)


def together(job: dict[str, Any]) -> dict[str, Any]:
    from tests.moving.ledger import raw_writers, readers, totals, writers

    kinds: dict[str, Any] = {**vars(writers), **vars(totals), **vars(raw_writers), **vars(readers)}
    failures: list[str] = []
    made = []
    for each in job["writers"]:
        kind = kinds[each.pop("kind")]
        made.append(kind(rng=random.Random(f"{job['seed']} {each['number']}"), **each))
    until = time.monotonic() + job["seconds"]
    threads = [threading.Thread(target=_work, args=(writer, until, failures)) for writer in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    books = [{"kind": type(each).__name__, "rows": each.book.rows, "met": each.book.met} for each in made]
    return {"books": books, "failures": failures}


def _work(writer: Any, until: float, failures: list[str]) -> None:
    from django.db import connections

    try:
        while time.monotonic() < until and not failures:
            writer.step()
            # The movers need some of the time, too.
            time.sleep(writer.rng.uniform(0, REST))
    except BaseException:
        failures.append(f"{type(writer).__name__} {writer.number}: {traceback.format_exc()}")
    finally:
        writer.close()
        connections.close_all()


if __name__ == "__main__":
    json.dump(main(json.loads(sys.stdin.readline())), sys.stdout)
