"""How moves look: under way, when they have failed, and in a log that has no room for each of many."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from rich.console import Console

from sharding.management.rebalance_subcommands.apply import _Shown
from sharding.rebalance import moves_display
from sharding.rebalance.overview import MoveStatus, Overview
from sharding.rebalance.phases import Phase

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
PLANNED = MoveStatus(
    id=1,
    plan=UUID(int=1),
    bucket=7,
    source="shard_a",
    target="shard_b",
    phase=Phase.PLANNED,
    wanted="go",
    generation=1,
    rows=2000,
    bytes=1,
    copied=0,
    noted=0,
    planned=NOW,
    begun=None,
    changed=NOW - timedelta(seconds=3),
    announced=None,
    window_ends=None,
    gap=None,
    error="",
    failures=0,
    retry_at=None,
    worker=None,
    now=NOW,
)
COPYING = replace(PLANNED, id=2, bucket=8, phase=Phase.COPYING, copied=1500, noted=12, worker="host:4711:140213")


def switched(number, gap=0.012):
    return replace(
        PLANNED, id=number, bucket=number, phase=Phase.WINDOW, copied=2000, announced=NOW, window_ends=NOW, gap=gap
    )


def lines(*moves, speeds=None):
    out = io.StringIO()
    console = Console(file=out, width=80, highlight=False, markup=False)
    console.print(moves_display.rendered(Overview(moves), speeds))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_no_move():
    assert lines() == ["No moves are planned."]


def test_moves_under_way():
    paused = replace(COPYING, id=3, bucket=10, wanted="pause")
    assert lines(PLANNED, COPYING, switched(9), paused, speeds={2: 1234.5}) == [
        "━━━━━━━━" + "━" * 22 + "  1 of 4 buckets have changed hands",
        "",
        "from      to        planned   moving   window    rows",
        "─────────────────────────────────────────────────────",
        "shard_a   shard_b         1        2        1   5,000",
        "",
        "bucket   phase                    rows   rows/s   notes   since   worker",
        "───────────────────────────────────────────────────────────────────────────",
        "     8   copying           1,500 (75%)    1,234      12     3 s   host:4711",
        "    10   copying (pause)   1,500 (75%)        -      12     3 s   host:4711",
        "",
        "Closed to writes while it changed hands: 12 ms.",
    ]


def test_a_log_has_no_line_of_spaces():
    out = io.StringIO()
    console = Console(file=out, width=10_000, highlight=False, markup=False)
    console.print(moves_display.rendered(Overview((replace(COPYING, error="The server is gone."),))))
    assert max(len(line) for line in out.getvalue().splitlines()) < 100


def test_gaps_of_several():
    assert lines(switched(1, 0.010), switched(2, 0.030))[-1] == (
        "Closed to writes while they changed hands: p50 20 ms, p99 30 ms, max 30 ms."
    )


def test_what_has_failed_and_what_was_given_up():
    again = replace(COPYING, error="The server is gone.", failures=2)
    given_up = replace(PLANNED, phase=Phase.ABORTED, error="A column differs.")
    shown = lines(again, given_up)
    assert shown[0].endswith("  0 of 1 buckets have changed hands")
    assert shown[-4:] == [
        "Bucket 8, shard_a -> shard_b, failed 2 times, is tried again: The server is",
        "gone.",
        "",
        "Bucket 7, shard_a -> shard_b, was given up: A column differs.",
    ]


def log(before, *looks):
    out = io.StringIO()
    console = Console(file=out, width=200, highlight=False, markup=False)
    shown = _Shown(console, Overview(tuple(before)), quiet=False)
    with shown:
        for moves in looks:
            shown.look(Overview(tuple(moves)))
    return out.getvalue().splitlines()


def test_a_log_has_a_line_for_each_of_a_few_buckets_once():
    one, both = [switched(1), PLANNED], [switched(1), switched(2)]
    assert log(one, one, both, both) == ["Bucket 2: shard_a -> shard_b, 2,000 rows copied, closed for 12 ms."]


def test_a_log_has_a_line_for_each_tenth_of_many():
    def after(number):
        return [switched(each) if each < number else replace(PLANNED, id=each) for each in range(100)]

    assert log(after(0), after(3), after(9), after(14), after(22), after(30), after(100)) == [
        "14 of 100 have changed hands: 28,000 rows, closed for 12 ms at most.",
        "30 of 100 have changed hands: 60,000 rows, closed for 12 ms at most.",
        "100 of 100 have changed hands: 200,000 rows, closed for 12 ms at most.",
    ]
