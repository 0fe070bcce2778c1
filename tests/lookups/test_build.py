"""`shards lookup build`: entries for rows that were there before their lookup."""

from __future__ import annotations

import json
import uuid

import pytest
from django.core.management.base import CommandError

from sharding import cluster_map, routing
from sharding.control import LookupState
from sharding.errors import ShardKeyMissing, UnknownLookup
from sharding.lookups import states
from sharding.operations import lookups
from sharding.operations.lookup_rows import Kind
from tests.layouts import CLUSTER
from tests.lookups.stored import (
    ACCOUNT,
    EMAIL,
    NAMES,
    change,
    differences,
    differences_of,
    emails,
    entries,
    lookup,
)
from tests.shards.command import refused, run
from tests.shop.models import Member, Seat
from tests.unfenced import unfenced

pytestmark = [pytest.mark.django_db(databases=CLUSTER), pytest.mark.usefixtures("forget")]


def test_build(rows, small_chunks):
    with pytest.raises(ShardKeyMissing):
        Member.objects.get(email="3@x")
    printed = run("lookup", "build")
    assert [line.split() for line in printed.splitlines() if line.startswith("shop_member_email")] == [
        [EMAIL, "8", "7", "yes"]
    ]
    assert differences() == []
    assert Member.objects.get(email="3@x") == rows[3]
    assert Seat.objects.get(code="a1").number == 1


def test_build_again_changes_nothing(rows):
    run("lookup", "build")
    found = json.loads(run("lookup", "build", "--json"))["lookups"]
    assert [(each["lookup"], each["repaired"], each["built"]) for each in found] == [(name, 0, True) for name in NAMES]


def test_build_one(rows):
    run("lookup", "build", EMAIL)
    assert [name for name in NAMES if states.is_built(name)] == [EMAIL]
    run("lookup", "build", "shop.Member")
    assert [name for name in NAMES if states.is_built(name)] == NAMES[:3]


def test_only_the_rows_of_owners_count(rows, layout, tenants):
    """A copy of a bucket that has gone to another shard is nobody's row."""
    other = next(alias for alias in CLUSTER if alias not in {layout.home, layout.away})
    with routing.native(other), unfenced(other, "shop_member"):
        Member.objects.using(other).create(id=rows[0].pk, bucket=rows[0].bucket, tenant_id=tenants[0], email="old@x")
    run("lookup", "build")
    assert "old@x" not in emails()


def test_what_two_rows_share_is_told_by_their_ids(rows, layout):
    change(rows[4], subject=1)
    printed, complaint = refused("lookup", "build", ACCOUNT)
    assert complaint == (f"Not built: {ACCOUNT}. Give the rows that share a value different ones, and build again.")
    assert "another row has the same unique value" in printed
    assert str(rows[1].pk) in printed
    assert str(rows[4].pk) in printed
    assert not states.is_built(ACCOUNT)
    change(rows[4], subject=4)
    run("lookup", "build", ACCOUNT)
    assert Member.objects.get(provider="p", subject=4) == rows[4]


def test_an_interrupted_build_goes_on(rows, small_chunks):
    class Interrupted(Exception):
        pass

    def interrupt(step):
        raise Interrupted

    with pytest.raises(Interrupted):
        lookups.build(lookup(), interrupt)
    done = set(entries())
    assert len(done) in {1, 2}
    assert not states.is_built(EMAIL)
    seen = []
    report = lookups.build(lookup(), lambda step: seen.append(step.rows))
    assert report.built
    assert sum(seen) == 8 - 2
    assert differences_of(EMAIL) == []


def test_an_interrupted_build_meets_duplicates_again(rows, small_chunks):
    """What was wrong before the interruption is not forgotten."""
    change(rows[1], subject=0)

    def interrupt(step):
        if any(finding.kind is Kind.TAKEN for finding in step.findings):
            raise InterruptedError

    for _ in range(2):
        with pytest.raises(InterruptedError):
            lookups.build(lookup(ACCOUNT), interrupt)
    assert not lookups.build(lookup(ACCOUNT)).built


def test_a_build_begins_anew_when_the_map_has_changed(rows):
    """A row may have gone from a shard not yet read to one that was."""
    state, _ = LookupState.objects.using("default").get_or_create(name=EMAIL)
    state.progress = json.dumps({"epoch": -1, "places": {alias: [4096, str(uuid.UUID(int=0))] for alias in CLUSTER}})
    state.save(using="default")
    assert lookups.build(lookup()).rows == 8


def test_buckets_that_move_meanwhile_are_read_again(rows, layout, monkeypatch):
    before = cluster_map.current()
    maps = iter([before, before.moved({rows[0].bucket: layout.away or "shard_a"})])
    monkeypatch.setattr(cluster_map, "refresh", lambda: next(maps, before))
    assert lookups.build(lookup()).built
    assert next(maps, None) is None


def test_names(rows):
    assert [each.name for each in lookups.named()] == NAMES
    assert [each.name for each in lookups.named(["shop.seat", EMAIL, EMAIL.upper()])] == [NAMES[3], EMAIL]
    with pytest.raises(UnknownLookup) as raised:
        lookups.named(["shop.order"])
    assert str(raised.value) == (f"'shop.order' is no lookup, and no model with lookups. There are {', '.join(NAMES)}.")
    assert raised.value.lookup == "shop.order"
    with pytest.raises(CommandError, match="'x' is no lookup"):
        run("lookup", "verify", "x")


def test_no_model_declares_one(monkeypatch):
    monkeypatch.setattr(lookups.registry, "entries", lambda: iter(()))
    assert run("lookup", "build") == "No model declares a lookup.\n"
    with pytest.raises(UnknownLookup, match="There are none"):
        lookups.named(["x"])
