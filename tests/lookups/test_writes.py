"""Every way to write a row keeps its entries, on every layout; and what stays a statement on one shard."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from django.db import DatabaseError, IntegrityError, connections, transaction
from django.db.models import Case, F, Value, When
from django.db.models.functions import Concat, Lower

from aggregator import fan_out
from sharding import bucket_of
from sharding.testing.statements import assert_statements, statements
from tests.blocks import undone
from tests.layouts import CLUSTER
from tests.lookups.stored import EMAIL, emails, entries
from tests.shop.models import Member, Seat

pytestmark = [pytest.mark.django_db(databases=CLUSTER), pytest.mark.usefixtures("kept")]


class TestCreate:
    def test_an_entry_names_the_bucket(self, ada):
        assert entries() == {ada.pk: (bucket_of(ada.tenant_id, model=Member), "ada@x")}
        assert len(entries("shop_member_city_lookup")) == len(entries("shop_member_provider_subject_lookup")) == 1

    def test_what_is_taken_on_another_shard(self, ada, tenants):
        with pytest.raises(IntegrityError) as raised, transaction.atomic(using="default"):
            Member.objects.create(tenant_id=tenants[1], email="ada@x")
        if connections["default"].vendor == "postgresql" and tenants[0] != tenants[1]:
            assert "Key (email)=(ada@x) already exists." in str(raised.value)
        assert fan_out(Member.objects).count() == 1

    def test_two_columns_are_taken_together(self, ada, tenants):
        Member.objects.create(tenant_id=tenants[1], provider="p", subject=2)
        Member.objects.create(tenant_id=tenants[1], provider="q", subject=1)
        with pytest.raises(IntegrityError), transaction.atomic(using="default"):
            Member.objects.create(tenant_id=tenants[1], provider="p", subject=1)

    def test_nulls_have_no_entries(self, tenants):
        for _ in range(2):
            Member.objects.create(tenant_id=tenants[0], email=None, provider="p")
        assert entries() == entries("shop_member_provider_subject_lookup") == {}

    def test_without_a_value_no_other_database(self, layout, tenants):
        with assert_statements(layout.expect(home=1)):
            Seat.objects.create(tenant_id=tenants[0], number=1)
        with assert_statements(layout.expect(home=1)):
            Seat.objects.filter(tenant_id=tenants[0], number=1).delete()

    def test_expressions_are_stored_as_the_database_computes_them(self, tenants):
        Member.objects.create(tenant_id=tenants[0], email=Lower(Value("ADA@X")))
        assert emails() == {"ada@x"}

    def test_a_composite_primary_key(self, tenants):
        Seat.objects.create(tenant_id=tenants[0], number=7, code="a7")
        [(pk, (_, code))] = entries("shop_seat_by_code").items()
        assert (pk, code) == ((tenants[0], 7), "a7")

    def test_by_a_related_manager_and_by_name(self, ada, layout):
        ada.seats.create(tenant_id=ada.tenant_id, number=1, code="a1")
        Seat.objects.using(layout.home).create(tenant_id=ada.tenant_id, number=2, code="a2")
        Seat.objects.using(layout.home).bulk_create([Seat(tenant_id=ada.tenant_id, number=3, code="a3")])
        assert len(entries("shop_seat_by_code")) == 3


class TestSave:
    def test_other_columns_are_one_statement(self, ada, layout):
        ada.note = "x"
        with assert_statements(layout.expect(home=1)):
            ada.save()
        ada.note = "y"
        with assert_statements(layout.expect(home=1)):
            ada.save(update_fields=["note"])
        assert Member.objects.get(email="ada@x").note == "y"

    def test_the_same_of_a_composite_primary_key(self, tenants, layout):
        seat = Seat.objects.create(tenant_id=tenants[0], number=1, code="a1")
        with assert_statements(layout.expect(home=1)):
            seat.save()

    def test_a_new_value(self, ada):
        ada.email = "new@x"
        ada.save()
        assert emails() == {"new@x"}
        ada.email = "newer@x"
        ada.save(update_fields=["email"])
        assert emails() == {"newer@x"}

    def test_to_and_from_null(self, ada):
        for email, expected in ((None, set()), ("back@x", {"back@x"})):
            ada.email = email
            ada.save()
            assert emails() == expected

    def test_an_expression(self, ada):
        ada.email = Concat(F("email"), Value("yz"))
        ada.save()
        assert emails() == {"ada@xyz"}

    def test_what_is_taken(self, ada, ben):
        ben.email = "ada@x"
        with pytest.raises(IntegrityError), transaction.atomic(using="default"):
            ben.save()
        assert emails() == {"ada@x", "ben@x"}

    def test_a_row_that_is_not_there(self, tenants):
        member = Member(tenant_id=tenants[0], email="ada@x")
        member.pk = Member._meta.pk.mint(bucket_of(member.tenant_id, model=Member))
        member.save()
        assert emails() == {"ada@x"}
        other = Member(tenant_id=tenants[0], pk=Member._meta.pk.mint(member.bucket), email="no@x")
        with pytest.raises(DatabaseError), transaction.atomic(using="default"):
            other.save(force_update=True)
        assert emails() == {"ada@x"}


class TestUpdate:
    def test_by_key(self, ada, ben):
        assert Member.objects.filter(tenant_id=ada.tenant_id, city="Rome", email="ada@x").update(city="Oslo") == 1
        assert {city for _, city in entries("shop_member_city_lookup").values()} == {"Oslo", "Rome"}

    def test_of_several_rows_one_of_which_has_the_value_already(self, ada):
        Member.objects.create(tenant_id=ada.tenant_id, city="Oslo")
        assert Member.objects.filter(tenant_id=ada.tenant_id).update(city="Oslo") == 2
        assert {city for _, city in entries("shop_member_city_lookup").values()} == {"Oslo"}

    def test_by_the_value_itself(self, ada):
        assert Member.objects.filter(email="ada@x").update(email="new@x") == 1
        assert emails() == {"new@x"}
        assert Member.objects.filter(email="ada@x").update(email="newer@x") == 0

    def test_on_every_shard_with_an_expression(self, ada, ben):
        assert fan_out(Member.objects).update(email=Concat(F("email"), Value("!")), city="Oslo") == 2
        assert emails() == {"ada@x!", "ben@x!"}

    def test_by_name(self, ada, layout):
        assert Member.objects.using(layout.home).filter(pk=ada.pk).update(email="new@x") == 1
        assert emails() == {"new@x"}

    def test_an_update_that_touches_no_lookup_stays_on_its_shard(self, ada, layout):
        with assert_statements(layout.expect(home=1)):
            Member.objects.filter(tenant_id=ada.tenant_id).update(note="x")

    def test_only_the_lookups_that_are_touched(self, ada):
        with statements() as sent:
            Member.objects.filter(pk=ada.pk, note="").update(city="Oslo")
        assert not any(EMAIL in sql for _, sql in sent.sent)

    def test_by_a_joined_table(self, ada, ben):
        Seat.objects.create(tenant_id=ada.tenant_id, number=1, code="a1", member=ada)
        assert Seat.objects.filter(member__email="ada@x").update(code="a2") == 1
        assert [code for _, code in entries("shop_seat_by_code").values()] == ["a2"]

    def test_of_no_row(self, ada):
        assert Member.objects.filter(tenant_id=ada.tenant_id, pk__in=[]).update(email="x") == 0
        assert Member.objects.filter(tenant_id=ada.tenant_id, note="none").update(email="x") == 0

    def test_rows_exchange_their_values(self, ada, ben):
        ada.email, ben.email = ben.email, ada.email
        with transaction.atomic(using="default"):
            Member.objects.filter(pk=ada.pk).update(email="tmp@x")
            ben.save()
            ada.save()
        assert Member.objects.get(email="ada@x") == ben

    def test_an_exchange_at_once_is_refused_as_by_one_database(self, ada, ben):
        ada.email, ben.email = ben.email, ada.email
        with pytest.raises(IntegrityError), transaction.atomic(using="default"):
            Member.objects.bulk_update([ada, ben], ["email"])
        assert emails() == {"ada@x", "ben@x"}

    def test_rows_exchange_what_only_the_lookup_keeps_unique(self, ada):
        other = Member.objects.create(tenant_id=ada.tenant_id, provider="p", subject=2)
        changed = Case(When(pk=ada.pk, then=Value(2)), default=Value(1))
        Member.objects.filter(tenant_id=ada.tenant_id).update(subject=changed)
        assert Member.objects.get(provider="p", subject=1) == other

    @pytest.mark.parametrize("in_block", [False, True])
    def test_rows_of_two_shards_exchange_it_in_one_statement(self, ada, tenants, in_block):
        """As rows of one shard do."""
        other = Member.objects.create(tenant_id=tenants[1], provider="p", subject=2)
        changed = Case(When(pk=ada.pk, then=Value(2)), default=Value(1))
        with transaction.atomic(using="default") if in_block else nullcontext():
            assert Member.objects.filter(tenant_id__in=tenants).update(subject=changed, city="Oslo") == 2
            assert Member.objects.get(provider="p", subject=2) == ada
            assert fan_out(Member.objects).update(subject=3 - F("subject")) == 2
            assert fan_out(Member.objects).update(subject=3 - F("subject")) == 2
        assert Member.objects.get(provider="p", subject=1) == other
        ada.subject, other.subject = 1, 2
        assert Member.objects.bulk_update([ada, other], ["subject"]) == 2
        assert Member.objects.get(provider="p", subject=1) == ada

    def test_rows_of_two_shards_get_the_same_value(self, ada, tenants):
        other = Member.objects.create(tenant_id=tenants[1], provider="p", subject=2)
        with pytest.raises(IntegrityError), transaction.atomic(using="default"):
            fan_out(Member.objects).update(subject=3)
        assert Member.objects.get(provider="p", subject=1) == ada
        assert Member.objects.get(provider="p", subject=2) == other

    def test_bulk_update(self, ada, ben):
        ada.email, ben.email = "1@x", "2@x"
        assert Member.objects.bulk_update([ada, ben], ["email"]) == 2
        assert emails() == {"1@x", "2@x"}


class TestDelete:
    def test_one_row(self, ada, ben):
        ada.delete()
        assert emails() == {"ben@x"}

    def test_by_a_queryset(self, ada, ben):
        assert Member.objects.filter(tenant_id=ada.tenant_id, email__startswith="ada").delete()[0] == 1
        assert emails() == {"ben@x"}

    def test_only_what_is_deleted(self, ada):
        assert Member.objects.filter(pk=ada.pk, city="Oslo").delete()[0] == 0
        assert Member.objects.filter(pk=ada.pk, pk__in=[]).delete()[0] == 0
        assert emails() == {"ada@x"}

    def test_on_every_shard(self, ada, ben):
        fan_out(Member.objects).delete()
        assert entries() == entries("shop_member_city_lookup") == {}

    def test_by_a_cascade(self, ada):
        Seat.objects.create(tenant_id=ada.tenant_id, number=1, code="a1", member=ada)
        assert ada.delete() == (2, {"shop.Member": 1, "shop.Seat": 1})
        assert entries("shop_seat_by_code") == {}

    def test_by_name(self, ada, layout):
        Member.objects.using(layout.home).filter(pk=ada.pk).delete()
        assert emails() == set()

    def test_and_created_again(self, ada, tenants):
        with transaction.atomic(using="default"):
            ada.delete()
            Member.objects.create(tenant_id=tenants[1], email="ada@x")
        assert Member.objects.get(email="ada@x").tenant_id == tenants[1]


class TestSavepoints:
    def test_a_block_that_is_rolled_back(self, ada, ben, tenants):
        with undone():
            ada.delete()
            Member.objects.filter(pk=ben.pk).update(email="ada@x")
            Member.objects.create(tenant_id=tenants[0], email="new@x")
        assert emails() == {"ada@x", "ben@x"}

    def test_the_inner_one_of_two(self, ada, tenants):
        with transaction.atomic(using="default"):
            Member.objects.create(tenant_id=tenants[1], email="a@x")
            with undone():
                Member.objects.create(tenant_id=tenants[1], email="b@x")
                ada.email = "c@x"
                ada.save()
            with pytest.raises(IntegrityError), transaction.atomic(using="default"):
                Member.objects.create(tenant_id=tenants[0], email="a@x")
            Member.objects.create(tenant_id=tenants[0], email="b@x")
        assert emails() == {"ada@x", "a@x", "b@x"}
