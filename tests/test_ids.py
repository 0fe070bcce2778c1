"""Ids that hold their bucket: their bits, and that none repeats: bursts, clock steps, forks, processes, threads."""

from __future__ import annotations

import doctest
import multiprocessing
import re
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharding import ids
from sharding.ids import bucket_of_bigint, bucket_of_uuid, new_uuid, pack_bigint, shard_number_of_bigint
from tests.messages import whole

ROOT = Path(__file__).parent.parent
NOON = 1_795_262_400_000  # 2026-11-21T12:00:00Z in milliseconds


@pytest.fixture
def clock(monkeypatch):
    """Return a function that sets the milliseconds which the clock will show, one a reading and round again."""

    def set_to(*milliseconds: int) -> None:
        readings = cycle(milliseconds)
        monkeypatch.setattr(ids, "time_ns", lambda: next(readings) * 1_000_000)

    monkeypatch.setattr(ids, "_latest", 0)
    return set_to


def milliseconds_of(value: uuid.UUID) -> int:
    return value.int >> 80


# --- UUIDs: layout


def test_the_example_of_the_rfc(clock, monkeypatch):
    """RFC 9562, A.6: rand_a is 0xCC3, rand_b is 0x18C4DC0C0C07398F."""
    clock(0x017F22E279B0)
    monkeypatch.setattr(ids, "urandom", lambda size: (0x18C4DC0C0C07398F << 2).to_bytes(size))
    assert new_uuid(0xCC3) == uuid.UUID("017F22E2-79B0-7CC3-98C4-DC0C0C07398F")


@pytest.mark.parametrize("noise", [b"\x00" * 8, b"\xff" * 8], ids=["all bits 0", "all bits 1"])
@pytest.mark.parametrize("bucket", [0, 1, 1236, 4095])
def test_no_random_bits_reach_the_fixed_ones(clock, monkeypatch, noise, bucket):
    clock(NOON)
    monkeypatch.setattr(ids, "urandom", lambda size: noise[:size])
    value = new_uuid(bucket)
    assert (value.version, value.variant) == (7, uuid.RFC_4122)
    assert bucket_of_uuid(value) == bucket
    assert milliseconds_of(value) == NOON
    assert value.int & (1 << 62) - 1 == int.from_bytes(noise) >> 2


def test_every_bucket_is_carried():
    for bucket in range(4096):
        value = new_uuid(bucket)
        assert (bucket_of_uuid(value), value.version, value.variant) == (bucket, 7, uuid.RFC_4122)


def test_the_time_is_the_time():
    before = time.time_ns() // 1_000_000
    value = new_uuid(7)
    assert before <= milliseconds_of(value) <= time.time_ns() // 1_000_000


@pytest.mark.parametrize("bucket", [-1, 4096])
def test_a_bucket_of_more_than_12_bits(bucket):
    with pytest.raises(ValueError, match=whole(f"The bucket of an id is 0 to 4095 (12 bits), not {bucket}.")):
        new_uuid(bucket)


@given(st.uuids())
def test_any_uuid_has_twelve_bits_there(value):
    assert bucket_of_uuid(value) == int(value.hex[13:16], 16)


# --- UUIDs: never twice


def test_no_repeat_in_a_burst_within_one_millisecond(clock):
    clock(NOON)
    burst = {new_uuid(7) for _ in range(120_000)}
    assert len(burst) == 120_000
    assert {milliseconds_of(value) for value in burst} == {NOON}


@pytest.mark.parametrize(
    ("readings", "shown"),
    [
        ([5, 6, 7], [5, 6, 7]),
        ([7, 6, 5, 8], [7, 7, 7, 8]),
        ([10_005, 5], [10_005, 10_005]),
        ([10_006, 5, 6], [10_006, 5, 6]),
    ],
    ids=["forwards", "a little back", "ten seconds back", "further back"],
)
def test_a_clock_that_steps_back(clock, readings, shown):
    clock(*(NOON + reading for reading in readings))
    assert [milliseconds_of(new_uuid(7)) - NOON for _ in readings] == shown


def test_no_repeat_while_the_clock_jumps_to_and_fro(clock):
    clock(NOON, NOON + 1, NOON - 3_600_000, NOON - 1, NOON)
    made = [new_uuid(7) for _ in range(50_000)]
    assert len(set(made)) == 50_000
    assert {(value.version, value.variant, bucket_of_uuid(value)) for value in made} == {(7, uuid.RFC_4122, 7)}


@pytest.mark.parametrize("milliseconds", [-60_000, -86_400_000, 1 << 48, (1 << 48) + 5])
def test_a_clock_out_of_range_spoils_no_other_bits(clock, milliseconds):
    clock(milliseconds)
    for value in (new_uuid(7), new_uuid(7)):
        assert (value.version, value.variant, bucket_of_uuid(value)) == (7, uuid.RFC_4122, 7)
        assert milliseconds_of(value) == milliseconds % (1 << 48)


def test_ids_of_one_process_sort_by_time(clock):
    clock(*range(NOON, NOON + 1000))
    made = [new_uuid(bucket) for bucket in islice(cycle([4095, 0, 7]), 1000)]
    assert made == sorted(made)


