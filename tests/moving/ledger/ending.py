"""
What is there in the end, on all shards, is compared with the books.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import connections

from sharding import cluster_map, registry
from sharding.backends.raw_sql import CONTROL_ONLY
from sharding.fence import states
from sharding.models import CleanUp, CopyProgress, Dirty
from sharding.operations import audit
from tests.layouts import CLUSTER
from tests.moving.ledger.book import shape
from tests.shop.models import Customer, Ledger, Line, Order

#: What is compared of each row, beside its primary key.
COMPARED: dict[type[Any], tuple[str, ...]] = {
    Customer: ("name",),
    Order: ("total", "quantity", "status"),
    Line: ("amount",),
    Ledger: ("text",),
}


def found() -> tuple[dict[str, str], list[str]]:
    """Return all rows of all shards, and what is there more than once."""
    rows: dict[str, str] = {}
    twice = []
    for alias in CLUSTER:
        for model, fields in COMPARED.items():
            for key, *values in _rows(alias, model, fields):
                name = f"{model.__name__} {key}"
                twice += [f"{name} on {alias}"] * (name in rows)
                rows[name] = shape(*values)
    return rows, twice


def assert_books(expected: dict[str, str]) -> None:
    rows, twice = found()
    lost = sorted(expected.keys() - rows.keys())
    more = sorted(rows.keys() - expected.keys())
    others = {key: (rows[key], expected[key]) for key in rows.keys() & expected.keys()}
    other = {key: pair for key, pair in others.items() if pair[0] != pair[1]}
    assert (lost, more, other, twice) == ([], [], {}, [])


def assert_tidy() -> None:
    """Nothing is left of the moves, and the shards have what they should have."""
    known = cluster_map.refresh()
    assert not CleanUp.objects.using("default").exists()
    for alias in CLUSTER:
        assert not Dirty.objects.using(alias).exists()
        assert not CopyProgress.objects.using(alias).exists()
        fence = {bucket: str(row.state) for bucket, row in states.states(connections[alias]).items()}
        assert fence == dict.fromkeys(known.buckets_of(alias), "owned")
        for model in COMPARED:
            steps = list(audit.audit(registry.get(model), alias, known))
            assert [each for step in steps for each in step.findings] == []


def _rows(alias: str, model: Any, fields: Sequence[str]) -> list[tuple[Any, ...]]:
    columns = ", ".join(f'"{model._meta.get_field(name).column}"' for name in fields)
    key = "tenant_id, number" if model is Ledger else "id"
    with connections[alias].cursor() as cursor:
        cursor.execute(f'{CONTROL_ONLY} SELECT {key}, {columns} FROM "{model._meta.db_table}"')
        found = cursor.fetchall()
    width = key.count(",") + 1
    return [((row[:width] if width > 1 else row[0]), *row[width:]) for row in found]
