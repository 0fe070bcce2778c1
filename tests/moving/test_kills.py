"""
A mover that is killed at any statement, and the next one, too, wherever it is: nothing that was acknowledged is lost.

In the first round each step is killed at its first statement, in the second at its second one, and so on until no step
has as many. After a statement is before the next one. What is between two steps is counted like a step, and so is how a
mover begins. Statements that only read are left out, unless --long asks for all: a kill leaves the same before and
after them.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from sharding import cluster_map
from sharding.rebalance import verifying
from sharding.rebalance.options import Options
from sharding.rebalance.phases import UNDECIDED, Phase, Wanted
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.moving import victims
from tests.moving.applications import Application, fill, rows
from tests.moving.scenes import Scene, fenced_cluster
from tests.moving.statements import Statement, watched

pytestmark = [
    pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY),
    pytest.mark.slow,
    pytest.mark.timeout(1800),
]
OVER = (Phase.DONE, Phase.ABORTED)
IN_NO_TIME = Options(window=0.0, share=1.0, latency=None)
#: Every so many statements of a mover, the application writes.
WRITE_EVERY = 7
CHANGES = re.compile(r"INSERT|UPDATE|DELETE|COPY \"|rows of a COPY")


@dataclass
class Points:
    """The statements, of each step of one mover, at which it is worth while to be killed."""

    all_of_them: bool
    counts: Counter[str] = field(default_factory=Counter)
    _changed: set[str] = field(default_factory=set)
    _after: bool = False

    def place(self, statement: Statement) -> int:
        """Return which of its step a statement is; 0 for one that does not count."""
        is_commit = statement.text == "COMMIT" and statement.alias in self._changed
        is_change = bool(CHANGES.match(statement.text))
        counts = is_commit or is_change or self._after or self.all_of_them
        self._after = is_commit or is_change
        if is_change:
            self._changed.add(statement.alias)
        elif statement.text in {"BEGIN", "COMMIT", "ROLLBACK"}:
            self._changed.discard(statement.alias)
        self.counts[statement.within] += counts
        return self.counts[statement.within] if counts else 0


class Killer:
    """Lets movers be killed in scenes that move together, one after the other, and sees what has become of the rows."""

    def __init__(self, scenes: list[Scene], all_of_them: bool) -> None:
        self.scenes = scenes
        self.all_of_them = all_of_them
        self.applications = [Application(scene, rows(scene.source, scene.bucket)) for scene in scenes]
        self.killed: Counter[str] = Counter()
        self.acknowledged = self.refused = 0

    @property
    def scene(self) -> Scene:
        """Return the first of them, whose options are those of all."""
        return self.scenes[0]

    def plan(self) -> None:
        self.scene.plan(*self.scenes[1:])

    def until(self, phases: tuple[Phase, ...], place: int) -> bool:
        """
        Let movers do the moves until each is in one of some phases; return whether any was killed.

        Args:
            place: the statement, of each step, before which a mover is killed.
        """
        killed: set[str] = set()
        deadline = time.monotonic() + 300
        while True:
            moves = [scene.move for scene in self.scenes]
            assert not any(move.error for move in moves), [move.error for move in moves]
            on_the_way = [move.phase for move in moves if move.phase not in phases]
            if not on_the_way:
                return bool(killed)
            assert time.monotonic() < deadline, f"The moves stay in {on_the_way}."
            within = self.one(place, killed, f"a beginning in {on_the_way[0]}")
            if within is not None:
                killed.add(within)

    def one(self, place: int, spared: set[str], beginning: str, only: str = "") -> str | None:
        """Let one mover do what is due; return where it was killed, or None if it was not."""

        def mover(say: victims.Say) -> None:
            points = Points(self.all_of_them)

            def before(statement: Statement) -> None:
                is_it = points.place(statement) == place and only in {"", statement.within}
                is_it = is_it and statement.within not in spared
                which = statement.number // WRITE_EVERY % len(self.scenes)
                if is_it or statement.number % WRITE_EVERY == place % WRITE_EVERY:
                    say(["written", [which, self.applications[which].write()]])
                if is_it:
                    say(["killed", statement.within])
                    os.kill(os.getpid(), signal.SIGKILL)

            with watched(before, within=beginning):
                self.scene.mover().run()

        victim = victims.start(mover)
        where = None
        for kind, what in victim.said():
            if kind == "killed":
                where = what
                self.killed[where] += 1
                continue
            which, changes = what
            self.applications[which].tried += 1
            self.acknowledged += bool(changes)
            self.refused += not changes
            for change in changes:
                self.applications[which].acknowledge(change)
        assert victim.end() == (0 if where is None else -signal.SIGKILL)
        return where

    def check(self, owner: str, other: str) -> None:
        for scene, application in zip(self.scenes, self.applications, strict=True):
            assert rows(owner, scene.bucket) == application.expected
            assert rows(other, scene.bucket) == {}
            assert scene.states() == (("owned", None) if owner == scene.source else (None, "owned"))
            assert cluster_map.refresh().owner(scene.bucket) == owner
            assert scene.leftovers() == {}

    def turn(self) -> None:
        """Assert that all is on the other side, from where the next moves go back."""
        self.check(self.scene.target, self.scene.source)
        for scene in self.scenes:
            scene.source, scene.target = scene.target, scene.source

    def __str__(self) -> str:
        each = ", ".join(f"{number} in {within}" for within, number in self.killed.items())
        return (
            f"{self.killed.total()} movers were killed ({each}); {self.acknowledged} writes were acknowledged "
            f"meanwhile, and {self.refused} refused"
        )


@contextmanager
def killer_of(number: int, request: pytest.FixtureRequest) -> Iterator[Killer]:
    with fenced_cluster(MAP_TTL=0.01):
        scenes = [Scene("shard_a", "shard_b", place=place) for place in range(number)]
        for scene in scenes:
            fill(scene)
        killer = Killer(scenes, request.config.getoption("--long"))
        yield killer
        for application in killer.applications:
            application.close()


@pytest.fixture
def killer(transactional_db, request):
    with killer_of(1, request) as killer:
        yield killer


@pytest.fixture
def killer_of_three(transactional_db, request):
    with killer_of(3, request) as killer:
        yield killer


def test_there_and_back(killer, capsys):
    scene, begun = killer.scene, time.monotonic()
    place, back = 0, True
    while back:
        place += 1
        scene.options = Options(window=600.0, share=1.0, latency=None)
        scene.plan()
        killer.until((Phase.WINDOW,), place)
        scene.options = IN_NO_TIME
        assert scene.wish(Wanted.ROLLBACK) == [scene.bucket]
        back = killer.until(OVER, place)
        killer.check("shard_a", "shard_b")
    # The steps of a rollback have no more statements.
    there = True
    while there:
        place += 1
        scene.plan()
        there = killer.until(OVER, place)
        killer.turn()
    with capsys.disabled():
        print(f"\n{killer}, in {place} rounds and {time.monotonic() - begun:.0f} s.")
    assert killer.killed.total() > 200


def test_three_together(killer_of_three, monkeypatch, capsys):
    """Whoever takes a part of them goes on with it, alone or with others: each has a row of its own."""
    # Their tables are large, so that the rows are counted while the application writes.
    monkeypatch.setattr(verifying, "RANGE", 3)
    killer, begun = killer_of_three, time.monotonic()
    killer.scene.options = IN_NO_TIME
    place, lost = 0, True
    while lost:
        # What is done with each of them in turn has many statements.
        place += 1 + (place > 6) * 24
        killer.plan()
        lost = killer.until(OVER, place)
        killer.turn()
    with capsys.disabled():
        print(f"\n{killer}, in {place} rounds and {time.monotonic() - begun:.0f} s.")
    assert killer.killed.total() > 80


def test_moves_that_are_aborted_then(killer, capsys):
    scene, begun = killer.scene, time.monotonic()
    scene.options = IN_NO_TIME
    ends: Counter[str] = Counter()
    steps = ["Begin", "Prepare", "Capture", "Copy", "CatchUp", "Verify", "Fence", "Decide"]
    for step in [each for name in steps for each in (name, f"after {name}")]:
        place, lost = 0, True
        while lost:
            place += 1 + (place > 6) * 9
            scene.plan()
            lost = _once(killer, place, step)
            phase = scene.move.phase
            assert scene.wish(Wanted.ABORT) == ([scene.bucket] if phase in UNDECIDED else [])
            killer.until(OVER, -1)
            ends[scene.move.phase] += 1
            if scene.move.phase == Phase.ABORTED:
                killer.check(scene.source, scene.target)
            else:
                killer.turn()
    with capsys.disabled():
        print(f"\n{killer}, in {time.monotonic() - begun:.0f} s: {dict(ends)}.")
    assert ends[Phase.ABORTED] > 50
    assert ends[Phase.DONE] > 0


def _once(killer: Killer, place: int, step: str) -> bool:
    while killer.scene.move.phase not in OVER:
        if killer.one(place, set(), "a beginning", only=step) is not None:
            return True
    return False
