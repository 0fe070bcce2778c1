"""Plans of small clusters, each worked out by hand: operations, roles, weights, worth, refusals, and bad input."""

from __future__ import annotations

import doctest
import random
from dataclasses import replace

import pytest

from sharding.bucket_map import BucketMap
from sharding.rebalance import load, planning
from sharding.rebalance.evacuation import NoRoom
from sharding.rebalance.load import Size
from sharding.rebalance.plan import Plan, objection, remaining, still_valid
from sharding.rebalance.planning import KeyInBucket
from sharding.rebalance.request import Request, Role, Shard
from tests.messages import whole


def cluster(owners, shards=None, sizes=None, **options):
    """
    Return a request: the owners of the buckets in a string, the weights of the shards, what is in each bucket.

    It is to be balanced exactly, by buckets if no sizes are given, unless options say otherwise.
    """
    given = dict.fromkeys(sorted(set(owners)), 1) if shards is None else shards
    made = tuple(each if isinstance(each, Shard) else Shard(alias, each) for alias, each in given.items())
    figures = {bucket: Size(1, size) for bucket, size in enumerate(sizes or [])}
    defaults = {"by": "bytes" if sizes else "buckets", "threshold": 0, "tolerance": 0, "improvement": 0.5}
    return Request(map=BucketMap(5, tuple(owners)), shards=made, sizes=figures, **{**defaults, **options})


def moves(plan: Plan):
    return [(move.bucket, move.source + move.target) for move in plan.moves]


def counts(plan: Plan):
    return {share.alias: share.buckets for share in plan.after.shares}


OPEN = {"a": 1, "b": 1}
DRAINED = {role: Shard("a", role=role) for role in Role}


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        pytest.param(cluster("aaa", OPEN), [(0, "ab")], id="as even as it gets"),
        pytest.param(cluster("aab", OPEN), [], id="an odd bucket stays"),
        pytest.param(cluster("aaaabb", OPEN), [(0, "ab")], id="half the difference"),
        pytest.param(cluster("aaaa", {"a": 1, "b": 3}), [(0, "ab"), (1, "ab"), (2, "ab")], id="three times the weight"),
        pytest.param(cluster("abb", {"a": 1, "b": 3}), [], id="the light shard's only bucket"),
        pytest.param(cluster("bbb", {"a": 1, "b": 3}), [(0, "ba")], id="1 and 2/3 is better than 0 and 1"),
        pytest.param(cluster("bbbb", {"a": 1, "b": 3}), [(0, "ba")], id="a fourth is the light shard's"),
        pytest.param(cluster("aaa", {"a": 1, "b": 40}), [(0, "ab"), (1, "ab"), (2, "ab")], id="all to a giant"),
        pytest.param(cluster("aabb", {"a": 0.1, "b": 0.3}), [(0, "ab")], id="fractions of weights are exact"),
        pytest.param(cluster("aaaa", OPEN, [10, 10, 10, 30]), [(3, "ab")], id="one large for three small ones"),
        pytest.param(cluster("aaaa", OPEN, [0, 0, 0, 0]), [(0, "ab"), (1, "ab")], id="empty buckets count, too"),
        pytest.param(
            cluster("aaaab", OPEN, [0, 0, 0, 100, 100]), [(0, "ab")], id="future keys are shared among equal shards"
        ),
        pytest.param(
            cluster("aabb", {"a": Shard("a", role=Role.DRAINED), "b": 1}), [(0, "ab"), (1, "ab")], id="a drained shard"
        ),
        pytest.param(cluster("bbbb", {"a": Shard("a", role=Role.DRAINED), "b": 1}), [], id="and it stays so"),
        pytest.param(
            cluster("abbbbb", {"a": Shard("a", role=Role.DRAINED), "b": 1, "c": 1}),
            [(0, "ac"), (1, "bc"), (2, "bc")],
            id="what must leave goes first, then the others are balanced",
        ),
        pytest.param(cluster("aabbcc", pins={3: "a"}), [(3, "ba"), (0, "ab")], id="a pin, and what makes up for it"),
        pytest.param(cluster("aaaa", OPEN, pins={0: "a", 1: "a", 2: "a"}), [(3, "ab")], id="pins stay"),
        pytest.param(
            cluster("aaaa", {"a": 1, "b": Shard("b", role=Role.CLOSED)}), [], id="a closed shard receives nothing"
        ),
        pytest.param(
            cluster("bbbb", {"a": 1, "b": Shard("b", role=Role.CLOSED)}), [(0, "ba"), (1, "ba")], id="and gives"
        ),
        pytest.param(
            cluster("aaab", {"a": 1, "b": Shard("b", role=Role.RESERVED), "c": 1}, pins={1: "b"}),
            [(1, "ab"), (3, "bc")],
            id="a reserved shard has what is pinned to it",
        ),
        pytest.param(
            cluster("aaaa", {"a": 1, "b": Shard("b", capacity=25)}, [10] * 4), [(0, "ab"), (1, "ab")], id="it fits"
        ),
        pytest.param(
            cluster("aaaa", {"a": 1, "b": Shard("b", capacity=15)}, [10] * 4), [(0, "ab")], id="one fits, two do not"
        ),
        pytest.param(
            cluster("aaaa", {"a": 1, "b": Shard("b", capacity=15)}, [20, 20, 20, 9]), [(3, "ab")], id="the small one"
        ),
    ],
)
def test_rebalance(request_, expected):
    assert moves(planning.rebalance(request_)) == expected


