"""
A table with a column of every type whose order or equality has a trap, and the values that are in it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.apps import apps
from django.contrib.postgres.fields import ArrayField, DateRangeField, DateTimeRangeField, DecimalRangeField
from django.db import connections, models

from sharding import registry, shard_of
from sharding.fields import ShardUUIDField
from sharding.ids import new_uuid
from sharding.models import ShardedModel
from tests import servers
from tests.differential.data import REFERENCE, TENANTS
from tests.ranks.comparing import Named

ROWS = 5
TABLE = "shop_kind"
MOODS = ("sad", "ok", "happy", "Ärger")
#: {name: (field, values)}; of values that are equal, the driver makes equal ones of Python, where not said otherwise.
KINDS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "int": (models.IntegerField(), ("1", "2", "-1", "10")),
    "float": (models.FloatField(), ("NaN", "Infinity", "-Infinity", "-0", "0", "1.5", "1e300", "-1.5")),
    "real": (Named("real"), ("NaN", "-Infinity", "-0", "0", "0.1", "16777217")),
    "number": (Named("numeric"), ("NaN", "Infinity", "0", "1.0", "1.00", "1", "-2.50", "1e30", "0.000000001")),
    "decimal": (models.DecimalField(max_digits=12, decimal_places=4), ("NaN", "1.0", "1", "-2.50", "1000000.1234")),
    "date": (models.DateField(), ("2013-01-01", "0001-01-01", "9999-12-31", "2012-02-29")),
    "moment": (
        models.DateTimeField(),
        ("2013-01-01 00:00Z", "2013-01-01 00:00:00.000001Z", "2013-01-01 02:00+02", "9999-12-31 00:00Z"),
    ),
    "time": (models.TimeField(), ("00:00", "23:59:59.999999", "12:00")),
    "timetz": (Named("timetz"), ("00:00+02", "22:00+00", "23:00+01", "12:00-05", "17:00+00")),
    # A month is 30 days, and a year 360: the driver takes 365 for these.
    "interval": (
        models.DurationField(),
        ("30 days", "1 mon", "720:00:00", "-1 day", "24:00", "1 year", "12 mons", "360 days", "361 days", "-1 year"),
    ),
    "uuid": (models.UUIDField(), tuple(f"{first}0000000-0000-0000-0000-000000000001" for first in "08f")),
    "bytes": (models.BinaryField(), ("\\x", "\\x00", "\\xff", "\\x0001", "\\x7f80")),
    "truth": (models.BooleanField(), ("t", "f")),
    "text": (models.TextField(), ("a", "B", "b", "é", "_", "\U0001f600", "\uffee", " ")),
    "padded": (Named("character(9)"), ("b", "a", "B", "abcdefgh", "abcdefgha", "a  ")),
    "bits": (Named("bit(4)"), ("0000", "1111", "1010", "0101")),
    "varbits": (Named("bit varying"), ("0", "1", "10", "01", "0000")),
    "inet": (models.GenericIPAddressField(), ("10.0.0.1", "10.0.0.1/8", "::1", "9.1.2.3")),
    "cidr": (Named("cidr"), ("10.0.0.0/8", "10.0.0.0/16", "::/0", "1.2.3.4/32")),
    "mac": (Named("macaddr"), ("08:00:2b:01:02:03", "FF-00-2b-01-02-03", "08002b:010204")),
    "mood": (Named("kind_mood"), MOODS),
    "json": (models.JSONField(), ("1", "1.0", "10", "9", '"b"', '"B"', "[]", "[1]", "{}", '{"b": 1}', "true")),
    "ints": (ArrayField(models.IntegerField()), ("{}", "{NULL}", "{1,NULL}", "{1}", "{10}", "{9,1}", "{1,2}")),
    "nested": (
        ArrayField(ArrayField(models.IntegerField())),
        ("{}", "{{1,2},{3,4}}", "{{1},{2}}", "{{NULL,1}}", "{{1,2}}"),
    ),
    "texts": (
        ArrayField(models.TextField()),
        ("{}", '{"a,b"}', '{"\\""}', "{NULL,a}", '{"NULL"}', "{B}", "{é}", '{""}'),
    ),
    "floats": (ArrayField(models.FloatField()), ("{NaN}", "{Infinity}", "{-0}", "{0}", "{0,NULL}", "{1}")),
    "moods": (Named("kind_mood[]"), ("{sad}", "{ok}", "{happy,sad}", "{NULL,ok}", "{}")),
    "padded_ones": (Named("character(3)[]"), ("{a}", "{ab}", "{abc,b}", "{NULL}")),
    "intervals": (ArrayField(models.DurationField()), ("{1 year}", "{361 days}", "{1 mon}", "{30 days}")),
    "range": (DecimalRangeField(), ("empty", "[1,3]", "[1.0,3.00]", "(,5)", "[1,)", "(0,3)")),
    "days": (DateRangeField(), ("empty", "[2013-01-01,2013-02-01)", "(,2013-01-01)", "[2013-01-01,)")),
    "moments": (DateTimeRangeField(), ("empty", "[2013-01-01,2013-02-01)", "(,2013-01-01)", "[2013-01-01,)")),
}
#: Those of which one database itself has no greatest value: no version of PostgreSQL, or the newest only.
WITHOUT_MAXIMUM = {"uuid", "bytes", "truth", "bits", "varbits", "mac", "json", "range", "days", "moments", "cidr"}


@contextmanager
def table() -> Iterator[Any]:
    """Yield a model whose rows lie on all shards, and the same ones in the reference database."""
    known = dict(registry._models)
    # Among the project's models, since rows are gathered by the labels of these.
    model = type("Kind", (ShardedModel,), {"__module__": "tests.shop.models", "Meta": _Meta, **_columns()})
    try:
        for alias in (*servers.SHARDS, REFERENCE):
            _create(alias, model)
        _fill(model)
        yield model
    finally:
        for alias in (*servers.SHARDS, REFERENCE):
            _execute(alias, f"DROP TABLE IF EXISTS {TABLE}")
            _execute(alias, "DROP TYPE IF EXISTS kind_mood")
        del apps.all_models["shop"]["kind"]
        apps.clear_cache()
        registry._models.clear()
        registry._models.update(known)
        registry.reset()


class _Meta:
    app_label = "shop"
    db_table = TABLE


def _columns() -> dict[str, Any]:
    fields = {name: field.clone() for name, (field, _) in KINDS.items()}
    for field in fields.values():
        field.null = True
    keys = {"shard_key": "tenant_id", "id": ShardUUIDField(primary_key=True), "tenant_id": models.IntegerField()}
    return {**keys, **fields}


def _create(alias: str, model: Any) -> None:
    labels = ", ".join(f"'{mood}'" for mood in MOODS)
    _execute(alias, f"CREATE TYPE kind_mood AS ENUM ({labels})")
    columns = (f'"{field.column}" {field.db_type(connections[alias])}' for field in model._meta.concrete_fields)
    _execute(alias, f"CREATE TABLE {TABLE} ({', '.join(columns)})")


def _fill(model: Any) -> None:
    rng = random.Random(1)
    for tenant in TENANTS:
        alias = shard_of(tenant, model=model)
        for _ in range(ROWS):
            bucket = registry.get(model).bucket_of_key(tenant)
            row = {"bucket": bucket, "id": new_uuid(bucket), "tenant_id": tenant}
            row |= {name: rng.choice([*values, None]) for name, (_, values) in KINDS.items()}
            names = ", ".join(f'"{name}"' for name in row)
            sql = f"INSERT INTO {TABLE} ({names}) VALUES ({', '.join(['%s'] * len(row))})"
            for each in (alias, REFERENCE):
                _execute(each, sql, list(row.values()))


def _execute(alias: str, sql: str, params: list[Any] | None = None) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql, params)
