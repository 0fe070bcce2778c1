"""A lookup that is declared and not built: it is kept, and answers nothing."""

from __future__ import annotations

import pytest

from sharding import routing
from sharding.control import LookupState
from sharding.errors import ShardKeyMissing
from sharding.lookups import states
from tests.layouts import CLUSTER
from tests.lookups.conftest import Club
from tests.lookups.stored import EMAIL
from tests.shop.models import Member

pytestmark = pytest.mark.django_db(databases=CLUSTER)


@pytest.fixture(autouse=True)
def unbuilt(layout):
    LookupState.objects.using("default").filter(name=EMAIL).update(built=False)
    states.forget()
    yield
    states.forget()


def test_it_does_not_answer(club_unbuilt):
    with pytest.raises(ShardKeyMissing) as raised:
        Member.objects.get(email="ada@x")
    assert str(raised.value) == (
        "This Member query names no tenant_id, so its shard is unknown. Filter on tenant_id, or ask every shard "
        "with aggregator.fan_out(). The lookup shop_member_email_lookup would know: run `manage.py shards lookup "
        "build`."
    )


@pytest.fixture
def club_unbuilt(layout):
    return Club(layout)


def test_it_is_kept_all_the_same(club_unbuilt, kept):
    club_unbuilt.ada.email = "new@x"
    club_unbuilt.ada.save()
    club_unbuilt.ben.delete()


def test_another_lookup_answers(club_unbuilt):
    assert Member.objects.get(provider="p", subject=1) == club_unbuilt.ada


def test_what_django_asks_itself_goes_to_every_shard(club_unbuilt):
    with routing.probe():
        assert Member.objects.filter(email="ada@x").exists()
