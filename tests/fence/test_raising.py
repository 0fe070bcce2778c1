"""Raising the fence while the application writes: whoever waits for a lock holds up the writers who come after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from django.db import OperationalError, connections

from sharding.errors import FenceMissing
from sharding.fence import installation, raising
from sharding.operations import equipment
from tests.fence.conftest import SHARD
from tests.layouts import CLUSTER
from tests.moving.applications import session

pytestmark = pytest.mark.django_db(databases=CLUSTER)


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[Any]:
    """Somebody who does not end a transaction, where every table needs other triggers."""
    given = "SELECT set_config('lock_timeout', '20ms', true) WHERE current_setting('lock_timeout') = '0'"
    assert given == installation._GIVE_WAY.replace("2000ms", "20ms")
    monkeypatch.setattr(installation, "_GIVE_WAY", given)
    settings.SHARDING = settings.SHARDING | {"FENCE": "statement"}
    with closing(session(SHARD)) as writer:
        writer.execute("BEGIN")
        writer.execute("LOCK TABLE shop_ledger IN ROW EXCLUSIVE MODE")
        yield writer


def test_it_gives_way_and_tries_again(writer: Any) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            writer.execute("ROLLBACK")

    assert "public.shop_ledger" in raising.raise_patiently(SHARD, pause)
    assert [round(seconds) for seconds in pauses] == [1, 2]
    assert not installation.inspect(connections[SHARD])


def test_a_session_that_has_a_limit_keeps_it(writer: Any) -> None:
    with connections[SHARD].cursor() as cursor:
        cursor.execute("SET LOCAL lock_timeout = '30ms'")
        with pytest.raises(OperationalError, match="lock timeout"):
            raising.raise_around(SHARD)
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() == ("30ms",)


def test_it_does_not_try_for_ever(writer: Any) -> None:
    pauses: list[float] = []
    with pytest.raises(FenceMissing) as caught:
        equipment.equip([SHARD], [], pauses.append)
    assert len(pauses) == raising.RETRIES
    assert caught.value.aliases == (SHARD,)
    assert str(caught.value) == (
        f"The map is stored, but {SHARD} got no triggers, since others hold locks of the tables for long. Find them by "
        f"`SELECT * FROM pg_stat_activity`, and run `manage.py migrate_all`, which raises what is missing. Until then "
        f"no bucket moves."
    )
