"""
Compare all rows of the shards' own tables, past the cluster, with those of the one database that holds all rows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import psycopg
from django.db import models

from demo.flights.models import Booking, Flight, Plane
from demo.servers import REFERENCE
from scripts.cluster import Cluster

MODELS: tuple[type[models.Model], ...] = (Plane, Flight, Booking)


@dataclass
class Compared:
    """How many rows each server has, and what is wrong with them."""

    rows: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @property
    def failure(self) -> str | None:
        return "; ".join(self.wrong) or None


def compare(cluster: Cluster) -> Compared:
    """Compare the rows of all servers with those of the reference database: each is there once, and as it is there."""
    compared = Compared()
    for model in MODELS:
        wanted = _rows(cluster.url("control", database=REFERENCE), model)
        found: Counter[str] = Counter()
        for name in sorted(server.name for server in cluster.status()):
            rows = _rows(cluster.url(name), model)
            found += rows
            compared.rows[name] = compared.rows.get(name, 0) + rows.total()
        for difference, what in ((wanted - found, "missing or otherwise"), (found - wanted, "surplus or otherwise")):
            if difference:
                example = next(iter(difference)).split("\t")[0]
                compared.wrong.append(
                    f"{difference.total():,} rows of {model._meta.label} are {what}, {example} for one"
                )
    return compared


def _rows(url: str, model: type[models.Model]) -> Counter[str]:
    fields: Any = model._meta.concrete_fields
    # The primary key first: it stands for the row where one is named.
    names = sorted((each.column for each in fields), key=lambda name: name != model._meta.pk.column)
    query: Any = f"COPY (SELECT {', '.join(names)} FROM {model._meta.db_table}) TO STDOUT"
    with psycopg.connect(url) as connection, connection.cursor() as cursor, cursor.copy(query) as copy:
        data = b"".join(bytes(block) for block in copy)
    return Counter(data.decode().splitlines())
