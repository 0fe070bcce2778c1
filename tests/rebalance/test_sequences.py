"""
Columns that the database numbers: no shard gives a number again that the bucket brings along.
"""

from __future__ import annotations

import pytest

from sharding.rebalance import sequences
from tests.layouts import CLUSTER

pytestmark = pytest.mark.django_db(databases=CLUSTER)

#: The one table whose numbers are looked at: numbers that other tests drew for other tables are never taken back.
TABLE = "rows_grandchild"
SEQUENCE = f"{TABLE}_id_seq"


class Numbers:
    """The sequence of one column on both shards."""

    def __init__(self, world, options=""):
        self.world = world
        for session in (world.sessions.source, world.sessions.target):
            session.connection.execute(f"ALTER SEQUENCE {SEQUENCE} {options} RESTART")

    def draw(self, session, times=1):
        query = "SELECT nextval(%s) FROM generate_series(1, %s)"
        return [number for (number,) in session.connection.execute(query, [SEQUENCE, times])]

    def at_source(self, times=1):
        return self.draw(self.world.sessions.source, times)

    def at_target(self, times=1):
        return self.draw(self.world.sessions.target, times)

    def carry_over(self, *pause):
        tables = [table for table in self.world.facts.tables if table.name == TABLE]
        sequences.carry_over(self.world.sessions, tables, *pause)


def test_the_target_goes_on_after_the_source(world):
    numbers = Numbers(world)
    given = numbers.at_source(7)
    numbers.carry_over()
    assert numbers.at_target() == [given[-1] + 1]


def test_a_target_that_is_ahead_stays_where_it_is(world):
    numbers = Numbers(world)
    numbers.at_source(3)
    given = numbers.at_target(9)
    numbers.carry_over()
    assert numbers.at_target() == [given[-1] + 1]


def test_nothing_is_drawn_where_nothing_was_given(world):
    numbers = Numbers(world)
    numbers.carry_over()
    assert (numbers.at_source(), numbers.at_target()) == ([1], [1])


def test_the_first_number_that_the_source_gave_is_not_given_again(world):
    numbers = Numbers(world)
    assert numbers.at_source() == [1]
    numbers.carry_over()
    assert numbers.at_target() == [2]


@pytest.mark.parametrize(
    ("options", "following"),
    [
        ("INCREMENT 10", 61),
        ("INCREMENT -1 MINVALUE -100 MAXVALUE 1 START 1", -5),
        ("INCREMENT -10 MINVALUE -1000 MAXVALUE 1 START 1", -59),
    ],
)
def test_sequences_that_go_in_other_steps(world, options, following):
    numbers = Numbers(world, options)
    try:
        numbers.at_source(6)
        numbers.carry_over()
        assert numbers.at_target() == [following]
    finally:
        Numbers(world, "INCREMENT 1 NO MINVALUE NO MAXVALUE START 1")


def test_shards_that_take_turns(world):
    """Each gives its own residue, so that none repeats; the target's next is after the source's last."""
    numbers = Numbers(world, "INCREMENT 10")
    try:
        numbers.at_source(4)
        world.sessions.target.connection.execute(f"SELECT setval('{SEQUENCE}', 2)")
        numbers.carry_over()
        assert numbers.at_target() == [42]
    finally:
        Numbers(world, "INCREMENT 1")


def test_many_numbers_are_drawn_in_parts(world, monkeypatch):
    monkeypatch.setattr(sequences, "AT_ONCE", 3)
    numbers, pauses = Numbers(world), []
    numbers.at_source(8)
    numbers.carry_over(lambda: pauses.append(1))
    assert len(pauses) == 3
    assert numbers.at_target() == [9]


def test_a_sequence_from_which_a_default_draws(world):
    """No column owns it, as none owns what db_default names."""
    sessions = (world.sessions.source, world.sessions.target)
    with (
        sessions[0].connection.transaction(force_rollback=True),
        sessions[1].connection.transaction(force_rollback=True),
    ):
        for session in sessions:
            session.connection.execute('CREATE SEQUENCE "Invoice no"')
            session.connection.execute(f"""ALTER TABLE {TABLE} ADD invoice bigint DEFAULT nextval('"Invoice no"')""")
        query = """SELECT nextval('"Invoice no"')"""
        for _ in range(7):
            sessions[0].connection.execute(query)
        sequences.carry_over(world.sessions, [table for table in world.facts.tables if table.name == TABLE])
        assert sessions[1].connection.execute(query).fetchall() == sessions[0].connection.execute(query).fetchall()
