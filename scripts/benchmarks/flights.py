"""
The data of the benchmarks: the flights of the demo on four shards, and all of them in one database besides.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import django
from django.db import connections

from demo import data_set, records, servers
from demo.report import Report

FOLDER = Path("var/bench-cluster")
BATCH = 20_000


@contextmanager
def loaded(
    report: Report,
    folder: Path,
    rows: int | None,
    *,
    durable: bool = False,
    settings: str = "scripts.benchmarks.settings",
) -> Iterator[None]:
    """Keep servers up that hold the first ``rows`` flights (all by default), with ids as the cluster makes them."""
    data = data_set.obtain()
    with servers.running(folder, fast=not durable) as cluster:
        servers.export(cluster)
        _export_plain()
        os.environ["DJANGO_SETTINGS_MODULE"] = settings
        django.setup()
        from demo import cluster_setup

        cluster_setup.migrate()
        cluster_setup.initialise()
        with report.timed("Flights, planes and airports on 4 shards and in one database"):
            _load(data, rows)
            vacuum(connections)
        yield


def _export_plain() -> None:
    """Let settings reach the same databases once more, with Django's own ENGINE: what the cluster is compared with."""
    for name, url in list(os.environ.items()):
        if name.startswith("SHARD_URL_"):
            os.environ[servers.PLAIN_PREFIX + name.removeprefix("SHARD_URL_")] = url
    os.environ[servers.PLAIN_PREFIX + "CONTROL"] = os.environ["DATABASE_URL"]


def _load(data: data_set.DataSet, rows: int | None) -> None:
    from demo.flights.models import Airline, Airport, Flight, Plane

    airlines = [Airline(**record) for record in records.read(data.open("airlines"), records.AIRLINES)]
    for manager in (Airline.objects, Airline.objects.using(servers.REFERENCE)):
        manager.bulk_create(airlines)

    airports = list(records.read(data.open("airports"), records.AIRPORTS))
    Airport.objects.bulk_create([Airport(**record) for record in airports])
    _copy(Plane(**record) for record in records.read(data.open("planes"), records.PLANES))
    flights = islice(records.read(data.open("flights"), records.FLIGHTS), rows)
    for batch in records.batches((each for each in flights if each["plane_id"]), BATCH):
        _copy(Flight(**record) for record in batch)


def _copy(objects: Iterator[Any]) -> None:
    """Give the objects their bucket and id, and write each to its shard and to the one database."""
    from demo.copying import copy
    from sharding import cluster_map, registry

    owner = cluster_map.current().owner
    by_shard: dict[str, list[Any]] = defaultdict(list)
    for each in objects:
        each.bucket = registry.get(type(each)).bucket_of(each)
        if each.pk is None:
            each.pk = each._meta.pk.get_pk_value_on_save(each)
        by_shard[owner(each.bucket)].append(each)
    for alias, rows in by_shard.items():
        copy(rows, alias)
        copy(rows, servers.REFERENCE)


def vacuum(aliases: Iterable[str]) -> None:
    """Let no autovacuum start while something is measured, and give the planner its statistics."""
    for alias in aliases:
        with connections[alias].cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")
