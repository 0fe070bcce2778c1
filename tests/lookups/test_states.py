"""When a lookup may answer: what is remembered, and what a change of its table means."""

from __future__ import annotations

import time

import pytest
from django.db import connections, models

from sharding import conf, registry
from sharding.control import LookupState
from sharding.lookups import states
from sharding.models import LookupIndex
from sharding.testing.statements import assert_statements
from tests.clocks import change_time
from tests.model_checks.bases import Uuid

pytestmark = pytest.mark.django_db(transaction=True, databases=["default"], available_apps=["sharding", "tests.shop"])

NAME = "shop_invoice_email_lookup"


@pytest.fixture(autouse=True)
def forget():
    states.forget()
    yield
    LookupState.objects.using("default").filter(name=NAME).delete()
    states.forget()


@pytest.fixture
def made(isolated):
    class Invoice(Uuid):
        shard_key = "tenant_id"
        lookups = [LookupIndex(fields=["email"])]
        tenant_id = models.IntegerField()
        email = models.EmailField()

    [lookup] = registry.get(Invoice).lookups
    return lookup.model


def test_that_it_is_built_is_remembered_for_a_while(monkeypatch):
    states.mark_built([NAME])
    assert states.is_built(NAME)
    with assert_statements({}):
        assert states.is_built(NAME)
    LookupState.objects.using("default").filter(name=NAME).update(built=False)
    assert states.is_built(NAME)
    later = time.monotonic() + conf.current().map_ttl + 1
    change_time(monkeypatch, "sharding.lookups.states", monotonic=lambda: later)
    assert not states.is_built(NAME)


def test_that_it_is_not_is_asked_again():
    assert not states.is_built(NAME)
    states.mark_built([NAME])
    assert states.is_built(NAME)


def test_another_cluster_has_other_lookups(settings):
    states.mark_built([NAME])
    assert states.is_built(NAME)
    settings.SHARDING = {**settings.SHARDING, "MAP_TTL": 7}
    assert states._built == {}


def test_a_database_without_the_toolkits_tables(monkeypatch):
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(LookupState._meta, "db_table", "sharding_lookup_of_nobody")
        assert not states.is_built(NAME)
        states.mark_empty(connections["default"], NAME)


def test_a_new_table_is_empty(made):
    """Whatever is known of a table that had this name before."""
    states.mark_built([NAME])
    assert states.is_built(NAME)
    with connections["default"].schema_editor() as editor:
        editor.create_model(made)
    try:
        assert not states.is_built(NAME)
        states.mark_built([NAME])
    finally:
        with connections["default"].schema_editor() as editor:
            editor.delete_model(made)
    assert not LookupState.objects.using("default").filter(name=NAME).exists()


def test_an_altered_table_keeps_its_entries(made):
    """On SQLite it is copied under a new name."""
    with connections["default"].schema_editor() as editor:
        editor.create_model(made)
    try:
        states.mark_built([NAME])
        old = made._meta.get_field("email")
        new = models.EmailField(max_length=300)
        new.set_attributes_from_name("email")
        new.model = made
        with connections["default"].schema_editor() as editor:
            editor.alter_field(made, old, new)
        assert LookupState.objects.using("default").get(name=NAME).built
    finally:
        with connections["default"].schema_editor() as editor:
            editor.delete_model(made)


def test_a_migration_that_is_only_printed_changes_nothing(made):
    states.mark_built([NAME])
    with connections["default"].schema_editor(collect_sql=True) as editor:
        editor.create_model(made)
        editor.delete_model(made)
    assert states.is_built(NAME)


def test_the_state_tells_what_it_is():
    assert str(LookupState(name="x")) == "x is not built"
    assert str(LookupState(name="x", built=True)) == "x is built"
