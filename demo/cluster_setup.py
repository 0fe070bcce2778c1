"""
From empty servers to a cluster, by the commands that a project would run.
"""

from __future__ import annotations

import io

from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS

from demo.servers import REFERENCE
from sharding import conf


def migrate() -> None:
    """Make the tables of the control database, of every shard, and of the reference database."""
    # Named one by one, since the benchmark has further aliases of the same databases.
    call_command("migrate_all", database=[DEFAULT_DB_ALIAS, *conf.current().shards, REFERENCE], verbosity=0)


def initialise() -> None:
    """Deal the buckets evenly to the shards, tell every database who it is, and let lookups answer."""
    call_command("shards", "init", stdout=io.StringIO())
    call_command("shards", "lookup", "build", stdout=io.StringIO())
