"""
Members on each layout of the cluster, and what every test about writes ends with: entries are what the rows say.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.test.utils import isolate_apps

from sharding import registry
from sharding.backends import lookup_reads
from sharding.control import LookupState
from sharding.lookups import states
from sharding.operations import lookup_rows
from sharding.testing.cluster import owners
from tests import servers
from tests.layouts import LAYOUTS, Layout, tenant_on
from tests.lookups.stored import NAMES, differences, tamper
from tests.shop.models import Member, Seat

# SQLite has neither two-phase commit nor several writers.
POSTGRESQL_ONLY = ["test_between_commits.py", "test_blocks.py", "test_build_online.py", "test_snapshots.py"]
collect_ignore = [] if servers.engine == "postgresql" else POSTGRESQL_ONLY


@pytest.fixture(scope="package", params=LAYOUTS, ids=str)
def layout(request: pytest.FixtureRequest, django_db_setup: None, django_db_blocker) -> Iterator[Layout]:
    with django_db_blocker.unblock(), owners(*request.param.owners):
        yield request.param


@pytest.fixture
def kept() -> Iterator[None]:
    """Fail after the test where an entry is not what its row says."""
    yield
    assert differences() == []


@pytest.fixture
def patient(monkeypatch):
    """Let readers wait for a commit under way however slow the machine is."""
    monkeypatch.setattr(lookup_reads, "PATIENCE", 60)


@pytest.fixture
def isolated(monkeypatch):
    """Models made by a test are in no registry afterwards."""
    monkeypatch.setattr(registry, "_models", dict(registry._models))
    registry.reset()
    with isolate_apps("tests.shop") as apps:
        yield apps
    registry.reset()


@pytest.fixture
def tenants(layout):
    """A tenant at home, and one on another shard where there is one."""
    return tenant_on(layout.home), tenant_on(layout.away or layout.home, 1)


@pytest.fixture
def ada(tenants):
    return Member.objects.create(tenant_id=tenants[0], email="ada@x", city="Rome", provider="p", subject=1)


@pytest.fixture
def ben(tenants):
    return Member.objects.create(tenant_id=tenants[1], email="ben@x", city="Rome")


@pytest.fixture
def rows(tenants):
    """Rows that were there before their lookups."""
    made = [
        Member.objects.create(
            tenant_id=tenants[place % 2], email=f"{place}@x", city="Rome", provider="p", subject=place
        )
        for place in range(7)
    ]
    Member.objects.create(tenant_id=tenants[0])
    Seat.objects.create(tenant_id=tenants[0], number=1, code="a1")
    for name in NAMES:
        tamper(name).all()._raw_delete("default")
    LookupState.objects.using("default").all().delete()
    states.forget()
    return made


@pytest.fixture
def forget(layout):
    yield
    states.forget()


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(lookup_rows, "CHUNK", 2)


class Club:
    """Ada and Ben at home, Cleo elsewhere; all in Rome but Ben."""

    def __init__(self, layout: Layout) -> None:
        here, there = tenant_on(layout.home), tenant_on(layout.away or layout.home, 1)
        self.ada = Member.objects.create(tenant_id=here, email="ada@x", city="Rome", provider="p", subject=1)
        self.ben = Member.objects.create(tenant_id=here, email="ben@x", city="Oslo", provider="p", subject=2)
        self.cleo = Member.objects.create(tenant_id=there, email="cleo@x", city="Rome", provider="q", subject=3)


@pytest.fixture
def club(layout: Layout) -> Club:
    for name in NAMES:
        assert states.is_built(name)
    return Club(layout)
