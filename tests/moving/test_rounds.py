"""
Several buckets that go over in one round: each protected step is taken once for all of them, and none suffers from
what happens to another one.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace

import pytest

from sharding import cluster_map
from sharding.fence import barrier
from sharding.models import Attempt, Move
from sharding.rebalance import progress, verifying
from sharding.rebalance.phases import Phase, Wanted
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.moving.applications import session
from tests.moving.scenes import MAP_TTL, Scene, fenced_cluster
from tests.moving.statements import Statement, watched
from tests.moving.ways import as_mover, finish, once, within
from tests.shop.models import Order

pytestmark = [
    pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY),
    pytest.mark.slow,
]
#: Statements that should be there once for all buckets of a round.
ONCE = {
    "barrier": re.compile(r"SELECT pg_advisory_xact_lock\(kind"),
    "decision": re.compile("UPDATE sharding_cluster SET epoch"),
    "changes of the map": re.compile("UPDATE sharding_bucket"),
}


@pytest.fixture
def scenes(transactional_db):
    """Three buckets of shard_a that are to go to shard_b."""
    with fenced_cluster():
        scenes = [Scene("shard_a", "shard_b", place=place) for place in range(3)]
        for place, scene in enumerate(scenes):
            scene.order(100 + place)
        scenes[0].plan(*scenes[1:])
        time.sleep(MAP_TTL)
        yield scenes
        if {scene.move.phase for scene in scenes} <= {"done", "aborted"}:
            assert scenes[0].leftovers() == {}


def rows_of(scenes):
    return [scene.rows("shard_a") for scene in scenes]


def finish_all(scenes):
    for scene in scenes:
        finish(scene)


def assert_moved(scenes, before):
    for scene, rows in zip(scenes, before, strict=True):
        assert (scene.move.phase, scene.move.error, scene.move.failures) == ("done", "", 0)
        assert scene.rows("shard_b") == rows
        assert scene.rows("shard_a") == {}
        assert scene.states() == (None, "owned")
        assert cluster_map.refresh().owner(scene.bucket) == "shard_b"


def assert_stayed(scene, before):
    assert scene.move.phase == "aborted"
    assert scene.rows("shard_a") == before
    assert scene.rows("shard_b") == {}
    assert scene.states() == ("owned", None)
    assert cluster_map.refresh().owner(scene.bucket) == "shard_a"


def epochs(scenes):
    return [scene.move.epoch for scene in scenes]


def set_options(scenes, **changes):
    for scene in scenes:
        scene.options = replace(scene.options, **changes)


def statements_of(scenes, **changes):
    """Let the moves go on to the end, and count what is sent."""
    set_options(scenes, **changes)
    found = Counter()
    with watched(lambda each: found.update(what for what, text in ONCE.items() if text.match(each.text))):
        finish_all(scenes)
    return found


def test_a_round_pays_once(scenes):
    before, epoch = rows_of(scenes), cluster_map.refresh().epoch
    assert statements_of(scenes) == {"barrier": 2, "decision": 1, "changes of the map": 1}
    assert_moved(scenes, before)
    assert epochs(scenes) == [epoch + 1] * 3
    assert cluster_map.refresh().epoch == epoch + 1
    assert len({scene.move.gap for scene in scenes}) == 1
    assert 0 < scenes[0].move.gap < 60
    assert [scene.move.copied for scene in scenes] == [14, 14, 14]
    assert {scene.move.report["bucket"] for scene in scenes} == {scene.bucket for scene in scenes}
    # Up to the window, and after it.
    assert Attempt.objects.using("default").count() == 2


@pytest.mark.parametrize(
    ("changes", "rounds"),
    [({"together": 2}, 2), ({"together": 1}, 3), ({"rows_together": 29}, 2), ({"rows_together": 10}, 3)],
)
def test_a_round_has_no_more_than_it_may(scenes, changes, rounds):
    """A plan says 10 rows of each."""
    before = rows_of(scenes)
    assert statements_of(scenes, **changes) == {
        "barrier": 2 * rounds,
        "decision": rounds,
        "changes of the map": rounds,
    }
    assert_moved(scenes, before)


def test_a_large_bucket_goes_alone_and_the_others_together(scenes):
    Move.objects.using("default").filter(bucket=scenes[1].bucket).update(rows=10**9)
    before = rows_of(scenes)
    assert statements_of(scenes)["decision"] == 2
    assert_moved(scenes, before)
    assert len({*epochs(scenes[::2])}) == 1


def test_only_moves_of_one_pair_of_shards_go_together(transactional_db):
    with fenced_cluster():
        pairs = [("shard_a", "shard_b", 0), ("shard_a", "shard_c", 1), ("shard_b", "shard_a", 0)]
        scenes = [Scene(source, target, place=place) for source, target, place in pairs]
        scenes[0].plan(*scenes[1:])
        assert statements_of(scenes)["decision"] == 3
        for scene in scenes:
            assert (scene.states(), scene.move.error) == ((None, "owned"), "")


def test_one_that_has_failed_before_goes_alone(scenes):
    Move.objects.using("default").filter(bucket=scenes[0].bucket).update(failures=1)
    before = rows_of(scenes)
    assert statements_of(scenes)["decision"] == 2
    assert_moved(scenes, before)
    assert epochs(scenes)[1] == epochs(scenes)[2] != epochs(scenes)[0]


@pytest.mark.parametrize("step", ["Verify", "Decide"])
def test_rows_that_differ_stop_only_their_own_bucket(scenes, step):
    before, damaged = rows_of(scenes), scenes[1]

    def damage():
        assert as_mover("shard_b", damaged.bucket, "DELETE FROM shop_line WHERE bucket = %s") == 4

    with once(within(step, "shard_b"), damage) as met:
        finish_all(scenes)
    assert met
    assert damaged.move.error.startswith(f"Bucket {damaged.bucket} is not the same on 'shard_a' and 'shard_b': ")
    assert_stayed(damaged, before[1])
    assert_moved(scenes[::2], before[::2])


def overtake(scene):
    """Do what another mover does that takes the move in hand."""
    with closing(session("default")) as connection:
        ((generation,),) = connection.execute(
            "INSERT INTO sharding_attempt (move, worker, begun) VALUES (%s, 'another', now()) RETURNING id",
            [scene.move.id],
        ).fetchall()
        connection.execute(
            "UPDATE sharding_move SET generation = %s, retry_at = now() + interval '1 hour' WHERE id = %s",
            [generation, scene.move.id],
        )
    return generation


def claim(scene, alias):
    """Let the fence of a shard know of it, too."""
    generation = overtake(scene)
    with closing(session(alias)) as connection:
        connection.execute("UPDATE sharding_fence SET generation = %s WHERE bucket = %s", [generation, scene.bucket])


def test_rows_that_were_written_meanwhile_are_compared_while_they_are_closed(scenes):
    """Each bucket has been written since all of its rows were compared; those of one have become others then."""
    damaged = scenes[1]

    def write():
        with closing(session("shard_a")) as writer:
            for scene in scenes:
                writer.execute("UPDATE shop_order SET total = 7 WHERE bucket = %s AND total = 0", [scene.bucket])

    def damage():
        as_mover("shard_b", damaged.bucket, "UPDATE shop_order SET total = 8 WHERE bucket = %s AND total = 7")

    compares = lambda each: within("Decide", "shard_b")(each) and each.text.startswith("BEGIN ISOLATION")  # noqa: E731
    with once(within("Fence"), write) as wrote, once(compares, damage) as met:
        finish_all(scenes)
    assert wrote
    assert met
    assert "is not the same on 'shard_a' and 'shard_b': shop_order" in damaged.move.error
    assert damaged.states() == ("owned", None)
    assert [scene.move.phase for scene in scenes] == ["done", "aborted", "done"]
    for scene, alias in zip(scenes, ("shard_b", "shard_a", "shard_b"), strict=True):
        assert Order.objects.using(alias).filter(tenant_id=scene.tenant, total=7).count() == 1


def test_rows_of_large_tables_are_not_counted_while_they_are_closed(scenes, monkeypatch):
    """But right before, so that the time for which they are closed does not depend on how many rows there are."""
    counted = {"Fence": set(), "Decide": set()}

    def note(statement: Statement) -> None:
        if statement.within in counted and re.search(r"count\(\*\).*FROM \"shop", statement.text):
            counted[statement.within] |= {*re.findall(r'FROM "(shop_\w+)" WHERE "bucket" =', statement.text)}

    before = rows_of(scenes)
    monkeypatch.setattr(verifying, "RANGE", 3)
    with watched(note):
        finish_all(scenes)
    assert_moved(scenes, before)
    large = {"shop_order", "shop_line", "shop_ordertag"}
    assert counted["Fence"] == large
    assert counted["Decide"] >= {"shop_customer", "shop_tag"}
    assert not counted["Decide"] & large


@pytest.mark.parametrize(("many", "tables"), [(20_000, set()), (3, {"shop_order", "shop_line", "shop_ordertag"})])
def test_the_planner_knows_of_many_rows_before_the_first_query_comes(scenes, monkeypatch, many, tables):
    made = []

    def note(statement: Statement) -> None:
        if statement.text.startswith("ANALYZE"):
            made.append((statement.within, statement.alias, statement.text))

    monkeypatch.setattr(progress, "MANY", many)
    with watched(note):
        finish_all(scenes)
    assert sorted(made) == [("Copy", "shard_b", f'ANALYZE (SKIP_LOCKED) "{name}"') for name in sorted(tables)]


#: Where the others are when one of them has let a step fail.
OPENED_AGAIN = {
    "Decide": ("capturing", "importing"),
    # It is decided: each goes forward by itself.
    "Own": ("fenced", "importing"),
    "Forward": ("fenced", "capturing"),
}


@pytest.mark.parametrize(("step", "alias"), [("Decide", "shard_b"), ("Own", "shard_b"), ("Forward", "shard_a")])
def test_one_that_fails_while_they_are_closed_leaves_no_other_one_closed(scenes, step, alias):
    """They are opened again before any of them is tried by itself."""
    states: list[list[tuple[str | None, str | None]]] = []

    def look(statement: Statement) -> None:
        takes_next = statement.alias == "default" and statement.text.startswith("SELECT set_config('idle_in")
        if met and takes_next and not states:
            states.append([scene.states() for scene in scenes])

    with once(within(step), lambda: claim(scenes[1], alias)) as met, watched(look):
        scenes[0].mover().run()
    assert [states[0][place] for place in (0, 2)] == [OPENED_AGAIN[step]] * 2
    finish_all(scenes[::2])
    assert scenes[1].move.phase == {"Decide": "finishing", "Own": "decided", "Forward": "owning"}[step]


@pytest.mark.parametrize("step", ["Prepare", "Capture", "CatchUp", "Fence", "Decide", "Own", "Forward", "Announce"])
def test_one_that_is_overtaken_stops_what_they_do_together(scenes, step):
    before, lost = rows_of(scenes), scenes[1]
    with once(within(step), lambda: overtake(lost)) as met:
        finish_all(scenes[::2])
    assert met
    assert_moved(scenes[::2], before[::2])
    is_decided = step in {"Own", "Forward", "Announce"}
    assert lost.move.phase not in {"window", "done"}
    assert (lost.move.epoch is not None) == is_decided
    assert cluster_map.refresh().owner(lost.bucket) == ("shard_b" if is_decided else "shard_a")
    if not is_decided:
        assert len({*epochs(scenes[::2])}) == 2
    Move.objects.using("default").update(retry_at=None)
    finish(lost)
    assert_moved([lost], [before[1]])


@pytest.mark.parametrize(
    ("step", "alias"), [("Capture", "shard_a"), ("Fence", "shard_a"), ("Own", "shard_b"), ("Forward", "shard_a")]
)
def test_a_fence_that_another_attempt_has_claimed_is_left_alone(scenes, step, alias):
    """The others go on."""
    before, lost, states = rows_of(scenes), scenes[1], []

    def lose():
        claim(lost, alias)
        states.append(lost.states())

    with once(within(step), lose):
        scenes[0].mover().run()
    assert states == [lost.states()]
    finish_all(scenes[::2])
    assert_moved(scenes[::2], before[::2])
    Move.objects.using("default").update(retry_at=None)
    finish(lost)
    assert_moved([lost], before[1:2])


@pytest.mark.parametrize("step", ["Copy", "Verify", "Decide"])
@pytest.mark.parametrize("wanted", [Wanted.PAUSE, Wanted.ABORT])
def test_what_is_wanted_of_one_concerns_no_other(scenes, step, wanted):
    before, other = rows_of(scenes), scenes[2]

    def wish():
        # What registering.wish() does.
        assert Move.objects.using("default").filter(bucket=other.bucket).update(wanted=wanted) == 1

    with once(within(step), wish) as met:
        finish_all(scenes[:2])
    assert met
    assert_moved(scenes[:2], before[:2])
    other.mover().run()
    if wanted is Wanted.PAUSE:
        assert other.states() == ("capturing", "importing")
        assert not other.move.error
        other.wish(Wanted.GO)
        finish(other)
        assert_moved([other], before[2:])
    else:
        finish(other)
        assert_stayed(other, before[2])


def test_what_is_wanted_at_the_last_moment_leaves_all_undecided(scenes):
    before, epoch = rows_of(scenes), cluster_map.refresh().epoch
    owners = []

    def look(statement):
        if statement.within == "after Decide" and not owners:
            owners.extend(cluster_map.refresh().owner(scene.bucket) for scene in scenes)

    def wish():
        Move.objects.using("default").filter(bucket=scenes[1].bucket).update(wanted=Wanted.ABORT)

    asks = lambda each: each.within == "Decide" and each.text.startswith("SELECT id, wanted")  # noqa: E731
    with once(asks, wish) as met:
        finish_all(scenes)
    assert met
    assert_stayed(scenes[1], before[1])
    assert_moved(scenes[::2], before[::2])
    assert epochs(scenes)[::2] == [epoch + 1] * 2


def test_one_is_taken_back_and_the_others_stay(scenes):
    set_options(scenes, window=600.0)
    before = rows_of(scenes)
    for scene in scenes:
        finish(scene, (Phase.WINDOW,))
    assert scenes[1].wish(Wanted.ROLLBACK) == [scenes[1].bucket]
    set_options(scenes, window=0.0)
    finish(scenes[1])
    finish(scenes[1])
    assert scenes[1].rows("shard_a") == before[1]
    assert scenes[1].states() == ("owned", None)
    assert [scene.move.phase for scene in scenes[::2]] == ["window"] * 2
    Move.objects.using("default").update(window_ends=scenes[0].move.announced)
    finish_all(scenes[::2])
    assert_moved(scenes[::2], before[::2])


def test_all_are_taken_back(scenes):
    set_options(scenes, window=600.0)
    before = rows_of(scenes)
    for scene in scenes:
        finish(scene, (Phase.WINDOW,))
    for scene in scenes:
        scene.wish(Wanted.ROLLBACK)
    set_options(scenes, window=0.0)
    for _ in range(2):
        finish_all(scenes)
    assert rows_of(scenes) == before
    assert [scene.states() for scene in scenes] == [("owned", None)] * 3
    assert [scene.leftovers() for scene in scenes] == [{}] * 3


@pytest.mark.parametrize("step", ["Capture", "Fence"])
def test_a_writer_that_does_not_end_holds_up_its_own_bucket_alone(scenes, monkeypatch, step):
    monkeypatch.setitem(barrier.behind.__kwdefaults__, "waits", (200, 200))
    set_options(scenes, window=600.0)
    before, busy = rows_of(scenes), scenes[2]
    with closing(session("shard_a")) as writer:

        def write():
            writer.execute("BEGIN")
            writer.execute("UPDATE shop_order SET total = total WHERE bucket = %s", [busy.bucket])

        with once(within(step), write) as met:
            for scene in scenes[:2]:
                finish(scene, (Phase.WINDOW,))
        assert met
        assert busy.states()[0] in ("owned", "capturing")
        assert "canceling statement due to" in busy.move.error
        writer.execute("COMMIT")
    set_options(scenes, window=0.0)
    Move.objects.using("default").filter(phase="window").update(window_ends=scenes[0].move.announced)
    finish_all(scenes)
    Move.objects.using("default").filter(bucket=busy.bucket).update(error="")
    assert_moved(scenes, before)


def test_a_bucket_that_waits_for_others_gives_signs_of_life(scenes, monkeypatch):
    """While a step is taken with one bucket after the other, the mover is not taken for one that hangs."""
    monkeypatch.setattr("sharding.rebalance.attempt.SIGN_EVERY", 0.0)
    changed = []

    def look(statement):
        if statement.within == "Copy" and statement.text.startswith("INSERT INTO sharding_progress"):
            changed.append([scene.move.changed for scene in scenes])

    with watched(look):
        finish_all(scenes)
    assert len({first for first, _, _ in changed}) > 10
    assert len({last for _, _, last in changed}) > 10


def test_a_window_of_moves_that_were_decided_upon_apart(scenes):
    """They have an epoch each, and go on together where their epochs do not matter."""
    set_options(scenes, window=600.0, together=1)
    before = rows_of(scenes)
    for scene in scenes:
        finish(scene, (Phase.WINDOW,))
    assert len({*epochs(scenes)}) == 3
    Move.objects.using("default").update(window_ends=scenes[0].move.announced)
    known = Attempt.objects.using("default").count()
    time.sleep(2 * MAP_TTL)
    set_options(scenes, together=8)
    finish_all(scenes)
    assert_moved(scenes, before)
    assert Attempt.objects.using("default").count() == known + 1
