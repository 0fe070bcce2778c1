"""
Run one step: what it answered, which databases were sent how many statements, how long it took, and whether one
database that holds all rows answers the same.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Model, QuerySet

import aggregator
from demo import answers
from demo.servers import REFERENCE
from demo.step import Step
from sharding.errors import ShardingError
from sharding.testing.statements import statements


@dataclass
class Outcome:
    """What came of a step."""

    answer: Any
    seconds: float
    #: Statements by database.
    asked: dict[str, int] = field(default_factory=dict)
    #: Seconds that one database took for the same answer; None when it was not asked.
    reference_seconds: float | None = None
    #: What is wrong, in a sentence.
    failure: str | None = None


def perform(step: Step, given: Mapping[str, Any]) -> Outcome:
    """
    Run ``step`` on the cluster and, where that can be done, on the reference database.

    Args:
        given: what functions of steps may have as parameters, besides ``fan_out``.
    """
    with statements() as sent:
        answer, seconds, failure = _answer(step, given)
    outcome = Outcome(answer, seconds, sent.counts, failure=failure)
    if failure is None and step.silent and outcome.asked:
        outcome.failure = f"This should have asked no database, but asked {', '.join(outcome.asked)}."
    elif failure is None and step.expected is not None:
        outcome.failure = answers.difference(answer, step.expected)
    elif failure is None and step.refused is None:
        _compare(step, outcome, given)
    return outcome


def _answer(step: Step, given: Mapping[str, Any]) -> tuple[Any, float, str | None]:
    begun = time.perf_counter()
    try:
        answer = _evaluated(step.run({**given, "fan_out": aggregator.fan_out}))
    except ShardingError as error:
        seconds = time.perf_counter() - begun
        told = f"{type(error).__name__}: {error}"
        return told, seconds, None if type(error) is step.refused else "This should have been answered."
    seconds = time.perf_counter() - begun
    return answer, seconds, f"This should have raised {step.refused.__name__}." if step.refused else None


def _compare(step: Step, outcome: Outcome, given: Mapping[str, Any]) -> None:
    begun = time.perf_counter()
    if step.fans_out:
        expected = _evaluated(step.run({**given, "fan_out": on_reference}))
    elif isinstance(outcome.answer, (Model, QuerySet)):
        expected = _evaluated(_from_reference(outcome.answer))
    else:
        return
    outcome.reference_seconds = time.perf_counter() - begun
    outcome.failure = answers.difference(_listed(outcome.answer), _listed(expected))


def on_reference(queryset: Any) -> Any:
    """Stand in for ``fan_out()``: the same query, asked of one database with Django's own ENGINE."""
    return queryset.using(REFERENCE)


def _from_reference(answer: Any) -> Any:
    if isinstance(answer, Model):
        return type(answer)._default_manager.using(REFERENCE).get(pk=answer.pk)
    # A new queryset of the same query: the old one has related objects at hand, which are of the cluster.
    fresh: Any = answer.model._default_manager.using(REFERENCE)
    fresh.query = answer.query.chain()
    return fresh


def _evaluated(answer: Any) -> Any:
    if isinstance(answer, QuerySet):
        # Within the measured time, and kept as a queryset that another database can be asked.
        len(answer)
    return answer


def _listed(answer: Any) -> Any:
    return list(answer) if isinstance(answer, QuerySet) else answer
