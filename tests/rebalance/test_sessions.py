"""
The sessions of a mover are its own, and its transactions are those of the attempt that has the bucket.
"""

from __future__ import annotations

import psycopg
import pytest

from sharding.bucket_states import BucketState
from sharding.errors import Superseded
from sharding.rebalance.sessions import PINNED, mover_transaction, open_session, snapshot
from tests.layouts import CLUSTER
from tests.rebalance.worlds import BUCKET, fence

pytestmark = pytest.mark.django_db(databases=CLUSTER)
IMPORTING = {BucketState.IMPORTING}


def test_sessions_are_named_and_write_values_alike(world):
    connection = world.sessions.target.connection
    assert connection.execute("SHOW application_name").fetchone() == ("shardkit-mover:7:11",)
    for name, value in PINNED.items():
        assert connection.execute(f"SHOW {name}").fetchone() == (value,)
    assert connection.execute("SHOW idle_in_transaction_session_timeout").fetchone() == ("1min",)


def test_a_transaction_carries_the_generation_and_no_longer(world):
    setting = "SELECT current_setting('sharding.mover', true)"
    with mover_transaction(world.sessions.target, BUCKET, generation=11, states=IMPORTING) as cursor:
        assert cursor.execute(setting).fetchone() == ("11",)
    assert world.at_target(setting) == [("",)]


def test_the_fence_cannot_change_while_a_transaction_runs(world):
    with (
        mover_transaction(world.sessions.target, BUCKET, generation=11, states=IMPORTING),
        open_session("shard_b", buckets=BUCKET, generation=12) as other,
    ):
        other.connection.execute("SET lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            fence(other, BucketState.IMPORTING, generation=12)


@pytest.mark.parametrize("transaction", [mover_transaction, snapshot])
def test_a_bucket_without_a_row_is_nobodys(world, transaction):
    with (
        pytest.raises(Superseded) as caught,
        transaction(world.sessions.target, [BUCKET, 9], generation=11, states=IMPORTING),
    ):
        pass
    assert str(caught.value) == (
        "Bucket 9 on 'shard_b' is in the hands of nobody, and no longer of attempt 11. "
        "Leave the move to whoever has it."
    )


def test_what_fails_is_rolled_back_and_the_session_stays(world):
    with (
        pytest.raises(psycopg.errors.UniqueViolation),
        mover_transaction(world.sessions.target, BUCKET, generation=11, states=IMPORTING) as cursor,
    ):
        cursor.execute("INSERT INTO rows_tree VALUES (1, 7); INSERT INTO rows_tree VALUES (1, 7)")
    assert world.at_target("SELECT count(*) FROM rows_tree") == [(0,)]
