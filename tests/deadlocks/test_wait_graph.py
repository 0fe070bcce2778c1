"""The graph of waits by itself: who is one block, what is a circle, and who is the youngest in it."""

from __future__ import annotations

from typing import Any

import pytest

from sharding.operations.lock_waits import MODES, conflict
from sharding.operations.wait_graph import Prepared, Reading, Row, graph, summary

A, B, C, D = ("a" * 16, "b" * 16, "c" * 16, "d" * 16)
#: When the block of each door began.
BEGAN = {A: 100, B: 200, C: 300, D: 400}
OPEN = [(f"web shardkit:{door}", time) for door, time in BEGAN.items()]
PIDS = {door: number for number, door in enumerate(BEGAN, 1)}


def gid(door: str, number: int = 7) -> str:
    return f"shardkit:{'0' * 32}:{door}.{number}:shard_a"


def row(waiting: str | int, blocking: str | int, *, since: int = 500) -> Row:
    """One waits for the other: a door, the pid of somebody else's session, or 0 for what is prepared."""
    pid, name = _session(waiting)
    other_pid, other_name = _session(blocking)
    return Row(pid, name, BEGAN.get(str(waiting)), since, "UPDATE t SET", 1.0, other_pid, other_name, None)


def _session(who: str | int) -> tuple[int, str | None]:
    return (who, "psql") if isinstance(who, int) else (PIDS[who], f"web shardkit:{who}")


def deadlocks(**servers: Any) -> list[tuple[tuple[str, ...], str]]:
    readings = [
        each if isinstance(each, Reading) else Reading(alias, each, open=OPEN) for alias, each in servers.items()
    ]
    return [(each.blocks, each.victim) for each in graph(readings).deadlocks()]


def test_two_blocks_on_two_servers():
    assert deadlocks(shard_a=[row(A, B)], shard_b=[row(B, A)]) == [((A, B), B)]


def test_three_blocks_on_three_servers():
    assert deadlocks(shard_a=[row(B, C)], shard_b=[row(C, A)], shard_c=[row(A, B)]) == [((A, B, C), C)]


def test_a_chain_is_no_circle():
    assert deadlocks(shard_a=[row(A, B), row(D, A)], shard_b=[row(B, C)], shard_c=[row(D, C)]) == []


def test_nobody_waits():
    assert deadlocks(shard_a=[]) == []
    assert graph([]).deadlocks() == []


def test_what_one_server_sees_is_left_to_it():
    assert deadlocks(shard_a=[row(A, B), row(B, A)]) == []


def test_one_server_does_not_see_the_sessions_of_one_block_in_two_databases():
    readings = [
        Reading("shard_a", [Row(1, f"shardkit:{A}", 1, 5, "", 1.0, 2, f"shardkit:{B}", 2)], open=OPEN),
        Reading("shard_b", [Row(3, f"shardkit:{B}", 1, 5, "", 1.0, 4, f"shardkit:{A}", 2)], open=OPEN),
    ]
    assert [each.victim for each in graph(readings).deadlocks()] == [B]


def test_a_circle_beside_one_that_a_server_sees():
    """The shortest is not hidden by what PostgreSQL deals with."""
    assert deadlocks(shard_a=[row(A, B), row(B, A), row(C, D)], shard_b=[row(D, C)]) == [((C, D), D)]
    assert deadlocks(shard_a=[row(A, B), row(B, A)], shard_b=[row(A, B)]) == [((A, B), B)]


def test_two_circles_of_one_block_end_with_it():
    assert deadlocks(shard_a=[row(D, A), row(D, B)], shard_b=[row(A, D), row(B, D)]) == [((A, D), D)]


def test_two_circles_with_a_block_each():
    found = deadlocks(shard_a=[row(A, B), row(C, D)], shard_b=[row(B, A), row(D, C)])
    assert found == [((A, B), B), ((C, D), D)]


def test_sessions_of_others_are_links_and_never_victims():
    assert deadlocks(shard_a=[row(A, 77)], shard_b=[row(B, A)], shard_c=[row(77, B)]) == []
    assert deadlocks(shard_a=[row(A, 77), row(77, B)], shard_b=[row(B, A)]) == [((A, "pid 77 on shard_a", B), B)]