@pytest.mark.parametrize(
    ("sizes", "improvement", "expected"),
    [
        # With the bucket of 100, 40 and 150 would become 140 and 50; with that of 50, 90 and 100.
        ([20, 20, 100, 50], 0.5, [(3, "ba")]),
        # 80 and 200 would become 180 and 100, with 3.5 for the future of each bucket: 33 of 207 are won.
        ([40, 40, 100, 100], 0.5, []),
        ([40, 40, 100, 100], 0.17, []),
        ([40, 40, 100, 100], 0.15, [(2, "ba")]),
    ],
)
def test_a_large_bucket_does_not_move_for_a_small_improvement(sizes, improvement, expected):
    plan = planning.rebalance(cluster("aabb", OPEN, sizes, improvement=improvement, threshold=0.1))
    assert moves(plan)[:1] == expected
    if not expected:
        assert plan.reasons[0] == "No move is worth its bucket, although the shards are uneven."


def test_the_reasons_of_moves_are_shares():
    plan = planning.rebalance(cluster("aaaabb", {"a": 1, "b": 1, "c": 1}))
    assert [move.reason for move in plan.moves] == ["2.00 to 0.00 of fair share", "1.50 to 0.50 of fair share"]


def test_a_whale_is_named_and_the_others_are_balanced_without_it():
    plan = planning.rebalance(cluster("aabbbbbb", {"a": 1, "b": 1, "c": 1}, [1000, 5, 5, 5, 5, 5, 5, 5], threshold=0.1))
    assert counts(plan) == {"a": 1, "b": 4, "c": 3}
    assert plan.reasons == (
        "a stays at 2.78 times its fair share: bucket 0 alone is 2.78 times that, and a bucket is never divided.",
    )


def test_what_is_pinned_is_said():
    plan = planning.rebalance(cluster("aaaa", OPEN, pins={0: "a", 1: "a", 2: "a", 3: "a"}))
    assert plan.reasons == (
        "No move is worth its bucket, although the shards are uneven.",
        "a stays at 2.00 times its fair share: 4 of its buckets are pinned, and the others find no better place.",
    )


def test_few_large_buckets_go_before_many_small_ones():
    """Sixty moves of one byte would do as well as one of sixty."""
    sizes = [60, *[1] * 60]
    plan = planning.rebalance(cluster("a" * 61, OPEN, sizes))
    assert moves(plan)[0] == (0, "ab")
    assert len(plan.moves) < 5


def test_a_thousand_moves_are_not_made_to_spare_a_little():
    chance = random.Random(0)
    sizes = [int(1000 * chance.paretovariate(1.3)) for _ in range(240)]
    owners = [chance.choice("aab") for _ in range(240)]
    request = cluster(owners, dict.fromkeys("abcd", 1), sizes, threshold=0.1, tolerance=0.01)
    frugal, quick = (planning.rebalance(replace(request, per_move=bytes_)) for bytes_ in (0, 5000))
    assert frugal.bytes < quick.bytes < frugal.bytes * 1.1
    assert len(quick.moves) < len(frugal.moves) / 3
    for plan in (frugal, quick):
        assert plan.after.imbalance.max_over_mean < 1.1


