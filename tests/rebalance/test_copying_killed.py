"""
A mover whose session is lost at any statement, before it or after it, goes on where it was.
"""

from __future__ import annotations

from contextlib import contextmanager

import psycopg
import pytest

from sharding.rebalance.capturing import drain
from sharding.rebalance.copying import Pace, copy_all
from tests.layouts import CLUSTER
from tests.rebalance.rows import family, tree
from tests.rebalance.worlds import World

pytestmark = pytest.mark.django_db(databases=CLUSTER)

SIZES = {"rows_parent": 4, "rows_child": 4, "rows_grandchild": 4, "rows_tree": 4}


@contextmanager
def losing(connections, monkeypatch, number, *, after):
    """Lose the session that sends the statement with a number, before it is sent or once it is carried out."""
    sent = 0
    execute, copy = psycopg.Cursor.execute, psycopg.Cursor.copy

    def lose(connection):
        connection.pgconn.finish()
        raise psycopg.OperationalError("lost")

    def counted(cursor):
        nonlocal sent
        sent += cursor.connection in connections
        return cursor.connection in connections and sent == number

    def executed(cursor, *args, **kwargs):
        lost = counted(cursor)
        if lost and not after:
            lose(cursor.connection)
        result = execute(cursor, *args, **kwargs)
        if lost:
            lose(cursor.connection)
        return result

    @contextmanager
    def copied(cursor, *args, **kwargs):
        lost = counted(cursor)
        if lost and not after:
            lose(cursor.connection)
        with copy(cursor, *args, **kwargs) as result:
            yield result
            if lost:
                lose(cursor.connection)

    with monkeypatch.context() as patch:
        patch.setattr(psycopg.Cursor, "execute", executed)
        patch.setattr(psycopg.Cursor, "copy", copied)
        yield lambda: sent >= number


def move(sessions, facts):
    copy_all(sessions, facts, Pace(sizes=dict(SIZES)))
    while drain(sessions, facts, batch=5).left:
        pass


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_mover_that_loses_a_session_goes_on(world, monkeypatch, after):
    family(world, 1, 9)
    tree(world, range(1, 8), lambda n: n + 1 if n < 7 else None)
    number, lost = 0, True
    while lost:
        number += 1
        lost = _lose_one(world, monkeypatch, number, after)
    assert number > 100


def _lose_one(world, monkeypatch, number, after):
    for table in ("rows_grandchild", "rows_child", "rows_parent", "rows_tree", "sharding_progress"):
        world.at_target(f"DELETE FROM {table}")
    world.write("UPDATE rows_parent SET tenant = tenant + 1")
    with World.opened_again() as sessions:
        connections = (sessions.source.connection, sessions.target.connection)
        with losing(connections, monkeypatch, number, after=after) as is_lost:
            try:
                move(sessions, world.facts)
            except psycopg.OperationalError:
                assert is_lost()
    with World.opened_again() as sessions:
        world.write("UPDATE rows_child SET text = %s", str(number))
        world.write("UPDATE rows_tree SET label = %s", str(number))
        move(sessions, world.facts)
    world.assert_alike()
    assert world.log() == []
    return is_lost()
