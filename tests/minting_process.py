"""
A process that takes numbers of a shard's sequence, for tests/test_minting.py: ``python -m tests.minting_process``.

Reads {"database": …, "threads": …, "forks": …, "numbers": …} from its input and writes the numbers, one a line.
"""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import django
from django.conf import settings


def take(numbers: int) -> list[int]:
    from django.db import connections

    from sharding.minting import next_in_sequence

    try:
        return [next_in_sequence("default") for _ in range(numbers)]
    finally:
        connections.close_all()


def in_threads(threads: int, numbers: int) -> list[int]:
    with ThreadPoolExecutor(threads) as pool:
        return [number for found in pool.map(take, [numbers] * threads) for number in found]


def in_forks(forks: int, numbers: int) -> list[int]:
    """Take numbers, fork while a block is begun, and take more in the children and in the parent."""
    found = take(3)
    readers = []
    for _ in range(forks):
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.write(writer, json.dumps(take(numbers)).encode())
            os._exit(0)
        os.close(writer)
        readers.append(reader)
    found += take(numbers)
    for reader in readers:
        with os.fdopen(reader) as pipe:
            found += json.load(pipe)
        os.wait()
    return found


def main(job: dict[str, Any]) -> list[int]:
    settings.configure(DATABASES={"default": job["database"]}, INSTALLED_APPS=["sharding"])
    django.setup()
    if job["forks"]:
        return in_forks(job["forks"], job["numbers"])
    return in_threads(job["threads"], job["numbers"])


if __name__ == "__main__":
    print(*main(json.load(sys.stdin)), sep="\n")
