"""
Measure two ways to do the same, side by side: the figure is the median of the ratios of time of paired rounds.

In a round both ways run many times in turn, in random order, so that whatever else the machine does meets both alike.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

Operation = Callable[[Any], object]

WARM_UP = 3
#: Short rounds, and many: what disturbs one is then out of the median.
ROUNDS = 80


@dataclass(frozen=True)
class Comparison:
    """Two ways to do the same, of which the first should take at most ``target`` times the time of the second."""

    name: str
    what: str
    against: str
    target: float
    ours: Operation
    baseline: Operation
    #: Gives what both operations of one pair are called with.
    argument: Callable[[], Any] = lambda: None
    #: Pairs in a round.
    pairs: int = 1


@dataclass(frozen=True)
class Figure:
    """What a comparison came to: the median ratio, and the medians of one operation in seconds."""

    comparison: Comparison
    ratio: float
    quartiles: tuple[float, float]
    ours: float
    baseline: float

    @property
    def met(self) -> bool:
        """Return whether the target is met."""
        return self.ratio <= self.comparison.target


@dataclass(frozen=True)
class Value:
    """A figure that is compared with nothing."""

    name: str
    what: str
    number: float
    unit: str
    #: None: it is reported, and judged by nobody.
    target: float | None = None
    #: The target is the least that is wanted, not the most.
    at_least: bool = False


def milliseconds(operation: Operation, rounds: int) -> float:
    """Return the median time of an operation, called with the number of the round."""
    times = []
    for turn in range(WARM_UP + rounds):
        begun = time.perf_counter()
        operation(turn)
        times.append(time.perf_counter() - begun)
    return statistics.median(times[WARM_UP:]) * 1000


def measure(comparison: Comparison, rounds: int) -> Figure:
    """Run the rounds and return the figure; at least two rounds are needed."""
    for _ in range(WARM_UP):
        _round(comparison)
    with _no_collection():
        times = [_round(comparison) for _ in range(rounds)]
    ratios = [ours / baseline for ours, baseline in times]
    lower, _, upper = statistics.quantiles(ratios, n=4)
    return Figure(
        comparison,
        ratio=statistics.median(ratios),
        quartiles=(lower, upper),
        ours=statistics.median(ours for ours, _ in times),
        baseline=statistics.median(baseline for _, baseline in times),
    )


def _round(comparison: Comparison) -> tuple[float, float]:
    """Return the seconds that ours and the baseline took: of the round's operations, those in the middle."""
    gc.collect()
    seconds: dict[Operation, list[float]] = {comparison.ours: [], comparison.baseline: []}
    both = [comparison.ours, comparison.baseline]
    for _ in range(comparison.pairs):
        argument = comparison.argument()
        random.shuffle(both)
        for operation in both:
            begun = time.perf_counter()
            operation(argument)
            seconds[operation].append(time.perf_counter() - begun)
    return statistics.median(seconds[comparison.ours]), statistics.median(seconds[comparison.baseline])


@contextmanager
def _no_collection() -> Iterator[None]:
    # A collection that falls into one of two operations would be counted as its time.
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
