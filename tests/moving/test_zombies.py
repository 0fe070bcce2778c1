"""
A mover that stands still at any change it makes, and is woken when another one has long done the rest: it changes
nothing any more, and ends.
"""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import contextmanager

import psycopg
import pytest
from django.db import connections

from sharding.errors import RebalanceError
from sharding.rebalance import claiming, connecting
from sharding.rebalance.options import Options
from sharding.rebalance.phases import Phase
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.moving import victims
from tests.moving.applications import Application, fill, rows
from tests.moving.scenes import Scene, fenced_cluster
from tests.moving.statements import watched

pytestmark = [
    pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY),
    pytest.mark.slow,
    pytest.mark.timeout(1200),
]
OVER = (Phase.DONE, Phase.ABORTED)
#: Of whoever takes over at once.
IMPATIENT = Options(window=0.0, share=1.0, latency=None, silence=0.0, silence_fenced=0.0)
CHANGES = re.compile('INSERT|UPDATE|DELETE|COPY "|rows of a COPY')
#: What moves keep, in tables of which names begin with sharding_.
ON_EACH, ON_CONTROL = ("fence", "dirty", "progress"), ("move", "bucket", "cluster", "cleanup", "attempt")
BEGINNING = "the beginning"


class Zombies:
    """Scenes whose buckets go there and back together, and the changes that a mover makes on the way."""

    def __init__(self, scenes):
        self.scenes = scenes
        self.applications = [Application(scene, rows(scene.source, scene.bucket)) for scene in scenes]
        self.write()
        self.said = []
        self.changes = self._changes()

    def _changes(self):
        """Return each statement that changes something, or is the end or the beginning of a transaction with one."""
        self.plan()
        sent, found, open_ = [], [], {}
        with watched(sent.append, within=BEGINNING):
            self.finish()
        for statement in sent:
            if statement.text.startswith("BEGIN"):
                open_[statement.alias] = [statement]
            elif statement.text == "COMMIT":
                inside = open_.pop(statement.alias, [])
                if len(inside) > 1:
                    found += [*inside, statement]
            elif CHANGES.match(statement.text):
                if statement.alias in open_:
                    open_[statement.alias].append(statement)
                else:
                    found.append(statement)
        self.turn()
        return sorted(found, key=lambda each: each.number)

    def plan(self):
        self.scenes[0].plan(*self.scenes[1:])
        self.scenes[0].options = IMPATIENT

    def write(self):
        for application in self.applications:
            application.write()

    def some(self, wanted=lambda each: True, most=2):
        """Return the first and the last changes of each step."""
        by_step = {}
        for statement in filter(wanted, self.changes):
            by_step.setdefault(statement.within, []).append(statement)
        return [each for steps in by_step.values() for each in dict.fromkeys([*steps[:most], *steps[-most:]])]

    def is_over(self):
        moves = [scene.move for scene in self.scenes]
        assert not any(move.error for move in moves), [move.error for move in moves]
        return all(move.phase in OVER for move in moves)

    def finish(self):
        deadline = time.monotonic() + 60
        while not self.is_over():
            self.scenes[0].mover().run()
            assert time.monotonic() < deadline, f"The moves stay in {[scene.move.phase for scene in self.scenes]}."

    def turn(self):
        for scene, application in zip(self.scenes, self.applications, strict=True):
            assert rows(scene.target, scene.bucket) == application.expected
            assert rows(scene.source, scene.bucket) == {}
            assert scene.leftovers() == {}
            scene.source, scene.target = scene.target, scene.source

    def stop_at(self, point):
        """Let a mover stand still, another one finish, and the first one go on; return whether it came so far."""
        self.plan()
        victim = victims.start(lambda say: self._live(point, say))
        stood = victim.is_standing()
        try:
            self.write()
            self.finish()
            self.write()
            before = self._everything()
        except BaseException:
            victim.kill()
            raise
        if stood:
            assert victim.go_on() == 0
        self.said += victim.said()
        assert self._everything() == before
        self.turn()
        return stood

    def _live(self, point, say):
        stopped = []

        def before(statement):
            if statement.point == point and not stopped:
                stopped.append(point)
                os.kill(os.getpid(), signal.SIGSTOP)

        with watched(before, within=BEGINNING):
            try:
                while not stopped and not self.is_over():
                    self.scenes[0].mover().run()
            except (psycopg.Error, RebalanceError) as error:
                say(str(error))

    def _everything(self):
        found = {f"{scene.bucket} on {alias}": rows(alias, scene.bucket) for scene in self.scenes for alias in CLUSTER}
        for alias in CLUSTER:
            for table in (*ON_EACH, *(ON_CONTROL if alias == "default" else ())):
                with connections[alias].cursor() as cursor:
                    cursor.execute(f"SELECT to_jsonb(t)::text FROM sharding_{table} AS t ORDER BY 1")
                    found[f"{table} on {alias}"] = {"rows": cursor.fetchall()}
        return found


@contextmanager
def zombies_of(number):
    with fenced_cluster(MAP_TTL=0.01):
        scenes = [Scene("shard_a", "shard_b", place=place) for place in range(number)]
        for scene in scenes:
            fill(scene)
        zombies = Zombies(scenes)
        yield zombies
        for application in zombies.applications:
            application.close()


@pytest.fixture
def zombies(transactional_db):
    with zombies_of(1) as zombies:
        yield zombies


def test_a_mover_that_was_stopped_changes_nothing(zombies, capsys):
    begun = time.monotonic()
    stood = [zombies.stop_at(each.point) for each in zombies.some()]
    with capsys.disabled():
        print(f"\n{sum(stood)} movers were stopped and woken in {time.monotonic() - begun:.0f} s.")
    assert sum(stood) > 50


def test_nor_does_one_that_had_several_moves(transactional_db, capsys):
    """The one that finishes them has taken all of them from it."""
    begun = time.monotonic()
    with zombies_of(2) as zombies:
        stood = [zombies.stop_at(each.point) for each in zombies.some(most=1)]
    with capsys.disabled():
        print(f"\n{sum(stood)} movers were stopped and woken in {time.monotonic() - begun:.0f} s.")
    assert sum(stood) > 20


def test_nor_does_one_whose_sessions_at_the_shards_are_left_alone(zombies, monkeypatch, capsys):
    begun = time.monotonic()
    # Of another role, for one, whose sessions cannot be ended.
    monkeypatch.setattr(claiming, "_end", lambda session, name, generation: None)
    # What it reads is an old statement, for which a purge waits.
    monkeypatch.setattr(connecting, "IDLE_TIMEOUT", 2.0)
    shards = ("shard_a", "shard_b")
    points = zombies.some(lambda each: each.text.startswith("BEGIN") and each.alias in shards)
    stood = [zombies.stop_at(each.point) for each in points]
    with capsys.disabled():
        print(f"\n{sum(stood)} movers were stopped and woken in {time.monotonic() - begun:.0f} s.")
    assert sum(stood) > 10
