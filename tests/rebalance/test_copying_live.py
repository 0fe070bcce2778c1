"""
The application writes while its bucket is copied, and in the end both shards have the same rows.
"""

from __future__ import annotations

import random
import threading

import psycopg
import pytest

from sharding.bucket_states import BucketState
from sharding.rebalance.capturing import drain
from sharding.rebalance.copying import Pace, copy_all
from sharding.rebalance.sessions import open_session
from sharding.rebalance.verifying import verify
from tests.layouts import CLUSTER
from tests.rebalance.rows import family, tree
from tests.rebalance.worlds import SOURCE, fence

pytestmark = pytest.mark.django_db(databases=CLUSTER)

PARENT = "('00000000-0000-7000-8000-' || lpad({}::text, 12, '0'))::uuid"
STATEMENTS = (
    f"INSERT INTO rows_parent VALUES ({PARENT.format('{a}')}, 7, 1, '7 {{a}}') ON CONFLICT DO NOTHING",
    f"INSERT INTO rows_child VALUES ({{a}} % 3, {{a}}, 7, 'new', {PARENT.format('{b}')}) ON CONFLICT DO NOTHING",
    f"UPDATE rows_child SET parent_id = {PARENT.format('{b}')} WHERE number = {{a}}",
    "UPDATE rows_parent SET name = 'other ' || random() WHERE name = '7 {a}'",
    "UPDATE rows_child SET text = text || 'x' WHERE number % 50 = {a} % 50",
    "DELETE FROM rows_child WHERE number = {a}",
    "DELETE FROM rows_grandchild WHERE id = {a}",
    f"DELETE FROM rows_parent p WHERE id = {PARENT.format('{a}')} AND NOT EXISTS "
    "(SELECT FROM rows_child WHERE parent_id = p.id)",
    "INSERT INTO rows_tree VALUES ({a}, 7, {b}) ON CONFLICT (id) DO UPDATE SET above_id = {b}",
    "UPDATE rows_tree SET label = 'y' WHERE id % 20 = {a} % 20",
    "DELETE FROM rows_tree t WHERE id = {a} AND NOT EXISTS (SELECT FROM rows_tree WHERE above_id = t.id)",
)


def _write(number, stop, written):
    chance = random.Random(number)
    with open_session(SOURCE, buckets=0, generation=0) as session:
        session.connection.execute("SET lock_timeout = '1s'")
        while not stop.is_set():
            statement = chance.choice(STATEMENTS).format(a=chance.randrange(1, 600), b=chance.randrange(1, 600))
            try:
                session.connection.execute(statement)
                written.append(1)
            except (psycopg.IntegrityError, psycopg.OperationalError):
                # What another one has written, or writes.
                continue


def test_a_bucket_is_copied_under_writes(world):
    family(world, 1, 400)
    tree(world, range(1, 400), lambda n: n + 1 if n % 10 and n < 399 else None)
    stop, written = threading.Event(), []
    writers = [threading.Thread(target=_write, args=(number, stop, written)) for number in range(3)]
    for writer in writers:
        writer.start()
    try:
        sizes = {"rows_parent": 50, "rows_child": 50, "rows_grandchild": 50, "rows_tree": 50}
        copy_all(world.sessions, world.facts, Pace(budget=0.02, sizes=sizes))
        rounds = 0
        while rounds < 5 or len(written) <= 100:
            rounds += 1
            drain(world.sessions, world.facts, batch=50)
            verify(world.sessions, world.facts)
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    fence(world.sessions.source, BucketState.FENCED)
    while drain(world.sessions, world.facts).left:
        pass
    assert verify(world.sessions, world.facts).pending == 0
    world.assert_alike()
