"""How plans look in 80 columns."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import timedelta

import pytest
from rich.console import Console

from sharding.bucket_map import BucketMap
from sharding.rebalance import planning
from sharding.rebalance.chart import bar, duration, show_plan
from sharding.rebalance.load import Size
from sharding.rebalance.request import Request, Shard

MB = 1024 * 1024


def shown(plan, **options):
    stream = io.StringIO()
    console = Console(file=stream, width=80, highlight=False, markup=False)
    show_plan(plan, console, **options)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def request_of(owners, shards, sizes, **options):
    return Request(
        map=BucketMap(7, tuple(owners)),
        shards=tuple(map(Shard, shards)),
        sizes={bucket: Size(10 * size, size * MB) for bucket, size in enumerate(sizes)},
        **options,
    )


NEW = request_of(
    ["default"] * 3 + ["shard_a"] * 3, ["default", "shard_a", "shard_e"], [100, 30, 70, 100, 30, 70], threshold=0.1
)


def test_a_plan():
    assert shown(planning.add(NEW, ["shard_e"])) == [
        "shard               bytes   ┃ fair share                   of it",
        "────────────────────────────────────────────────────────────────",
        "default   before   200 MB   ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒    1.50",
        "          after    170 MB   ███████████████████████▊        1.26",
        "shard_a   before   200 MB   ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒    1.50",
        "          after    100 MB   ██████████████    ┃             0.76",
        "shard_e   before      0 B                     ┃             0.00",
        "          after    130 MB   ██████████████████▏             0.98",
        "",
        "Imbalance: sd 70.71 %, max/mean 1.500, then sd 20.48 %, max/mean 1.262",
        "",
        "bucket   from      to         rows     size   why",
        "────────────────────────────────────────────────────────────────────────",
        "     3   shard_a   shard_e   1,000   100 MB   1.50 to 0.00 of fair share",
        "     1   default   shard_e     300    30 MB   1.50 to 0.74 of fair share",
        "",
        "2 moves, 1,300 rows, 130 MB; about 8 s at 20 MB/s (assumed).",
        "  default stays at 1.26 times its fair share: bucket 0 alone is 0.74 times that,",
        "  and a bucket is never divided.",
    ]


def test_nothing_to_do():
    even = replace(
        NEW, map=BucketMap(7, ("default", "shard_a", "shard_e", "shard_e", "shard_a", "default")), threshold=1
    )
    assert shown(planning.rebalance(even)) == [
        "Nothing is to be moved.",
        "  Each shard's load is within 100 % of its fair share: there is nothing to do.",
    ]


def test_many_moves_are_summed_up():
    request = request_of("a" * 100 + "b" * 100, "abc", [1] * 200)
    assert shown(planning.drain(request, ["b"]), shown=2) == [
        "shard             bytes   ┃ fair share                   of it",
        "──────────────────────────────────────────────────────────────",
        "a       before   100 MB   ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒    2.00",
        "        after    100 MB   ████████████████████████████    1.00",
        "b       before   100 MB   ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒       -",
        "        after       0 B                                      -",
        "c       before      0 B                ┃                  0.00",
        "        after    100 MB   ████████████████████████████    1.00",
        "",
        "Imbalance: sd 100.00 %, max/mean 2.000, then sd 0.00 %, max/mean 1.000",
        "",
        "from   to   buckets    rows     size",
        "────────────────────────────────────",
        "b      c        100   1,000   100 MB",
        "",
        "The largest:",
        "",
        "bucket   from   to   rows     size   why",
        "─────────────────────────────────────────────────",
        "   100   b      c      10   1.0 MB   b is drained",
        "   101   b      c      10   1.0 MB   b is drained",
        "   102   b      c      10   1.0 MB   b is drained",
        "",
        "100 moves, 1,000 rows, 100 MB; about 18 s at 20 MB/s (assumed).",
    ]


def test_isolation():
    request = request_of("aab", "abc", [900, 20, 30])
    key = planning.KeyInBucket("tenant_id=42", Size(1, 800 * MB), 3)
    assert shown(planning.isolate(request, 0, key)) == [
        "shard             bytes   ┃ fair share                   of it",
        "──────────────────────────────────────────────────────────────",
        "a       before   920 MB   ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒    1.91",
        "        after     20 MB   ▌                               0.88",
        "b       before    30 MB   ▒            ┃                  0.09",
        "        after     30 MB   ▉                               1.12",
        "c       before      0 B                                      -",
        "        after    900 MB   ███████████████████████████▍       -",
        "",
        "Imbalance: sd 90.81 %, max/mean 1.908, then sd 12.24 %, max/mean 1.122",
        "",
        "bucket   from   to    rows     size   why",
        "─────────────────────────────────────────────────",
        "     0   a      c    9,000   900 MB   pinned to c",
        "",
        "1 move, 9,000 rows, 900 MB; about 46 s at 20 MB/s (assumed).",
        "  b stays at 1.12 times its fair share: bucket 2 alone is 1.12 times that, and a",
        "  bucket is never divided.",
        "  Bucket 0, which has the key tenant_id=42, is pinned to c. 2 other keys in it",
        "  come along, with 104,857,600 bytes.",
        "Put the pin 0: 'c' into SHARDING['PINS'] once this is done.",
    ]


def test_eighty_columns_are_enough_for_long_names():
    names = ["shard_of_the_northern_half", "shard_of_the_southern_half", "shard_of_the_rest_of_the_world"]
    request = request_of([names[0]] * 60 + [names[1]] * 60, names, [1000] * 120)
    lines = shown(planning.rebalance(request))
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("figure", "scale", "mark", "drawn"),
    [
        (0, 0, None, ""),
        (0, 10, None, ""),
        (10, 10, None, "████████"),
        (5, 10, None, "████"),
        (5.5, 10, None, "████▍"),
        (1, 100, None, ""),
        (2, 100, None, "▏"),
        (5, 10, 7.5, "████ ┃"),
        (5, 10, 2.5, "████"),
        (0, 10, 10, "       ┃"),
        (0, 10, 20, "       ┃"),
        (0, 10, 0, ""),
    ],
)
def test_bars(figure, scale, mark, drawn):
    assert bar(figure, scale, mark, width=8).plain == drawn


def test_a_pale_bar_is_never_empty_where_something_is():
    assert bar(1, 1000, filled="▒", width=8).plain == "▒"
    assert bar(0, 1000, filled="▒", width=8).plain == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *[(0, "0 s"), (0.4, "0 s"), (59.6, "1 min"), (61, "1 min 1 s"), (3600, "1 h"), (3661, "1 h 1 min")],
        *[(86_400 * 2 + 3_600 * 5 + 59, "2 d 5 h"), (86_400 + 59, "1 d")],
    ],
)
def test_durations(seconds, text):
    assert duration(timedelta(seconds=seconds)) == text