def test_fewer_bytes_do_not_go_before_evenness():
    """110 and 60: with the bucket of 10, 100 and 70 are left; with that of 30, 80 and 90."""
    assert moves(planning.rebalance(cluster("babb", OPEN, [70, 60, 30, 10], threshold=0.1, tolerance=0.01))) == [
        (2, "ba")
    ]


def test_fractions_of_weights_are_exact():
    """As floats, 0.3 is not three times 0.1, and the shards would not be even."""
    plan = planning.rebalance(cluster("abbb", {"a": 0.1, "b": 0.3}))
    assert plan.reasons == ("Each shard's load is within 0 % of its fair share: there is nothing to do.",)


def test_the_last_per_cent_is_not_made_of_empty_buckets():
    sizes = [100, 100, 100, 110, *[0] * 96]
    even = planning.rebalance(cluster("a" * 100, OPEN, sizes, threshold=0.1, tolerance=0.01))
    assert len(even.moves) == 2
    assert even.after.imbalance.max_over_mean < 1.1


def test_add_moves_nothing_between_the_others():
    """b would be given two of the buckets of a; but only c is new."""
    request = cluster("aaaaaabb", {"a": 1, "b": 1, "c": Shard("c", capacity=10)}, [10] * 8)
    assert moves(planning.add(request, ["c"])) == [(0, "ac")]
    assert moves(planning.rebalance(request)) == [(0, "ac"), (1, "ab")]


def test_a_new_shard_gets_no_more_than_its_share_from_a_hot_one():
    """The shares are 50; with a third bucket of 30 the new shard would be as hot as the old one."""
    request = cluster("aaaabde", dict.fromkeys("abcde", 1), [100, 30, 30, 30, 20, 20, 20], pins={0: "a"}, threshold=0.1)
    assert [move[1] for move in moves(planning.add(request, ["c"]))] == ["ac", "ac"]


def test_drain_balances_nothing_else():
    plan = planning.drain(cluster("aaaaaabc"), ["c"])
    assert moves(plan) == [(7, "cb")]
    assert plan.moves[0].reason == "c is drained"
    assert [share.load for share in plan.after.shares if share.alias == "c"] == [None]


def test_drain_several():
    assert counts(planning.drain(cluster("aaabbbccc", {"a": 1, "b": 1, "c": 1, "d": 1}), ["b", "c"])) == {
        **{"a": 5, "b": 0, "c": 0, "d": 4},
    }


def test_drain_gives_the_largest_away_first():
    plan = planning.drain(cluster("aaabc", None, [10, 30, 20, 5, 5]), ["a"])
    assert moves(plan) == [(1, "ab"), (2, "ac"), (0, "ac")]


def test_space_goes_before_evenness():
    """Evenly, 6 goes to b and 5 to c, which leaves no place for the other 5; tightly, 6 goes to c."""
    shards = {"a": 1, "b": Shard("b", capacity=10), "c": Shard("c", capacity=6)}
    plan = planning.drain(cluster("aaa", shards, [6, 5, 5]), ["a"])
    assert moves(plan) == [(0, "ac"), (1, "ab"), (2, "ab")]


def test_reweight():
    plan = planning.reweight(cluster("aaaabbbb"), {"a": 3})
    assert moves(plan) == [(4, "ba"), (5, "ba")]
    assert [share.weight for share in plan.after.shares] == [3, 1]


# --- isolate a key


def test_isolate_takes_an_empty_shard():
    request = cluster("aabb", {"a": 1, "b": 1, "c": 1, "d": 1}, [50, 10, 10, 10])
    plan = planning.isolate(request, 0, KeyInBucket("tenant_id=42", Size(1, 40), 3))
    assert moves(plan) == [(0, "ac")]
    assert plan.pins == ((0, "c"),)
    assert plan.reasons[-1] == (
        "Bucket 0, which has the key tenant_id=42, is pinned to c. 2 other keys in it come along, with 10 bytes."
    )


