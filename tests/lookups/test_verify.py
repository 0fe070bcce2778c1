"""`shards lookup verify`: what is wrong between rows and entries, and that it can be put right."""

from __future__ import annotations

import json

import pytest
from django.db import connections

from sharding import routing
from sharding.operations import lookup_orphans, lookups
from sharding.operations.lookup_rows import Kind
from tests.layouts import CLUSTER
from tests.lookups.stored import ACCOUNT, EMAIL, change, differences_of, entries, lookup, shard_of, tamper
from tests.shards.command import refused, run
from tests.shop.models import Member

pytestmark = [pytest.mark.django_db(databases=CLUSTER), pytest.mark.usefixtures("forget")]


def _delete_raw(row):
    alias = shard_of(row)
    with routing.native(alias), connections[alias].cursor() as cursor:
        value = row.pk.hex if connections[alias].vendor == "sqlite" else row.pk
        cursor.execute("DELETE FROM shop_member WHERE id = %s", [value])


@pytest.fixture(autouse=True)
def built(rows):
    run("lookup", "build")


def test_sound(rows):
    printed = run("lookup", "verify")
    assert [line.split() for line in printed.splitlines() if line.startswith(EMAIL)] == [[EMAIL, "8", "7", "0", "yes"]]


@pytest.fixture(
    params=[
        (Kind.MISSING, lambda row: tamper().filter(pk=row.pk)._raw_delete("default")),
        (Kind.VALUE, lambda row: tamper().filter(pk=row.pk).update(email="other@x")),
        (Kind.BUCKET, lambda row: tamper().filter(pk=row.pk).update(bucket=(row.bucket + 1) % 4096)),
        (Kind.ORPHAN, lambda row: [_delete_raw(row)]),
    ],
    ids=lambda each: str(each[0]),
)
def damage(request, rows):
    kind, act = request.param
    act(rows[2])
    return kind


def test_what_is_wrong(damage, rows):
    printed, complaint = refused("lookup", "verify", EMAIL, "--json")
    [found] = json.loads(printed)["lookups"]
    [finding] = found["findings"]
    assert (finding["kind"], finding["rows"], finding["repaired"]) == (str(damage), 1, 0)
    assert finding["database"] == shard_of(rows[2])
    assert finding["examples"] == [{"id": str(rows[2].pk), "other": None}]
    assert complaint == f"Not all entries are right: 1 in {EMAIL}."
    assert "@x" not in printed


def test_repair(damage):
    assert differences_of(EMAIL)
    run("lookup", "verify", "--repair", EMAIL)
    assert differences_of(EMAIL) == []
    run("lookup", "verify", EMAIL)


def test_an_entry_of_a_row_without_a_value(rows):
    tamper().filter(pk=rows[0].pk).update(email="keep@x")
    change(rows[0], email=None)
    run("lookup", "verify", "--repair", EMAIL)
    assert rows[0].pk not in entries()


def test_what_two_rows_share_cannot_be_repaired(rows):
    change(rows[4], subject=1)
    printed, _ = refused("lookup", "verify", "--repair", ACCOUNT, "--json")
    [found] = json.loads(printed)["lookups"]
    [finding] = found["findings"]
    assert finding["kind"] == "taken"
    assert finding["examples"] == [{"id": str(rows[4].pk), "other": str(rows[1].pk)}]
    assert rows[4].pk not in entries(ACCOUNT)


def test_in_chunks(rows, monkeypatch, small_chunks):
    monkeypatch.setattr(lookup_orphans, "CHUNK", 2)
    tamper().filter(pk=rows[6].pk)._raw_delete("default")
    _delete_raw(rows[5])
    report = lookups.verify(lookup())
    assert {kind for _, kind in report.tallies} == {Kind.MISSING, Kind.ORPHAN}
    assert (report.rows, report.entries) == (7, 6)


def test_two_rows_whose_entries_are_exchanged(rows):
    """The value of each is taken until the other one's entry is put right."""
    one, two = rows[2:4]
    for row, email in ((one, "between@x"), (two, one.email), (one, two.email)):
        tamper().filter(pk=row.pk).update(email=email)
    run("lookup", "verify", "--repair", EMAIL)
    assert differences_of(EMAIL) == []


def test_a_value_that_an_orphan_has(rows):
    tamper().filter(pk=rows[2].pk)._raw_delete("default")
    orphan = lookup().model(pk=Member._meta.pk.mint(rows[2].bucket), bucket=rows[2].bucket, email=rows[2].email)
    tamper().bulk_create([orphan])
    run("lookup", "verify", "--repair", EMAIL)
    assert differences_of(EMAIL) == []
