"""
Look at everything that could stop a move, before the first one: what a plan's shards are, have, and allow.

Nothing is changed, and nobody is kept waiting. What is found is a list; only refuse() raises.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import MappingProxyType

import psycopg
from django.db import DEFAULT_DB_ALIAS

from sharding.errors import PooledConnection, PreflightFailed, UnknownShard
from sharding.operations.status import reason
from sharding.rebalance import (
    preflight_cluster,
    preflight_constraints,
    preflight_pairs,
    preflight_servers,
    preflight_tables,
)
from sharding.rebalance.finding import Finding, Severity, error
from sharding.rebalance.plan import Plan
from sharding.rebalance.sessions import Session, open_inspection

NONE: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _Moves:
    """What is to move: from where to where, and how many bytes each target gets and can hold."""

    pairs: Collection[tuple[str, str]]
    buckets: Collection[int]
    arriving: Mapping[str, int] = field(default_factory=dict)
    capacity: Mapping[str, int] = field(default_factory=dict)


def findings(
    pairs: Iterable[tuple[str, str]],
    buckets: Iterable[int],
    *,
    arriving: Mapping[str, int] = NONE,
    capacity: Mapping[str, int] = NONE,
) -> list[Finding]:
    """
    Return what hinders moves of some buckets, or may; errors first.

    Args:
        pairs: source and target of each move.
        arriving: bytes that a target is to get, by alias.
        capacity: bytes of sharded rows that a shard can hold, by alias.
    """
    moves = _Moves(sorted(set(pairs)), sorted(set(buckets)), arriving, capacity)
    order = list(Severity)
    # Two pairs with one shard find the same there.
    return sorted(dict.fromkeys(_found(moves)), key=lambda each: order.index(each.severity))


def findings_of(plan: Plan, *, capacity: Mapping[str, int] = NONE) -> list[Finding]:
    """Return what hinders the moves of a plan, or may."""
    arriving: dict[str, int] = {}
    for move in plan.moves:
        arriving[move.target] = arriving.get(move.target, 0) + move.bytes
    pairs = {(move.source, move.target) for move in plan.moves}
    return findings(pairs, (move.bucket for move in plan.moves), arriving=arriving, capacity=capacity)


def refuse(found: Iterable[Finding]) -> None:
    """
    Do nothing if no move is hindered.

    Raises:
        PreflightFailed: there are errors among the findings.
    """
    errors = tuple(each for each in found if each.severity is Severity.ERROR)
    if errors:
        raise PreflightFailed(
            f"No move was begun, because of what was found before: {' '.join(map(str, errors))}", findings=errors
        )


def _found(moves: _Moves) -> Iterator[Finding]:
    if not moves.pairs:
        return
    with ExitStack() as stack:
        sessions: dict[str, Session] = {}
        for alias in dict.fromkeys([DEFAULT_DB_ALIAS, *(alias for pair in moves.pairs for alias in pair)]):
            try:
                sessions[alias] = stack.enter_context(open_inspection(alias))
            except (UnknownShard, PooledConnection) as failure:
                yield error("answers", str(failure))
            except psycopg.OperationalError as failure:
                yield error(
                    "answers", f"{alias!r} does not answer: {reason(failure)}. Start its server, or correct its URL."
                )
        yield from _asked(moves, sessions)


def _asked(moves: _Moves, sessions: Mapping[str, Session]) -> Iterator[Finding]:
    control = sessions.get(DEFAULT_DB_ALIAS)
    if control is None:
        # Without it, nobody knows which cluster this is.
        return
    yield from _guarded(control.alias, preflight_cluster.found(control, moves.buckets))
    shards = sorted({alias for pair in moves.pairs for alias in pair} & sessions.keys())
    for alias in shards:
        for found in (preflight_servers.found, preflight_tables.found, preflight_constraints.found):
            yield from _guarded(alias, found(sessions[alias]))
        yield from _guarded(alias, preflight_cluster.of_agreement(control, sessions[alias]))
    for source, target in moves.pairs:
        if source in shards and target in shards:
            yield from _guarded(target, preflight_pairs.found(sessions[source], sessions[target]))
    for target in sorted({target for _, target in moves.pairs}.intersection(shards)):
        arriving, capacity = moves.arriving.get(target), moves.capacity.get(target)
        yield from preflight_cluster.of_references(target)
        yield from _guarded(target, preflight_cluster.of_space(sessions[target], arriving, capacity))
    others = [sessions[alias] for alias in shards if alias != control.alias]
    yield from preflight_servers.of_clocks([control, *others])


def _guarded(alias: str, found: Iterator[Finding]) -> Iterator[Finding]:
    """Yield what is found, and at last why the others were not looked for: a right may be missing even to look."""
    try:
        yield from found
    except psycopg.Error as failure:
        yield error("answers", f"Not all that could hinder moves can be asked of {alias!r}: {reason(failure)}.")
