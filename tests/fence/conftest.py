"""
The fence of one shard, seen by sessions that know nothing of Django: writers, and who changes what buckets are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from django.conf import settings
from django.db import connections
from django.test import override_settings

from sharding.bucket_states import BucketState
from sharding.fence import barrier, raising

#: The shard of these tests, and two buckets that it owns in them.
SHARD = "shard_a"
BUCKET, OTHER = 7, 8


@pytest.fixture
def made() -> list[Any]:
    """The sessions of the test."""
    return []


@pytest.fixture
def connect(transactional_db: None, made: list[Any]) -> Iterator[Callable[[], Any]]:
    """Open sessions at the shard, in autocommit, which are closed in the end."""

    def opened() -> Any:
        session = _connected()
        session.execute("SET lock_timeout = '60s'; SET statement_timeout = '120s'")
        made.append(session)
        return session

    try:
        yield opened
    finally:
        for session in made:
            session.close()


@pytest.fixture(scope="module", params=["row", "statement"])
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def triggers(form: str, django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """The shard's tables have triggers of the form, and it owns all buckets."""
    with django_db_blocker.unblock():
        with override_settings(SHARDING=settings.SHARDING | {"FENCE": form}):
            raising.raise_around(SHARD)
            with closing(_connected()) as session:
                own_all(session)
            yield
        with closing(_connected()) as session:
            session.execute("DELETE FROM sharding_fence")
            session.execute("UPDATE sharding_identity SET shown = 0, hidden = 0")
        raising.follow_map(SHARD)
        raising.raise_around(SHARD)


@pytest.fixture
def admin(triggers: None, connect: Callable[[], Any], made: list[Any]) -> Iterator[Any]:
    """A session beside the writers."""
    yield connect()
    # Their transactions would be in the way of what is put back.
    for each in made:
        each.close()
    with closing(_connected()) as last:
        # With whatever marks.
        last.execute("DELETE FROM sharding_fence WHERE mark IS DISTINCT FROM bucket")
        own_all(last)
        last.execute("DELETE FROM shop_ledger")
        last.execute("DELETE FROM sharding_dirty")
        last.execute("UPDATE sharding_identity SET shown = (SELECT sum(mark) FROM sharding_fence), hidden = 0")


def _connected() -> Any:
    there = connections[SHARD].settings_dict
    return psycopg.connect(
        host=there["HOST"],
        port=there["PORT"],
        user=there["USER"],
        password=there["PASSWORD"],
        dbname=there["NAME"],
        autocommit=True,
    )


def own_all(session: Any) -> None:
    session.execute(
        "INSERT INTO sharding_fence (bucket, state, epoch, generation, forward, mark) "
        "SELECT b, 'owned', 1, 0, '', b FROM generate_series(0, 4095) AS b "
        "ON CONFLICT (bucket) DO UPDATE SET state = 'owned', epoch = 1, generation = 0, forward = '' "
        "WHERE (sharding_fence.state, sharding_fence.epoch, sharding_fence.generation, sharding_fence.forward) "
        "<> ('owned', 1, 0, '')"
    )


def become(
    session: Any, state: str, *, bucket: int = BUCKET, generation: int = 1, waits: tuple[int, ...] = barrier.WAITS
) -> None:
    """Let a bucket be something else, behind a barrier."""

    def act(cursor: Any) -> None:
        forward = "shard_b" if state == "moved" else ""
        every: Any = {*BucketState, None}
        assert barrier.change(cursor, bucket, generation, every, BucketState(state), epoch=5, forward=forward)

    barrier.behind(session, bucket, act, waits=waits)
