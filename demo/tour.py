"""
The demo from empty servers to the summary.
"""

from __future__ import annotations

from django.db import connections

from demo import cluster_setup, loading
from demo.chapters import CHAPTERS
from demo.data_set import DataSet
from demo.growing.chapter import grow
from demo.performance import perform
from demo.report import Report
from demo.step import steps_of
from scripts.cluster import Cluster
from sharding import cluster_map


def walk(
    data: DataSet, report: Report, cluster: Cluster, *, rows: int | None = None, corrupt: str | None = None
) -> int:
    """Prepare the cluster, run every step of every chapter, and return the exit code."""
    with report.timed("manage.py migrate_all: the tables, on every database"):
        cluster_setup.migrate()
    with report.timed("manage.py shards init: which shard owns which bucket"):
        cluster_setup.initialise()
    total = min(rows or loading.FLIGHTS, loading.FLIGHTS)
    with (
        report.timed("All rows in the cluster, and once more in one database"),
        report.progress("Flights", total) as advance,
    ):
        loaded = loading.load(data, advance, rows)
    if corrupt == "row":
        _corrupt(cluster_map.refresh().aliases[0])
    report.command("shards", "status", "--exact")
    for chapter in CHAPTERS:
        report.chapter(chapter)
        for step in steps_of(chapter):
            # The map of this process may be older than MAP_TTL; read it here, and a step shows its own statements.
            cluster_map.refresh()
            report.step(step, perform(step, {"without_tailnum": loaded.without_tailnum}))
    grow(cluster, report, corrupt=corrupt == "write")
    report.summary()
    return 1 if report.failed else 0


def _corrupt(alias: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute(
            "UPDATE flights_flight SET distance = distance + 1, arrival_delay = COALESCE(arrival_delay, 0) + 1 "
            "WHERE id = (SELECT id FROM flights_flight ORDER BY time_hour DESC, id DESC LIMIT 1)"
        )
