"""bulk_create() with and without conflicts, get_or_create() and update_or_create()."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, transaction

from aggregator import fan_out
from sharding.errors import LookupRefused
from sharding.testing.statements import assert_statements
from tests.layouts import CLUSTER
from tests.lookups.stored import EMAIL, emails, entries
from tests.shop.models import Member

pytestmark = [pytest.mark.django_db(databases=CLUSTER), pytest.mark.usefixtures("kept")]


def members(*emails, tenants):
    return [Member(tenant_id=tenants[place % 2], email=email, city="Rome") for place, email in enumerate(emails)]


class TestBulkCreate:
    def test_on_several_shards(self, tenants):
        made = Member.objects.bulk_create(members("a", "b", "c", "d", tenants=tenants))
        assert emails() == {"a", "b", "c", "d"}
        assert all(each.pk in entries() for each in made)

    def test_in_batches(self, tenants):
        Member.objects.bulk_create(members(*map(str, range(20)), tenants=tenants), batch_size=7)
        assert len(emails()) == 20

    @pytest.mark.parametrize("given", [("a", "a"), ("a", "b", "c", "ada@x")], ids=["among them", "with another"])
    def test_what_is_taken(self, ada, tenants, given):
        with pytest.raises(IntegrityError), transaction.atomic(using="default"):
            Member.objects.bulk_create(members(*given, tenants=tenants))
        assert emails() == {"ada@x"}
        assert fan_out(Member.objects).count() == 1

    def test_ignoring_conflicts(self, ada, tenants):
        rows = members("a", "ada@x", "b", "a", None, "c", tenants=tenants)
        rows[2].note = "first"
        Member.objects.bulk_create(rows, ignore_conflicts=True)
        assert emails() == {"ada@x", "a", "b", "c"}
        assert fan_out(Member.objects).count() == 5

    def test_ignoring_one_conflict(self, ada, tenants, layout):
        Member.objects.bulk_create(members("ada@x", tenants=tenants[::-1]), ignore_conflicts=True)
        Member.objects.using(layout.home).bulk_create(members("ada@x", tenants=tenants[:1] * 2), ignore_conflicts=True)
        assert fan_out(Member.objects).count() == 1

    def test_of_two_with_the_same_value_the_first(self, tenants):
        first, second = members("a", "a", tenants=tenants)
        first.note, second.note = "first", "second"
        Member.objects.bulk_create([first, second], ignore_conflicts=True)
        assert Member.objects.get(email="a").note == "first"

    def test_an_ignored_row_takes_nothing(self, ada, tenants):
        """The first is ignored because of its email, so that the second may have its account."""
        first = Member(tenant_id=tenants[1], email="ada@x", provider="q", subject=1)
        second = Member(tenant_id=tenants[1], email="new@x", provider="q", subject=1)
        Member.objects.bulk_create([first, second], ignore_conflicts=True)
        assert emails() == {"ada@x", "new@x"}
        assert Member.objects.get(provider="q", subject=1).email == "new@x"

    def test_updating_the_rows_with_the_same_id(self, ada, tenants):
        new = Member(tenant_id=tenants[1], email="new@x", city="Oslo")
        ada.email = "changed@x"
        Member.objects.bulk_create(
            [ada, new], update_conflicts=True, unique_fields=["id"], update_fields=["email", "city"]
        )
        assert emails() == {"changed@x", "new@x"}

    def test_updating_rows_that_may_be_elsewhere_is_refused(self, ada):
        with assert_statements({}), pytest.raises(LookupRefused) as raised, transaction.atomic(using="default"):
            Member.objects.bulk_create([ada], update_conflicts=True, unique_fields=["email"], update_fields=["city"])
        assert str(raised.value) == (
            "bulk_create() of shop.Member would update the rows with the same email, and they may be on another shard "
            "than the new ones. Add 'tenant_id' to unique_fields, or use update_or_create()."
        )
        assert (raised.value.model, raised.value.lookup) == ("shop.Member", EMAIL)


class TestGetOrCreate:
    def test_get_or_create(self, ada, tenants):
        assert Member.objects.get_or_create(email="ada@x", defaults={"tenant_id": tenants[1]}) == (ada, False)
        made, created = Member.objects.get_or_create(email="new@x", defaults={"tenant_id": tenants[1]})
        assert created
        assert Member.objects.get(email="new@x") == made

    def test_update_or_create(self, ada, tenants):
        found, created = Member.objects.update_or_create(
            email="ada@x", defaults={"city": "Oslo"}, create_defaults={"tenant_id": tenants[1]}
        )
        assert (found, created) == (ada, False)
        found, created = Member.objects.update_or_create(email="ada@x", defaults={"email": "new@x"})
        assert (found, created) == (ada, False)
        _, created = Member.objects.update_or_create(email="b@x", create_defaults={"tenant_id": tenants[1]})
        assert (created, emails()) == (True, {"new@x", "b@x"})
