"""Plans in files: what is written is read, and what cannot be a plan is refused with the place."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sharding.bucket_map import BucketMap
from sharding.rebalance import plan_file, planning
from sharding.rebalance.evacuation import NoRoom
from sharding.rebalance.load import Size
from sharding.rebalance.plan import still_valid
from sharding.rebalance.request import Request, Shard
from tests.messages import whole
from tests.rebalance.situations import requests

REQUEST = Request(
    map=BucketMap(7, tuple("aaaab")),
    shards=(Shard("a"), Shard("b"), Shard("c", 0.5)),
    sizes={0: Size(3, 500), 1: Size(1, 100), 4: Size(1, 90)},
)
PLAN = planning.isolate(REQUEST, 0, planning.KeyInBucket("tenant_id='é'", Size(2, 400), 4))
AGAIN = " Write it again with `manage.py rebalance plan`."


def test_there_and_back(tmp_path):
    path = tmp_path / "plan.json"
    plan_file.write(PLAN, path)
    assert plan_file.read(path) == PLAN


@given(requests())
def test_every_plan_comes_back(request_):
    try:
        plan = planning.rebalance(request_)
    except NoRoom:
        assume(False)
    assert plan_file.from_json(plan_file.to_json(plan)) == plan


def test_the_file_can_be_read_by_people():
    content = json.loads(plan_file.to_json(PLAN))
    assert content["format"] == "sharding rebalance plan"
    assert (content["version"], content["epoch"], content["buckets"], content["by"]) == (1, 7, 5, "bytes")
    assert content["moves"] == [
        {"bucket": 0, "source": "a", "target": "c", "rows": 3, "bytes": 500, "reason": "pinned to c"}
    ]
    assert content["pins"] == [[0, "c"]]
    assert content["reasons"][-1].startswith("Bucket 0, which has the key tenant_id='é', is pinned to c.")
    assert content["before"]["shares"][0] == {
        **{"alias": "a", "weight": 1.0, "buckets": 4, "rows": 4, "bytes": 600},
        "load": content["before"]["shares"][0]["load"],
    }


def test_moves_may_be_struck_out():
    plan = planning.drain(REQUEST, ["a"])
    content = json.loads(plan_file.to_json(plan))
    del content["moves"][1]
    shorter = plan_file.from_json(json.dumps(content))
    assert [move.bucket for move in shorter.moves] == [plan.moves[0].bucket, *(move.bucket for move in plan.moves[2:])]
    assert still_valid(shorter, REQUEST.map)
    assert still_valid(shorter, REQUEST.map.moved({plan.moves[0].bucket: plan.moves[0].target}))
    assert not still_valid(shorter, REQUEST.map.moved({plan.moves[1].bucket: plan.moves[1].target}))


def changed(*path, to):
    """Return the text of the plan with one value changed; an Ellipsis removes it."""
    content = json.loads(plan_file.to_json(PLAN))
    place = content
    for step in path[:-1]:
        place = place[step]
    if to is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return json.dumps(content)


def doubled(content):
    return content.replace('"rows": 3', '"rows": 3, "rows": 4')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is not JSON (Expecting value: line 1 column 1 (char 0))."),
        ("{", "it is not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))."),
        ("[" * 100_000, "it is not JSON that a plan is written in."),
        ("[]", "it does not say that its format is 'sharding rebalance plan'."),
        ("{}", "it does not say that its format is 'sharding rebalance plan'."),
        (changed("format", to="plan"), "it does not say that its format is 'sharding rebalance plan'."),
        (changed("version", to=2), "its version is 2, and this release reads 1."),
        (changed("version", to=True), "its version is True, and this release reads 1."),
        (changed("version", to=...), "its version is None, and this release reads 1."),
        (changed("epoch", to=...), "epoch is missing."),
        (changed("epoch", to=-1), "epoch is a whole number of 0 or more, not -1."),
        (changed("epoch", to="7"), "epoch is a whole number of 0 or more, not '7'."),
        (changed("buckets", to=0), "A cluster has 1 to 4096 buckets, not 0."),
        (changed("buckets", to=5000), "A cluster has 1 to 4096 buckets, not 5000."),
        (changed("digest", to="abc"), "digest is 64 hexadecimal digits, not 'abc'."),
        (changed("by", to="size"), "by is one of bytes, rows, buckets, not 'size'."),
        (changed("by", to=[]), "by is one of bytes, rows, buckets, not []."),
        (changed("moves", to={}), "moves is a list, not {}."),
        (changed("moves", 0, to=3), "moves[0] is an object, not 3."),
        (changed("moves", 0, "bucket", to=1.0), "moves[0].bucket is a whole number of 0 or more, not 1.0."),
        (changed("moves", 0, "bucket", to=True), "moves[0].bucket is a whole number of 0 or more, not True."),
        (changed("moves", 0, "bytes", to=...), "moves[0].bytes is missing."),
        (changed("moves", 0, "source", to=""), "moves[0].source is the alias of a shard, not ''."),
        (changed("moves", 0, "target", to="z"), "moves[0] is between two of a, b, c, not 'z'."),
        (changed("moves", 0, "target", to="a"), "Bucket 0 moves from 'a' to itself."),
        (changed("moves", 0, "speed", to=1), "nothing is known of moves[0].speed."),
        (changed("speed", to=1), "nothing is known of speed."),
        (
            changed("moves", 0, "bucket", to=5),
            "Bucket 5 is planned for and does not exist: this cluster has the buckets 0 to 4.",
        ),
        (
            changed("moves", to=2 * json.loads(plan_file.to_json(PLAN))["moves"]),
            "Bucket 0 moves 2 times in one plan. It may move once.",
        ),
        (changed("reasons", to=[1]), "reasons is a list of texts, not [1]."),
        (changed("reasons", to="x" * 80), f"reasons is a list of texts, not '{'x' * 59}…."),
        (changed("pins", 0, to=[0]), "pins[0] is a bucket and the alias of a shard, not [0]."),
        (changed("pins", 0, to=["0", "c"]), "pins[0].bucket is a whole number of 0 or more, not '0'."),
        (changed("pins", 0, 1, to=None), "pins[0].shard is the alias of a shard, not None."),
        (
            changed("pins", 0, 0, to=9),
            "Bucket 9 is planned for and does not exist: this cluster has the buckets 0 to 4.",
        ),
        (changed("after", "shares", 2, "alias", to="z"), "before and after are not of the same shards."),
        (changed("after", "shares", 2, "weight", to=0), "after.shares[2].weight is a positive number, not 0."),
        (changed("before", to=None), "before is an object, not None."),
        (
            changed("after", "shares", 1, "load", to="full"),
            "after.shares[1].load is a number of 0 or more, not 'full'.",
        ),
        (changed("after", "imbalance", "sd", to=-1), "after.imbalance.sd is a number of 0 or more, not -1."),
        (changed("after", "imbalance", "sd", to=float("nan")), "it has NaN where a number is expected."),
        (changed("after", "imbalance", "sd", to=...), "after.imbalance.sd is missing."),
        (doubled(plan_file.to_json(PLAN)), "'rows' is written twice in one object."),
    ],
)
def test_what_is_no_plan(text, message, tmp_path):
    with pytest.raises(plan_file.NoPlan, match=whole(message + AGAIN)):
        plan_file.from_json(text)
    path = tmp_path / "plan.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(plan_file.NoPlan, match=whole(f"The plan file {str(path)!r} holds no plan: {message}{AGAIN}")):
        plan_file.read(path)


def test_a_number_that_is_too_long_for_python():
    with pytest.raises(plan_file.NoPlan, match="it is not JSON"):
        plan_file.from_json(changed("epoch", to="!").replace('"!"', "9" * 5000))


def test_files_that_cannot_be_read(tmp_path):
    path = tmp_path / "plan.json"
    with pytest.raises(
        plan_file.NoPlan, match=whole(f"The plan file {str(path)!r} cannot be read: No such file or directory.")
    ):
        plan_file.read(path)
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(plan_file.NoPlan, match=whole(f"The plan file {str(path)!r} is no text in UTF-8.{AGAIN}")):
        plan_file.read(path)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
PLACES = [
    *(("format",), ("version",), ("epoch",), ("buckets",), ("digest",), ("by",), ("moves",), ("before",), ("pins",)),
    *(("moves", 0), ("moves", 0, "bucket"), ("moves", 0, "source"), ("moves", 0, "reason"), ("pins", 0)),
    *(("after", "shares"), ("after", "shares", 0), ("after", "shares", 2, "weight"), ("after", "imbalance")),
]


@given(st.sampled_from(PLACES), anything)
def test_whatever_stands_there_it_is_a_plan_or_no_plan(path, value):
    """Never another error."""
    with suppress(plan_file.NoPlan):
        assert plan_file.from_json(changed(*path, to=value)).before.aliases == ("a", "b", "c")
