"""
What moves cost: how fast rows go over, and what the application notices of it.

Buckets are few and large here. Movers and the clients whose writes are counted are processes of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connections

from scripts.benchmarks.moves import copying, neighbours, resuming, switching, triggers
from scripts.benchmarks.rounds import Comparison, Value


@contextmanager
def comparisons() -> Iterator[list[Comparison]]:
    """Nothing is compared in pairs of operations."""
    yield []


def values(rounds: int) -> Iterator[Value]:
    """Yield all figures of moves; the rounds of the others stand for so many switches, and a part of so many moves."""
    moves = max(2, rounds // 10)
    yield from triggers.values(rounds)
    yield from copying.values(moves)
    yield from resuming.values(moves)
    yield from neighbours.values(moves)
    connections.close_all()
    yield from switching.values(max(4, rounds * 5 // 2))
