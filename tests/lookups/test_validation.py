"""Forms: Django's own unique error, for a value that is taken anywhere in the cluster."""

from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError
from django.forms import modelform_factory

from sharding import scope
from sharding.testing.statements import assert_no_fan_out, assert_statements
from tests.layouts import CLUSTER, tenant_on
from tests.shop.models import Member, Seat

pytestmark = pytest.mark.django_db(databases=CLUSTER)


@pytest.fixture
def ada(layout):
    return Member.objects.create(
        tenant_id=tenant_on(layout.home), email="ada@example.com", provider="p", subject=1, city="Rome"
    )


@pytest.fixture
def elsewhere(layout):
    return tenant_on(layout.away or layout.home, 1)


def errors(instance, **kwargs):
    with pytest.raises(ValidationError) as raised, assert_no_fan_out():
        instance.full_clean(**kwargs)
    return raised.value.message_dict


def test_a_unique_field_that_a_lookup_covers(ada, elsewhere):
    assert errors(Member(tenant_id=elsewhere, email="ada@example.com")) == {
        "email": ["Member with this Email already exists."]
    }


def test_two_columns_that_only_a_lookup_keeps_unique(ada, elsewhere):
    assert errors(Member(tenant_id=elsewhere, provider="p", subject=1)) == {
        "__all__": ["Member with this Provider and Subject already exists."]
    }


def test_one_column_that_only_a_lookup_keeps_unique(layout, elsewhere):
    Seat.objects.create(tenant_id=tenant_on(layout.home), number=1, code="a1")
    found = errors(Seat(tenant_id=elsewhere, number=1, code="a1"), exclude=["member"])
    assert found == {"code": ["Seat with this Code already exists."]}


def test_its_own_value_is_not_taken(ada):
    with assert_no_fan_out():
        ada.full_clean()


def test_what_is_free_and_null(ada, elsewhere):
    with assert_no_fan_out():
        Member(tenant_id=elsewhere, email="new@example.com", city="Rome").full_clean()
        Member(tenant_id=elsewhere, email=None, city="Rome").full_clean()


def test_an_excluded_field_is_not_asked_about(ada, elsewhere):
    with assert_statements({}):
        Member(tenant_id=elsewhere, email="ada@example.com", provider="p", subject=1).validate_unique(
            exclude=["email", "subject", "id"]
        )


def test_a_form(ada, elsewhere):
    form = modelform_factory(Member, fields=["tenant_id", "email", "city"])(
        {"tenant_id": elsewhere, "email": "ada@example.com", "city": "Oslo"}
    )
    assert form.errors == {"email": ["Member with this Email already exists."]}


@pytest.mark.parametrize(
    "values", [{"email": "ada@example.com"}, {"provider": "p", "subject": 1}], ids=["field", "fields"]
)
def test_a_value_of_another_key_than_the_scopes(ada, elsewhere, values):
    with scope(elsewhere, of=Member):
        assert errors(Member(tenant_id=elsewhere, **values))


def test_a_proxy_says_it_once(isolated, ada, elsewhere):
    class Guest(Member):
        class Meta:
            proxy = True
            app_label = "shop"

    assert errors(Guest(tenant_id=elsewhere, email="ada@example.com")) == {
        "email": ["Member with this Email already exists."]
    }