@pytest.mark.parametrize(
    ("keys", "size", "sentence"),
    [
        (1, 50, "No other key is in it."),
        (0, 0, "No other key is in it."),
        (2, 50, "1 other key in it comes along, with 0 bytes."),
    ],
)
def test_neighbours(keys, size, sentence):
    plan = planning.isolate(cluster("ab", {"a": 1, "b": 1, "c": 1}, [40, 1]), 0, KeyInBucket("42", Size(1, size), keys))
    assert plan.reasons[-1].endswith(f"is pinned to c. {sentence}")


def test_isolate_empties_the_named_shard():
    request = cluster("aabbcc", None, [50, 10, 10, 20, 5, 5], pins={2: "b"})
    key = KeyInBucket("42", Size(1, 50), 1)
    plan = planning.isolate(request, 0, key, target="b")
    assert moves(plan) == [(0, "ab"), (3, "bc")] or moves(plan) == [(0, "ab"), (3, "ba")]
    assert plan.moves[1].reason == "b is kept for pinned buckets"
    assert moves(planning.isolate(request, 0, key, target="b", alone=False)) == [(0, "ab")]


def test_a_key_that_is_alone_already():
    request = cluster("aab", None, [10, 10, 90])
    plan = planning.isolate(request, 2, KeyInBucket("42", Size(1, 90), 1), target="b")
    assert (plan.moves, plan.pins) == ((), ((2, "b"),))


# --- refusals

KEY = KeyInBucket("42", Size(), 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: planning.drain(cluster("ab", {"a": 1, "b": Shard("b", capacity=15)}, [10, 10]), ["a"]),
            "The buckets of 'a' do not fit on the other shards: 1 of them with 10 bytes are left, and bucket 0 with 10 "
            "bytes fits nowhere (b has 5 of 15 bytes free). Raise a capacity, or add a shard.",
        ),
        (
            lambda: planning.drain(cluster("aa", {"a": 1}), ["a"]),
            "'a' cannot give its buckets away: no shard may receive them. Open one, or add one.",
        ),
        (
            lambda: planning.rebalance(cluster("ab", {"a": 1, "b": Shard("b", capacity=15)}, [10, 10], pins={0: "b"})),
            "Bucket 0 is pinned to 'b', and its 10 bytes do not fit there: b has 5 of 15 bytes free. "
            "Raise the capacity, or pin it to another shard.",
        ),
        (
            lambda: planning.isolate(cluster("ab", {"a": 1, "b": 1, "c": Shard("c", capacity=5)}, [10, 1]), 0, KEY),
            "No open shard is empty and has room for bucket 0 with 10 bytes. Add a shard, or name one that gives its "
            "buckets to the others.",
        ),
        (lambda: planning.isolate(cluster("ab"), 2, KEY), "There is no bucket 2: this cluster has the buckets 0 to 1."),
        (
            lambda: planning.isolate(cluster("ab"), 0, KEY, target="c"),
            "'c' is none of the shards: a, b. Declare it, or correct the name.",
        ),
        (
            lambda: planning.add(cluster("ab"), ["c"]),
            "'c' is none of the shards: a, b. Declare it, or correct the name.",
        ),
        (
            lambda: planning.drain(cluster("ab"), ["c"]),
            "'c' is none of the shards: a, b. Declare it, or correct the name.",
        ),
        (
            lambda: planning.reweight(cluster("ab"), {"c": 2}),
            "'c' is none of the shards: a, b. Declare it, or correct the name.",
        ),
        (
            lambda: planning.drain(cluster("ab", pins={1: "b"}), ["b"]),
            "Bucket 1 is pinned to 'b', which is to be drained. Remove the pin, or pin the bucket to another shard.",
        ),
        (lambda: planning.reweight(cluster("ab"), {"a": 0}), "The weight of 'a' is a positive number, not 0."),
        (lambda: Shard("a", float("nan")), "The weight of 'a' is a positive number, not nan."),
        (lambda: Shard("a", True), "The weight of 'a' is a positive number, not True."),
        (lambda: Shard("a", "2"), "The weight of 'a' is a positive number, not '2'."),  # type: ignore[arg-type]
        (lambda: Shard(""), "A shard is named by its alias, not ''."),
        (lambda: Shard("a", capacity=-1), "The capacity of 'a' is a whole number of bytes or None, not -1."),
        (
            lambda: Shard("a", capacity=1.5),  # type: ignore[arg-type]
            "The capacity of 'a' is a whole number of bytes or None, not 1.5.",
        ),
        (
            lambda: Shard("a", role="absent"),  # type: ignore[arg-type]
            "The role of 'a' is one of open, closed, reserved, drained, not 'absent'.",
        ),
        (lambda: Size(-1, 0), "The rows of a bucket are a whole number of 0 or more, not -1."),
        (
            lambda: Size(0, 1.5),  # type: ignore[arg-type]
            "The bytes of a bucket are a whole number of 0 or more, not 1.5.",
        ),
        (lambda: Size(True, 1), "The rows of a bucket are a whole number of 0 or more, not True."),
        (
            lambda: KeyInBucket("42", Size(), -1),
            "The number of keys in a bucket is a whole number of 0 or more, not -1.",
        ),
        (
            lambda: cluster("abb", {"a": 1}),
            "'b' owns 2 buckets and is not among the shards: a. Declare it, or drain it first.",
        ),
        (
            lambda: Request(map=BucketMap(0, ("a",)), shards=()),
            "'a' owns 1 buckets and is not among the shards: there is none. Declare it, or drain it first.",
        ),
        (
            lambda: Request(map=BucketMap(0, ("a",)), shards=(Shard("a"), Shard("a"))),
            "The shard 'a' is given 2 times. Give it once.",
        ),
        (
            lambda: cluster("ab", sizes=[1, 1, 1]),
            "Bucket 2 has a size and does not exist: this cluster has the buckets 0 to 1.",
        ),
        (
            lambda: cluster("ab", pins={-1: "a"}),
            "Bucket -1 is pinned and does not exist: this cluster has the buckets 0 to 1.",
        ),
        (
            lambda: cluster("ab", pins={0: "z"}),
            "Bucket 0 is pinned to 'z', which is none of the shards: a, b. Declare the shard or remove the pin.",
        ),
        (lambda: cluster("ab", by="size"), "Shards are balanced by one of bytes, rows, buckets, not by 'size'."),
        (
            lambda: cluster("ab", threshold=-0.1),
            "The threshold is a number of 0 or more, as 0.1 is for 10 %, not -0.1.",
        ),
        (
            lambda: cluster("ab", tolerance=None),
            "The tolerance is a number of 0 or more, as 0.1 is for 10 %, not None.",
        ),
        (
            lambda: cluster("ab", improvement=float("inf")),
            "The improvement is a number of 0 or more, as 0.1 is for 10 %, not inf.",
        ),
        (lambda: cluster("ab", per_move=-1), "What a move costs is a whole number of bytes of 0 or more, not -1."),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=whole(message)):
        make()