# The clock stands still, so that nothing but the random bits tells the ids of the processes apart.
FORKS = """
import os, sys
from sharding import ids
ids.time_ns = lambda: 1_795_262_400_000_000_000
made = [ids.new_uuid(7).hex for _ in range(1000)]
pipes = []
for _ in range(4):
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        with open(writer, "w") as out:
            out.writelines(ids.new_uuid(7).hex + "\\n" for _ in range(5000))
        os._exit(0)
    os.close(writer)
    pipes.append(reader)
made += [ids.new_uuid(7).hex for _ in range(5000)]
for reader in pipes:
    with open(reader) as lines:
        made += lines.read().split()
    _, status = os.wait()
    assert status == 0, status
print(len(made), len(set(made)))
"""


def test_no_repeat_after_forks():
    # In a process of its own: this one may have threads, with which a fork is unsafe.
    run = subprocess.run([sys.executable, "-c", FORKS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr, run.returncode) == ("26000 26000\n", "", 0)


def test_no_repeat_over_several_processes_at_once():
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        batches = [pool.map_async(new_uuid, [7] * 10_000, chunksize=1000) for _ in range(3)]
        made = [value for batch in batches for value in batch.get(timeout=250)]
    assert len(set(made)) == 30_000
    assert {(value.version, value.variant, bucket_of_uuid(value)) for value in made} == {(7, uuid.RFC_4122, 7)}


def test_no_repeat_over_threads():
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(new_uuid, [7] * 20_000))
    assert len(set(made)) == 20_000


# --- integers


@pytest.mark.parametrize(
    ("sequence", "shard_number", "bucket", "value"),
    [
        (0, 0, 0, 0),
        (0, 0, 4095, 4095),
        (0, 1, 0, 4096),
        (1, 0, 0, 4194304),
        (1, 3, 1236, 4207828),
        (2**31, 0, 0, 2**53),
        (2**41 - 1, 1023, 4095, 2**63 - 1),
    ],
)
def test_the_layout_of_integers(sequence, shard_number, bucket, value):
    assert pack_bigint(sequence, shard_number, bucket) == value
    assert bucket_of_bigint(value) == bucket
    assert shard_number_of_bigint(value) == shard_number


sequences, shard_numbers, buckets = st.integers(0, 2**41 - 1), st.integers(0, 1023), st.integers(0, 4095)
parts = st.tuples(sequences, shard_numbers, buckets)


@given(parts)
def test_parts_come_back(triple):
    value = pack_bigint(*triple)
    assert 0 <= value < 2**63
    assert (value >> 22, shard_number_of_bigint(value), bucket_of_bigint(value)) == triple


@given(parts, parts)
def test_integers_sort_by_sequence_first_and_never_collide(first, second):
    assert (pack_bigint(*first) < pack_bigint(*second)) is (first < second)
    assert (pack_bigint(*first) == pack_bigint(*second)) is (first == second)


@given(st.integers(-(2**63), 2**63 - 1))
def test_any_integer_has_a_bucket_in_range(value):
    assert 0 <= bucket_of_bigint(value) < 4096
    assert 0 <= shard_number_of_bigint(value) < 1024


@pytest.mark.parametrize(
    ("triple", "message"),
    [
        ((2**41, 0, 0), "The sequence of an id is 0 to 2199023255551 (41 bits), not 2199023255552."),
        ((-1, 0, 0), "The sequence of an id is 0 to 2199023255551 (41 bits), not -1."),
        ((0, 1024, 0), "The shard number of an id is 0 to 1023 (10 bits), not 1024."),
        ((0, -1, 0), "The shard number of an id is 0 to 1023 (10 bits), not -1."),
        ((0, 0, 4096), "The bucket of an id is 0 to 4095 (12 bits), not 4096."),
        ((0, 0, -1), "The bucket of an id is 0 to 4095 (12 bits), not -1."),
    ],
)
def test_parts_that_do_not_fit(triple, message):
    with pytest.raises(ValueError, match=whole(message)):
        pack_bigint(*triple)


def test_the_bits_fill_a_bigint():
    assert ids.SEQUENCE_BITS + ids.SHARD_NUMBER_BITS + ids.BUCKET_BITS == 63


# --- documentation


def test_the_documented_examples():
    text = (ROOT / "docs/reference/ids.md").read_text(encoding="utf-8")
    integers = re.findall(r"^\| (\d+) \| (\d+) \| (\d+) \| `(\d+)` \|$", text, flags=re.MULTILINE)
    assert [pack_bigint(*map(int, row[:3])) for row in integers] == [int(row[3]) for row in integers]
    uuids = re.findall(r"^\| `(\S{36})` \| (\d+) \| (\d+) \|$", text, flags=re.MULTILINE)
    found = [(milliseconds_of(uuid.UUID(row[0])), bucket_of_uuid(uuid.UUID(row[0]))) for row in uuids]
    assert found == [(int(row[1]), int(row[2])) for row in uuids]
    assert (len(integers), len(uuids)) == (4, 2)


def test_examples():
    assert doctest.testmod(ids).failed == 0
