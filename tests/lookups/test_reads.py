"""Reads by a second key: which databases are asked, and what they answer."""

from __future__ import annotations

import pytest
from django.db import transaction
from django.db.models import Count, Exists, F, OuterRef, Q
from django.db.models.functions import Lower

from aggregator import fan_out
from sharding.errors import CannotMerge, GlobalJoin, ShardKeyMissing
from sharding.testing.statements import assert_no_fan_out, assert_statements, statements
from tests.layouts import CLUSTER
from tests.lookups.stored import EMAIL, tamper
from tests.shop.models import Member, Note, Seat

pytestmark = pytest.mark.django_db(databases=CLUSTER)


def test_get_asks_the_lookup_and_one_shard(club, layout):
    with assert_no_fan_out(), assert_statements(layout.expect(default=1, home=1)) as sent:
        assert Member.objects.get(email="ada@x") == club.ada
    assert sent["default"][0] == (f'SELECT "bucket" FROM "{EMAIL}" WHERE "{EMAIL}"."email" = %s')


@pytest.mark.parametrize(
    "ask",
    [
        lambda rows: rows.get(),
        lambda rows: rows.first(),
        lambda rows: rows.exists(),
        lambda rows: rows.count(),
        lambda rows: list(rows),
        lambda rows: list(rows.values("city")),
        lambda rows: list(rows.values_list("city", flat=True)),
        lambda rows: list(rows.order_by("city")[:1]),
        lambda rows: list(rows.iterator()),
        lambda rows: rows.aggregate(n=Count("id")),
        lambda rows: rows.distinct().count(),
        lambda rows: rows.update(note="x"),
        lambda rows: rows.select_for_update().get(),
    ],
    ids=[
        "get",
        "first",
        "exists",
        "count",
        "list",
        "values",
        "values_list",
        "slice",
        "iterator",
        "aggregate",
        "distinct-count",
        "update",
        "lock",
    ],
)
def test_every_question(club, layout, ask):
    with transaction.atomic(using="default"), assert_no_fan_out(), assert_statements(layout.expect(default=1, home=1)):
        assert ask(Member.objects.filter(email="ada@x"))


@pytest.mark.parametrize(
    "condition",
    [
        Q(email="ada@x"),
        Q(email="ada@x", city="Rome"),
        Q(email="ada@x") & Q(note__gte=""),
        Q(email="ada@x") & (Q(city="Rome") | Q(city="Oslo")),
        Q(email="ada@x") & ~Q(city="Oslo"),
        Q(email__in=["ada@x"]),
        Q(provider="p", subject=1),
        Q(provider__in=["p"], subject=1),
    ],
    ids=str,
)
def test_conditions_that_name_one_row(club, condition):
    with assert_no_fan_out():
        assert list(Member.objects.filter(condition)) == [club.ada]


def test_the_key_goes_before_a_lookup(club, layout):
    with assert_statements(layout.expect(home=1)):
        assert Member.objects.get(email="ada@x", tenant_id=club.ada.tenant_id) == club.ada


def test_no_entry_no_shard(club):
    with assert_statements({"default": 1}):
        assert not Member.objects.filter(email="nobody@x").exists()
    with assert_statements({"default": 1}):
        assert list(Member.objects.filter(city="Kyoto")) == []
    with assert_statements({"default": 1}):
        assert Member.objects.filter(email="nobody@x").update(note="x") == 0
    with pytest.raises(Member.DoesNotExist):
        Member.objects.get(email="nobody@x")


def test_several_values_ask_their_shards(club, layout):
    with assert_statements(layout.expect(default=1, home=1, away=1 if layout.away else 0)):
        found = set(Member.objects.filter(email__in=["ada@x", "cleo@x", "nobody@x", None]))
    assert found == {club.ada, club.cleo}


