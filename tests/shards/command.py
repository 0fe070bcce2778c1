"""Run the command `shards` and put rows where the toolkit itself would not."""

from __future__ import annotations

import io

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import DEFAULT_DB_ALIAS, connections

from sharding import routing
from sharding.control import BucketOwner
from tests.unfenced import unfenced

SHARDS = ["shard_a", "shard_b", "shard_c"]
ALIASES = ["default", *SHARDS]
ROLLED_BACK = pytest.mark.django_db(databases=ALIASES)
INITIALISED = "This cluster is initialised already. Buckets move with `manage.py rebalance`."


def run(*arguments):
    """Return what the command prints."""
    out = io.StringIO()
    call_command("shards", *arguments, stdout=out)
    return out.getvalue()


def refused(*arguments):
    """Return what the command prints before it fails, and its complaint."""
    out = io.StringIO()
    with pytest.raises(CommandError) as raised:
        call_command("shards", *arguments, stdout=out)
    assert raised.value.returncode == 1
    return out.getvalue(), str(raised.value)


def lines(text):
    return [line.rstrip() for line in text.splitlines()]


def owners():
    return list(BucketOwner.objects.using(DEFAULT_DB_ALIAS).order_by("bucket").values_list("shard", flat=True))


def execute(alias, sql, *params):
    with connections[alias].cursor() as cursor, routing.native(alias):
        cursor.execute(sql, params)
        return cursor.rowcount


def row_on(alias, tenant_id):
    """Store a row on a database that may not own it, with the bucket 0, as the table of an adopter has it."""
    with unfenced(alias, "shop_ledger"):
        execute(alias, "INSERT INTO shop_ledger (bucket, tenant_id, number, text) VALUES (0, %s, 1, '')", tenant_id)
