"""
From empty servers to a cluster: the tables on every database, and the bucket map.
"""

from __future__ import annotations

from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS

from demo.servers import REFERENCE
from sharding import conf, placement
from sharding.initialisation import identify_all, initialise


def migrate() -> None:
    """Make the tables of the control database, of every shard, and of the reference database."""
    for alias in (DEFAULT_DB_ALIAS, *conf.current().shards, REFERENCE):
        call_command("migrate", database=alias, verbosity=0, interactive=False)


def initialise_cluster() -> None:
    """Deal the buckets evenly to the shards, and tell every database who it is."""
    settings = conf.current()
    initialise(placement.propose(settings.placement, settings.shards, settings.buckets).owners)
    identify_all()