def test_a_value_that_several_rows_have(club):
    assert set(Member.objects.filter(city="Rome")) == {club.ada, club.cleo}
    assert list(Member.objects.filter(city="Rome").order_by("-subject")) == [club.cleo, club.ada]
    assert Member.objects.filter(city="Rome").count() == 2
    assert Member.objects.filter(city="Rome").update(note="x") == 2
    assert list(
        Member.objects.filter(city__in=["Rome", "Oslo"]).values_list("note", flat=True).order_by("subject")
    ) == [
        "x",
        "",
        "x",
    ]


def test_whether_it_is_allowed_does_not_depend_on_where_rows_are(club):
    """Oslo names one bucket today, and may name two tomorrow."""
    rows = Member.objects.filter(city="Oslo").filter(Exists(Member.objects.filter(city="Rome", note=OuterRef("note"))))
    with pytest.raises(CannotMerge):
        list(rows)
    both = Member.objects.filter(email="ada@x").union(Member.objects.filter(email="ben@x"))
    with pytest.raises(CannotMerge):
        list(both)


@pytest.mark.parametrize(
    "condition",
    [
        Q(email__iexact="ada@x"),
        Q(email__startswith="ada"),
        Q(email__gte="ada"),
        Q(email=F("city")),
        Q(email=Lower("city")),
        Q(email__isnull=True),
        Q(email=None),
        Q(email="ada@x") | Q(city="Oslo"),
        ~Q(email="ada@x"),
        Q(provider="p"),
        Q(subject=1),
        Q(note="x"),
    ],
    ids=str,
)
def test_what_names_no_lookup(club, condition):
    with assert_statements({}), pytest.raises(ShardKeyMissing):
        list(Member.objects.filter(condition))


def test_delete(club, kept):
    assert Member.objects.filter(email="ada@x").delete() == (1, {"shop.Member": 1})
    assert not Member.objects.filter(email="ada@x").exists()
    assert Member.objects.filter(city="Rome").delete() == (1, {"shop.Member": 1})


def test_a_joined_table_of_the_same_bucket(club, layout):
    seat = Seat.objects.create(tenant_id=club.ada.tenant_id, number=1, code="a1", member=club.ada)
    with assert_no_fan_out(), assert_statements(layout.expect(default=1, home=1)):
        assert Seat.objects.select_related("member").get(member__email="ada@x") == seat
    assert Seat.objects.get(code="a1") == seat


def test_in_bulk(club):
    assert Member.objects.in_bulk(["ada@x", "cleo@x"], field_name="email") == {"ada@x": club.ada, "cleo@x": club.cleo}


def test_prepared_as_the_column_is(club):
    assert Member.objects.get(provider="p", subject="1") == club.ada
    with assert_statements({}):
        # More than the database can hold.
        assert not Member.objects.filter(provider="p", subject=2**70).exists()


def test_str_of_a_query_asks_nothing(club):
    with assert_statements({}):
        assert '"email" = ada@x' in str(Member.objects.filter(email="ada@x").query)


def test_fan_out_looks_past_the_lookup(club, layout):
    tamper().filter(pk=club.ada.pk)._raw_delete("default")
    assert not Member.objects.filter(email="ada@x").exists()
    with statements() as sent:
        assert fan_out(Member.objects).get(email="ada@x") == club.ada
    assert set(sent) == set(layout.owners)


def test_a_join_to_a_global_model_is_refused_first(club):
    with assert_statements({}), pytest.raises(GlobalJoin):
        list(Note.objects.filter(order__customer__email="x"))


def test_uncommitted_entries_of_the_block_count(club):
    with transaction.atomic(using="default"):
        club.ada.email = "new@x"
        club.ada.save()
        assert Member.objects.get(email="new@x") == club.ada
        assert not Member.objects.filter(email="ada@x").exists()


def test_a_shard_addressed_by_name_is_asked_alone(club, layout):
    shard = "shard_a" if layout.home == "default" else layout.home
    found = [club.ada] if shard == layout.home else []
    with assert_statements({shard: 1}):
        assert list(Member.objects.using(shard).filter(email="ada@x")) == found
    assert not found or Member.objects.using(layout.home).get(email="ada@x") == club.ada


def test_the_databases_own_plan(club):
    assert Member.objects.filter(email="ada@x").explain()