def test_the_youngest_is_the_one_that_began_last_on_any_server():
    readings = [
        Reading("shard_a", [row(A, B)], open=[(f"shardkit:{A}", 900), (f"shardkit:{B}", 800)]),
        Reading("shard_b", [row(B, A)], open=[(f"shardkit:{A}", 100)]),
    ]
    assert [each.victim for each in graph(readings).deadlocks()] == [B]


def test_of_the_same_instant_every_detector_takes_the_same():
    readings = [Reading("shard_a", [row(A, B)]), Reading("shard_b", [row(B, A)])]
    assert [each.victim for each in graph(readings).deadlocks()] == [B]
    assert [each.victim for each in graph(reversed(readings)).deadlocks()] == [B]


def test_a_block_that_waits_for_itself():
    """Two sessions of one thread, in transactions of their own."""
    rows = [Row(1, f"shardkit:{A}", 1, 5, "", 1.0, 2, f"shardkit:{A}", 2)]
    assert deadlocks(shard_a=Reading("shard_a", rows, open=OPEN)) == [((A,), A)]


@pytest.mark.parametrize(("prepared", "found"), [(150, [((A, B), B)]), (100, [((A, B), B)]), (99, [])])
def test_what_a_block_has_prepared_is_a_part_of_it_while_it_lasts(prepared, found):
    """Something older is of a block that has ended, and somebody finishes it."""
    readings = {
        "shard_a": Reading("shard_a", [row(B, 0)], [Prepared(PIDS[B], gid(A), prepared)], OPEN),
        "shard_b": [row(A, B)],
    }
    assert deadlocks(**readings) == found


def test_names_of_what_is_prepared():
    rows = [row(A, 0), row(B, 0), row(C, 0)]
    prepared = [Prepared(1, gid(D), 10), Prepared(2, "other", 10), Prepared(2, gid(B), 999)]
    waits = graph([Reading("shard_a", rows, prepared, OPEN)]).waits
    assert [(each.waiting.block, each.blocking.block, each.blocking.is_ours) for each in waits] == [
        (A, gid(D), False),
        (B, "other", False),
        (B, B, True),
    ]


def test_a_door_without_open_transaction_has_nothing_of_its_own_prepared():
    [wait] = graph([Reading("shard_a", [row(A, 0)], [Prepared(1, gid(B), 10)])]).waits
    assert wait.blocking.block == gid(B)


def test_only_waits_that_last_count():
    first = graph([Reading("shard_a", [row(A, B)], open=OPEN), Reading("shard_b", [row(B, A, since=500)], open=OPEN)])
    again = graph([Reading("shard_a", [row(A, B)], open=OPEN), Reading("shard_b", [row(B, A, since=501)], open=OPEN)])
    assert len(first.deadlocks()) == len(again.deadlocks()) == 1
    assert first.lasting(again).deadlocks() == []
    assert first.lasting(first).deadlocks() == first.deadlocks()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ('UPDATE "shop_order" SET "total" = 3 WHERE "id" = \'secret\'', "UPDATE shop_order"),
        ('SELECT "a", "b" FROM "shop_order" WHERE x FOR UPDATE', "SELECT shop_order"),
        ('insert into "public"."t" values (1)', "INSERT public.t"),
        ("DELETE FROM ONLY shop_order", "DELETE shop_order"),
        ("COMMIT", "COMMIT"),
        ("<insufficient privilege>", "<INSUFFICIENT"),
        ("", ""),
    ],
)
def test_statements_are_shown_without_their_values(query, expected):
    assert summary(query) == expected


def test_modes_of_locks():
    """The table of PostgreSQL's documentation (13.3.1)."""
    table = {
        "AccessShareLock": "00000001",
        "RowShareLock": "00000011",
        "RowExclusiveLock": "00001111",
        "ShareUpdateExclusiveLock": "00011111",
        "ShareLock": "00110111",
        "ShareRowExclusiveLock": "00111111",
        "ExclusiveLock": "01111111",
        "AccessExclusiveLock": "11111111",
    }
    assert list(table) == list(MODES)
    for wanted, line in table.items():
        assert [conflict(wanted, held) for held in table] == [each == "1" for each in line]
