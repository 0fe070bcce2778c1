"""
The sessions of a mover are its own, and its transactions are those of the attempt that has the bucket.
"""

from __future__ import annotations

import psycopg
import pytest

from sharding.bucket_states import BucketState
from sharding.errors import Superseded
from sharding.rebalance.connecting import PINNED
from sharding.rebalance.sessions import mover_transaction, open_session, snapshot
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


ROLE = {
    "default_transaction_isolation": "serializable",
    "idle_session_timeout": "2min",
    "transaction_timeout": "2min",
    "statement_timeout": "2min",
}


@pytest.fixture
def role_with_settings(world):
    """The role of movers, with settings that suit an application."""
    (version,) = {session.connection.info.server_version for session in (world.application, world.sessions.source)}
    names = [name for name in ROLE if name != "transaction_timeout" or version >= 170000]
    ((database,),) = world.application.connection.execute("SELECT quote_ident(current_database())").fetchall()
    for name in names:
        world.write(f"ALTER ROLE CURRENT_USER IN DATABASE {database} SET {name} = '{ROLE[name]}'")
    yield names
    world.write(f"ALTER ROLE CURRENT_USER IN DATABASE {database} RESET ALL")


def test_what_suits_an_application_does_not_end_a_mover(role_with_settings):
    wanted = {"default_transaction_isolation": "read committed", "statement_timeout": "10min"}
    with open_session("shard_a") as session:
        for name in role_with_settings:
            assert session.connection.execute(f"SHOW {name}").fetchone() == (wanted.get(name, "0"),)


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
