"""Without shards, a reference model is an ordinary one: the statements are those of Django's own backend."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from django.db import transaction
from django.test import override_settings

from sharding import cluster_map, reference_models
from sharding.testing.cluster import owners
from sharding.testing.statements import statements
from tests.layouts import SHOP_ONLY
from tests.shop.models import Country, Currency

pytestmark = pytest.mark.django_db(databases=["default", "plain"], transaction=True, available_apps=SHOP_ONLY)


@pytest.fixture(autouse=True)
def cluster_of_one(transactional_db: None) -> Iterator[None]:
    with owners("default"), override_settings(SHARDING={"SHARDS": []}):
        # Read once in a process.
        cluster_map.refresh()
        yield


def written(alias: str) -> list[str]:
    """Return what is sent, with the names of savepoints and of Django's own connection left out."""
    with statements(transactions=True) as sent:
        currency = Currency.objects.using(alias).create(code="NOK")
        country = Country(code="NO", name="Norge", currency=currency)
        country.save(using=alias)
        country.name = "?"
        country.save(using=alias)
        Country.objects.using(alias).filter(currency__digits=2).update(rate=2)
        other, _ = Country.objects.using(alias).get_or_create(code="DK", defaults={"name": "Danmark"})
        country.neighbours.add(other)
        with transaction.atomic(using=alias):
            Country.objects.using(alias).bulk_create(
                [Country(code="DK", name="Danmark")],
                update_conflicts=True,
                unique_fields=["code"],
                update_fields=["name"],
            )
            list(Country.objects.using(alias).select_for_update().filter(code="DK"))
        other.delete()
        Currency.objects.using(alias).all().delete()
    assert list(sent) == [alias]
    return [re.sub(r'"s\d+_x\d+"', "", sql) for sql in sent[alias]]


def test_the_same_statements_are_sent() -> None:
    assert reference_models.is_reference(Country)
    assert written("default") == written("plain")
    assert not Country.objects.exists()