def test_that_there_is_no_room_is_told_apart():
    with pytest.raises(NoRoom):
        planning.drain(cluster("aa", {"a": 1}), ["a"])


# --- the map has changed


def test_objections():
    plan = planning.rebalance(cluster("aaaabb", {"a": 1, "b": 1, "c": 1}))
    start = BucketMap(5, tuple("aaaabb"))
    assert moves(plan) == [(0, "ac"), (1, "ac")]
    assert still_valid(plan, start)
    assert objection(plan, BucketMap(4, start.owners)) == (
        "The plan was made at epoch 5 of the bucket map, and this is epoch 4. Read the map again; if it stays older, "
        "the plan was made for another cluster."
    )
    assert objection(plan, BucketMap(5, tuple("aaa"))) == (
        "The plan is for a cluster of 6 buckets, and this one has 3. It was made for another cluster."
    )
    assert objection(plan, start.moved({0: "b"})) == (
        "Bucket 0 is to go from a to c, and b owns it now. Make a new plan."
    )
    assert objection(plan, start.moved({5: "c"})) == (
        "Other buckets than the plan's have moved since epoch 5, on which it builds. Make a new plan."
    )
    # There and back again.
    assert still_valid(plan, start.moved({5: "c"}).moved({5: "b"}))
    assert [move.bucket for move in remaining(plan, start.moved({0: "c"}))] == [1]


def test_examples():
    assert doctest.testmod(load).failed == 0
