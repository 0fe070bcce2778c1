"""
Minting of integer ids: never the same twice, whatever threads, forks, processes and rollbacks do.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from sharding import bucket_of, cluster_map, ids, minting, shard_of
from sharding.testing.cluster import owners
from sharding.testing.statements import assert_statements
from tests.blocks import undone
from tests.layouts import CLUSTER, SHOP_ONLY, tenant_on
from tests.shop.models import Tag

pytestmark = pytest.mark.django_db(databases=CLUSTER)

ROOT = Path(__file__).parent.parent
POSTGRESQL = connections["default"].vendor == "postgresql"


@pytest.fixture
def no_blocks() -> Iterator[None]:
    minting.forget()
    yield
    minting.forget()


def test_ids_hold_their_bucket() -> None:
    assert [ids.bucket_of_bigint(minting.new_bigint(bucket)) for bucket in (0, 7, 4095)] == [0, 7, 4095]


def test_ids_hold_the_number_of_the_minting_shard() -> None:
    numbers = set()
    for alias in ("shard_a", "shard_b", "shard_c"):
        tag = Tag.objects.create(tenant_id=tenant_on(alias))
        assert ids.shard_number_of_bigint(tag.pk) == cluster_map.shard_number(alias)
        numbers.add(cluster_map.shard_number(alias))
    assert len(numbers) == 3
    assert cluster_map.shard_number("default") not in numbers


def test_the_same_number_of_two_shards_makes_two_ids() -> None:
    bucket = 7
    made = {ids.pack_bigint(1, cluster_map.shard_number(alias), bucket) for alias in CLUSTER}
    assert len(made) == len(CLUSTER)


def test_ids_sort_in_the_order_of_minting() -> None:
    made = [minting.new_bigint(7) for _ in range(200)]
    assert made == sorted(set(made))


def test_one_statement_reserves_a_block(no_blocks: None) -> None:
    numbers = 2 * minting.BLOCK + 1
    with assert_statements({"shard_a": 3 if POSTGRESQL else numbers}):
        taken = [minting.next_in_sequence("shard_a") for _ in range(numbers)]
    assert len(set(taken)) == numbers


def test_each_shard_has_a_sequence_of_its_own(no_blocks: None) -> None:
    with assert_statements({"shard_a": 1, "shard_b": 1}):
        minting.next_in_sequence("shard_a")
        minting.next_in_sequence("shard_b")


def test_forgotten_blocks_are_not_used_again(no_blocks: None) -> None:
    """What a process did not use before it ended is lost, and never repeated."""
    taken = []
    for _ in range(3):
        taken += [minting.next_in_sequence("shard_a") for _ in range(5)]
        minting.forget()
    assert len(set(taken)) == 15


def test_bulk_create_takes_ids_from_each_owner(no_blocks: None) -> None:
    tenants = [tenant_on("shard_a"), tenant_on("shard_b")] * 50
    tags = Tag.objects.bulk_create(Tag(tenant_id=tenant, label="x") for tenant in tenants)
    assert len({tag.pk for tag in tags}) == 100
    for tag in tags:
        assert ids.bucket_of_bigint(tag.pk) == bucket_of(tag)
        assert ids.shard_number_of_bigint(tag.pk) == cluster_map.shard_number(shard_of(tag))


@pytest.mark.django_db(transaction=True, databases=CLUSTER, available_apps=SHOP_ONLY)
def test_stored_ids_do_not_repeat_after_rollbacks(no_blocks: None) -> None:
    tenant = tenant_on("shard_a")
    kept, lost = [], []
    for _ in range(5):
        with undone():
            lost.append(Tag.objects.create(tenant_id=tenant).pk)
        kept.append(Tag.objects.create(tenant_id=tenant).pk)
        # Another process begins a block of its own.
        minting.forget()
    assert len(set(kept)) == 5
    if POSTGRESQL:
        # Even an id that was shown and never stored.
        assert len({*kept, *lost}) == 10


@pytest.mark.django_db(transaction=True, databases=CLUSTER, available_apps=SHOP_ONLY)
def test_a_moved_bucket_gets_ids_of_its_new_owner(no_blocks: None) -> None:
    tenant = tenant_on("shard_a")
    before = minting.new_bigint(bucket_of(tenant, model=Tag))
    with owners("shard_b"):
        after = minting.new_bigint(bucket_of(tenant, model=Tag))
        assert ids.shard_number_of_bigint(after) == cluster_map.shard_number("shard_b")
    assert ids.bucket_of_bigint(before) == ids.bucket_of_bigint(after)
    assert before != after


def database(folder: Path) -> dict[str, Any]:
    """Return the DATABASES entry of a sequence that other processes can reach."""
    if POSTGRESQL:
        chosen = connections["shard_a"].settings_dict
        return {name: chosen[name] for name in ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT")}
    path = folder / "shard.sqlite3"
    with sqlite3.connect(path) as file:
        file.execute(f"CREATE TABLE {minting.SEQUENCE} (value integer NOT NULL)")
        file.execute(f"INSERT INTO {minting.SEQUENCE} VALUES (0)")
    file.close()
    return {"ENGINE": "sharding.backends.sqlite3", "NAME": str(path), "OPTIONS": {"timeout": 60}}


def start(job: dict[str, Any]) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-m", "tests.minting_process"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write(json.dumps(job))
    process.stdin.close()
    return process


def numbers_of(process: subprocess.Popen[str]) -> list[int]:
    with process:
        assert process.stdout is not None
        found = [int(line) for line in process.stdout]
    assert process.returncode == 0
    return found


def assert_no_repeat(jobs: list[dict[str, Any]], expected: int) -> None:
    taken = [number for process in [start(job) for job in jobs] for number in numbers_of(process)]
    assert len(taken) == expected
    assert len(set(taken)) == expected


def test_no_repeat_over_threads(tmp_path: Path) -> None:
    numbers = 500 if POSTGRESQL else 50
    job = {"database": database(tmp_path), "threads": 8, "forks": 0, "numbers": numbers}
    assert_no_repeat([job], 8 * numbers)


def test_no_repeat_over_forks(tmp_path: Path) -> None:
    job = {"database": database(tmp_path), "threads": 1, "forks": 4, "numbers": 100}
    assert_no_repeat([job], 3 + 5 * 100)


def test_no_repeat_over_processes(tmp_path: Path) -> None:
    job = {"database": database(tmp_path), "threads": 2, "forks": 0, "numbers": 100}
    assert_no_repeat([job] * 3, 600)
