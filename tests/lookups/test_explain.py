"""What `shards explain` and `aggregator.explain()` say of a query that a lookup answers."""

from __future__ import annotations

import json

import pytest

from aggregator import explain
from aggregator.planner import Tier
from sharding.control import LookupState
from sharding.lookups import states
from tests.layouts import CLUSTER
from tests.lookups.stored import EMAIL
from tests.shards.command import run
from tests.shop.models import Member

pytestmark = pytest.mark.django_db(databases=CLUSTER)


def test_one_row(club, layout):
    found = explain(Member.objects.filter(email="ada@x"))
    assert (found.tier, found.shards, found.buckets) == (
        Tier.ONE_SHARD,
        (layout.home,),
        frozenset({club.ada.bucket}),
    )
    command = json.loads(run("explain", "shop.Member", "email=ada@x", "--json"))
    assert (command["tier"], command["shards"], command["buckets"]) == (
        "one shard",
        [layout.home],
        [club.ada.bucket],
    )
    assert command["why"] == (f"The lookup {EMAIL} names bucket {club.ada.bucket}, which {layout.home!r} owns.")
    assert command["refusal"] is None


def test_no_row(club):
    assert explain(Member.objects.filter(email="nobody@x")).buckets == frozenset()
    command = json.loads(run("explain", "shop.Member", "email=nobody@x", "--json"))
    assert (command["tier"], command["shards"]) == ("no query", [])
    assert command["why"] == f"The lookup {EMAIL} has no such entry, so no shard is asked."


def test_several_rows(club, layout):
    found = explain(Member.objects.filter(city="Rome"))
    assert (found.tier, set(found.shards)) == (Tier.MERGE, {layout.home, layout.away or layout.home})
    command = json.loads(run("explain", "shop.Member", "city=Oslo", "--json"))
    assert command["tier"] == "merge"
    assert command["why"].startswith("The lookup shop_member_city_lookup names 1 bucket; the aggregator merges")


def test_not_built(club):
    LookupState.objects.using("default").filter(name=EMAIL).update(built=False)
    states.forget()
    try:
        assert "shards lookup build" in explain(Member.objects.filter(email="ada@x")).reason
        command = json.loads(run("explain", "shop.Member", "email=ada@x", "--json"))
        assert command["buckets"] is None
    finally:
        states.forget()
