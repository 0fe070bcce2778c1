"""Row and entry commit together: without a block of the caller's, inside one, and on both or neither."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, connections

from aggregator import fan_out
from sharding.testing.cluster import owners
from tests.layouts import CLUSTER, LAYOUTS, SHOP_ONLY, tenant_on
from tests.lookups.stored import differences, emails
from tests.shop.models import Member

pytestmark = [
    pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY),
    pytest.mark.usefixtures("kept"),
]


@pytest.fixture(params=LAYOUTS, ids=str)
def tenants(request, transactional_db):
    layout = request.param
    with owners(*layout.owners):
        yield tenant_on(layout.home), tenant_on(layout.away or layout.home, 1)


def test_every_write_by_itself(tenants):
    here, there = tenants
    ada = Member.objects.create(tenant_id=here, email="ada@x", city="Rome")
    Member.objects.bulk_create([Member(tenant_id=each, email=f"{each}@x") for each in tenants])
    ada.email = "new@x"
    ada.save()
    assert emails() == {"new@x", f"{here}@x", f"{there}@x"}
    fan_out(Member.objects).filter(city="Rome").update(city="Oslo")
    Member.objects.bulk_create(
        [Member(tenant_id=there, email="new@x"), Member(tenant_id=there, email="b@x")], ignore_conflicts=True
    )
    assert differences() == []
    ada.delete()
    assert emails() == {f"{here}@x", f"{there}@x", "b@x"}


def test_what_is_taken_leaves_no_row(tenants):
    Member.objects.create(tenant_id=tenants[0], email="ada@x")
    with pytest.raises(IntegrityError):
        Member.objects.create(tenant_id=tenants[1], email="ada@x")
    with pytest.raises(IntegrityError):
        Member.objects.bulk_create([Member(tenant_id=each, email=email) for each in tenants for email in "ab"])
    assert fan_out(Member.objects).count() == 1
    assert not any(connections[alias].in_atomic_block for alias in CLUSTER)
    assert Member.objects.create(tenant_id=tenants[1], email="b@x").pk
