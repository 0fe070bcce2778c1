"""Reference rows on each layout of the cluster."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from sharding import cluster_map
from sharding.testing.cluster import owners
from tests.layouts import LAYOUTS, Layout
from tests.reference.copies import MODELS, everywhere
from tests.shop.models import Country, Currency


@pytest.fixture(scope="package", params=LAYOUTS, ids=str)
def layout(request: pytest.FixtureRequest, django_db_setup: None, django_db_blocker) -> Iterator[Layout]:
    with django_db_blocker.unblock(), owners(*request.param.owners):
        yield request.param


@dataclass(frozen=True, slots=True)
class World:
    euro: Currency
    krona: Currency
    finland: Country
    sweden: Country


@pytest.fixture
def world(db: None) -> Iterator[World]:
    """Two countries, and after the test the same rows on all databases."""
    # What is asked once in a process is asked before statements are counted.
    cluster_map.current()
    euro, krona = Currency.objects.create(code="EUR"), Currency.objects.create(code="SEK")
    yield World(
        euro,
        krona,
        Country.objects.create(code="FI", name="Finland", currency=euro),
        Country.objects.create(code="SE", name="Sweden", currency=krona, rate=2),
    )
    for model in MODELS:
        everywhere(model)
