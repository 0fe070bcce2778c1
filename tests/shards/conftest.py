"""A cluster that can be initialised, and one map before and after every test."""

from __future__ import annotations

import pytest
from django.db import DEFAULT_DB_ALIAS

from sharding import cluster_map
from sharding.control import BucketOwner, Cluster, ShardIdentity, ShardNumber
from tests.shards.command import ALIASES


@pytest.fixture(autouse=True)
def same_map_afterwards(monkeypatch):
    monkeypatch.setattr(cluster_map, "_loaded", cluster_map._loaded)


@pytest.fixture
def blank(db):
    """The cluster as it is before `shards init`; all is rolled back."""
    for model in (Cluster, BucketOwner, ShardNumber):
        model.objects.using(DEFAULT_DB_ALIAS).all().delete()
    for alias in ALIASES:
        ShardIdentity.objects.using(alias).all().delete()
    cluster_map.forget()
