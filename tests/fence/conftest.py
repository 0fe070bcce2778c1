"""
The fence of one shard, seen by sessions that know nothing of Django: writers, and who changes what buckets are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from django.db import connections

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
    settings = connections[SHARD].settings_dict

    def opened() -> Any:
        session = psycopg.connect(
            host=settings["HOST"],
            port=settings["PORT"],
            user=settings["USER"],
            password=settings["PASSWORD"],
            dbname=settings["NAME"],
            autocommit=True,
        )
        session.execute("SET lock_timeout = '5s'; SET statement_timeout = '20s'")
        made.append(session)
        return session

    try:
        yield opened
    finally:
        for session in made:
            session.close()


@pytest.fixture(params=["row", "statement"])
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def admin(connect: Callable[[], Any], made: list[Any], form: str, settings: Any) -> Iterator[Any]:
    """A session beside the writers; the shard owns all buckets, and its tables have triggers of the form."""
    before = settings.SHARDING
    settings.SHARDING = before | {"FENCE": form}
    raising.raise_around(SHARD)
    session = connect()
    own_all(session)
    try:
        yield session
    finally:
        # Their transactions would be in the way of what is put back.
        for each in made:
            each.close()
        with closing(connect()) as last:
            own_all(last)
            last.execute("DELETE FROM shop_ledger")
            last.execute("DELETE FROM sharding_dirty")
            # With whatever marks.
            last.execute("DELETE FROM sharding_fence")
            last.execute("UPDATE sharding_identity SET shown = 0, hidden = 0")
        settings.SHARDING = before
        raising.follow_map(SHARD)
        raising.raise_around(SHARD)


def own_all(session: Any) -> None:
    session.execute(
        "INSERT INTO sharding_fence (bucket, state, epoch, generation, forward, mark) "
        "SELECT b, 'owned', 1, 0, '', b FROM generate_series(0, 4095) AS b "
        "ON CONFLICT (bucket) DO UPDATE SET state = 'owned', generation = 0, forward = ''"
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
