"""Placements: what each proposes, the laws they keep, what they refuse, and the warnings about a bad bargain."""

from __future__ import annotations

import doctest
import importlib
import os
import re
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharding.bucket_map import BucketMap
from sharding.errors import UnknownShard
from sharding.placement import PLACEMENTS, ConsistentPlacement, PlacementRequest, propose
from tests.messages import whole
from tests.murmur3 import murmur3_x86_32

ROOT = Path(__file__).parent.parent
TEN = [f"shard_{letter}" for letter in "abcdefghij"]
NAMES = list(PLACEMENTS)
SMALL_RING = ConsistentPlacement(points=20)

shard_lists = st.lists(st.sampled_from(TEN), min_size=1, max_size=6, unique=True)
weight_values = st.integers(1, 9) | st.floats(0.1, 9)


@st.composite
def requests(draw, weighted=True, pinned=True, max_buckets=64):
    """Draw (shards, buckets, keyword arguments of propose())."""
    shards = draw(shard_lists)
    buckets = draw(st.integers(1, max_buckets))
    weights = draw(st.dictionaries(st.sampled_from(shards), weight_values)) if weighted else None
    pins = draw(st.dictionaries(st.integers(0, buckets - 1), st.sampled_from(shards))) if pinned else None
    owner = st.sampled_from([*shards, "shard_gone"])
    owners = draw(st.none() | st.lists(owner, min_size=buckets, max_size=buckets))
    current = None if owners is None else BucketMap(0, tuple(owners))
    return shards, buckets, {"weights": weights, "pins": pins, "current": current}


def placements_for(options):
    weighted = len(set((options["weights"] or {}).values()) | {1}) > 1
    return ["even", SMALL_RING] if weighted else ["even", "modulo", SMALL_RING]


def counts_of(proposal):
    return Counter(proposal.owners)


# --- what each proposes


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("even", "sd 0.12 %, max/mean 1.001"),
        ("modulo", "sd 0.12 %, max/mean 1.001"),
        ("consistent", "sd 4.39 %, max/mean 1.091"),
    ],
)
def test_the_spread_of_4096_buckets_on_ten_shards(name, printed):
    proposal = propose(name, TEN, 4096)
    assert str(proposal.imbalance) == printed
    assert (proposal.moves, proposal.warnings, proposal.changes) == ((), (), {})


@pytest.mark.parametrize(
    ("name", "shards", "owners"),
    [
        ("even", "abc", "abcabcabca"),
        ("even", "cab", "abcabcabca"),
        ("modulo", "abc", "abcabcabca"),
        ("modulo", "cab", "cabcabcabc"),
        ("consistent", "abc", "cbcaabccbb"),
        ("consistent", "cab", "cbcaabccbb"),
        ("even", "a", "aaaaaaaaaa"),
        ("modulo", "a", "aaaaaaaaaa"),
        ("consistent", "a", "aaaaaaaaaa"),
    ],
)
def test_owners(name, shards, owners):
    assert "".join(propose(name, list(shards), 10).owners) == owners


@pytest.mark.parametrize(
    ("current", "shards", "options", "owners"),
    [
        ("aaaaaaaa", "ab", {}, "aaaabbbb"),
        ("aaaabbbb", "abc", {}, "aaacbbbc"),
        ("abcabcabc", "ab", {}, "abaabbaba"),
        ("dddddddd", "abd", {}, "dddababa"),
        ("aabbb", "ab", {}, "aabbb"),
        ("aaabb", "ab", {}, "aaabb"),
        ("aaaaaaaa", "ab", {"weights": {"a": 3}}, "aaaaaabb"),
        ("aaaaaaaa", "ab", {"pins": {0: "b"}}, "baaaabbb"),
        ("aaaaaaaa", "abc", {"pins": {0: "b", 1: "b", 2: "b", 3: "b"}}, "bbbbaacc"),
        ("aaabbb", "ab", {"pins": {0: "b", 3: "a"}}, "baaabb"),
        ("aab", "ab", {"pins": {0: "b"}}, "bab"),
    ],
)
def test_even_starts_from_the_current_map(current, shards, options, owners):
    before = BucketMap(5, tuple(current))
    proposal = propose("even", list(shards), len(current), current=before, **options)
    assert "".join(proposal.owners) == owners
    assert before.moved(proposal.changes).owners == proposal.owners


@pytest.mark.parametrize("name", NAMES)
def test_pins_are_honoured(name):
    proposal = propose(name, TEN, 4096, pins={17: "shard_j", 4095: "shard_a"})
    assert (proposal.owners[17], proposal.owners[4095]) == ("shard_j", "shard_a")
    assert Counter(proposal.owners).total() == 4096


@pytest.mark.parametrize("name", ["even", "consistent"])
def test_weights(name):
    proposal = propose(name, ["a", "b", "c"], 4096, weights={"b": 2, "c": 0.5})
    tolerance = 1 if name == "even" else 120
    for alias, share in {"a": 4096 / 3.5, "b": 4096 * 2 / 3.5, "c": 4096 * 0.5 / 3.5}.items():
        assert abs(counts_of(proposal)[alias] - share) < tolerance
    assert proposal.imbalance.max_over_mean < (1.001 if name == "even" else 1.1)


# --- laws of all placements


@given(requests())
def test_every_bucket_has_one_declared_owner_and_pins_hold(request_):
    shards, buckets, options = request_
    for placement in placements_for(options):
        proposal = propose(placement, shards, buckets, **options)
        assert len(proposal.owners) == buckets
        assert set(proposal.owners) <= set(shards)
        assert all(proposal.owners[bucket] == alias for bucket, alias in options["pins"].items())


@given(requests())
def test_the_moves_lead_from_the_current_map_to_the_owners(request_):
    shards, buckets, options = request_
    for placement in placements_for(options):
        proposal = propose(placement, shards, buckets, **options)
        if options["current"] is None:
            assert proposal.moves == ()
        else:
            assert options["current"].moved(proposal.changes).owners == proposal.owners
            assert [move[0] for move in proposal.moves] == sorted(proposal.changes)
            assert all(options["current"].owner(bucket) == source != to for bucket, source, to in proposal.moves)


@given(requests(), st.randoms(use_true_random=False))
def test_the_order_of_the_shards_matters_to_modulo_alone(request_, random):
    shards, buckets, options = request_
    shuffled = random.sample(shards, len(shards))
    for placement in ("even", SMALL_RING):
        assert (
            propose(placement, shards, buckets, **options).owners
            == propose(placement, shuffled, buckets, **options).owners
        )


@given(requests())
def test_a_proposal_once_carried_out_is_not_changed_again(request_):
    shards, buckets, options = request_
    for placement in placements_for(options):
        first = propose(placement, shards, buckets, **options)
        again = propose(placement, shards, buckets, **{**options, "current": BucketMap(1, first.owners)})
        assert again.moves == ()


# --- laws of even


def spread(owners, shards):
    return sum(owners.count(alias) ** 2 for alias in shards)


@settings(max_examples=60)
@given(st.data())
def test_even_is_as_even_as_possible_with_the_fewest_moves(data):
    """Compare with all assignments there are: the flattest that keep the pins, and of these the nearest."""
    shards = data.draw(st.sampled_from(["a", "ab", "abc"]))
    buckets = data.draw(st.integers(1, 6))
    current = data.draw(st.text("abcz", min_size=buckets, max_size=buckets))
    pins = data.draw(st.dictionaries(st.integers(0, buckets - 1), st.sampled_from(shards), max_size=4))
    candidates = [
        owners
        for owners in product(shards, repeat=buckets)
        if all(owners[bucket] == alias for bucket, alias in pins.items())
    ]
    flattest = min(spread(owners, shards) for owners in candidates)
    fewest = min(
        sum(before != after for before, after in zip(current, owners, strict=True))
        for owners in candidates
        if spread(owners, shards) == flattest
    )
    proposal = propose("even", list(shards), buckets, current=BucketMap(0, tuple(current)), pins=pins)
    assert spread(proposal.owners, shards) == flattest
    assert len(proposal.moves) == fewest


@given(requests(pinned=False, max_buckets=300))
def test_even_gives_each_shard_its_share_rounded(request_):
    shards, buckets, options = request_
    proposal = propose("even", shards, buckets, **options)
    weights = {alias: Fraction(options["weights"].get(alias, 1)) for alias in shards}
    for alias in shards:
        assert abs(counts_of(proposal)[alias] - buckets * weights[alias] / sum(weights.values())) < 1


@given(requests(weighted=False, pinned=False, max_buckets=300), st.sampled_from(TEN))
def test_even_moves_to_a_new_shard_only(request_, newcomer):
    shards, buckets, _ = request_
    before = BucketMap(0, propose("even", [alias for alias in shards if alias != newcomer] or ["z"], buckets).owners)
    wanted = [*before.aliases, newcomer]
    proposal = propose("even", wanted, buckets, current=before)
    assert {to for _, _, to in proposal.moves} <= {newcomer}
    assert len(proposal.moves) == buckets // len(wanted)


def test_equal_fractions_are_equal():
    """The shares are 4/3, 16/3 and 4/3 of a bucket; as floats their fractions differ, and b would lose its sixth."""
    before = BucketMap(0, tuple("bbbbbbac"))
    assert propose("even", list("abc"), 8, weights={"b": 4}, current=before).moves == ()


# --- laws of the ring


@given(requests(), st.sampled_from(TEN), weight_values)
def test_a_shard_that_comes_or_goes_moves_nothing_between_the_others(request_, newcomer, weight):
    shards, buckets, options = request_
    others = [alias for alias in shards if alias != newcomer] or ["shard_z"]
    weights = {alias: value for alias, value in options["weights"].items() if alias in others}
    without = propose(SMALL_RING, others, buckets, weights=weights)
    joined = propose(
        SMALL_RING,
        [*others, newcomer],
        buckets,
        weights={**weights, newcomer: weight},
        current=BucketMap(0, without.owners),
    )
    assert {to for _, _, to in joined.moves} <= {newcomer}
    left = propose(SMALL_RING, others, buckets, weights=weights, current=BucketMap(0, joined.owners))
    assert {source for _, source, _ in left.moves} <= {newcomer}
    assert left.owners == without.owners


@given(shard_lists, st.integers(1, 5), st.integers(1, 5))
def test_more_weight_only_takes(shards, light, more):
    before = propose(SMALL_RING, shards, 256, weights={shards[0]: light})
    after = propose(SMALL_RING, shards, 256, weights={shards[0]: light + more}, current=BucketMap(0, before.owners))
    assert {to for _, _, to in after.moves} <= {shards[0]}


def test_the_ring_is_the_documented_one():
    """Written again from docs/reference/hashing.md, without the library and without bisection."""
    weights = {"shard_b": 1, "shard_a": 2, "shard_c": 0.125}
    points = []
    for alias, weight in weights.items():
        for number in range(max(1, round(20 * weight))):
            points.append((murmur3_x86_32(f"{alias}#{number}".encode()), alias))
    points.sort()
    expected = []
    for bucket in range(256):
        position = murmur3_x86_32(f"bucket:{bucket}".encode())
        expected.append(next((alias for point, alias in points if point >= position), points[0][1]))
    assert propose(SMALL_RING, list(weights), 256, weights=weights).owners == tuple(expected)
    assert len(SMALL_RING.ring(weights)) == 20 + 40 + 2


def test_the_documented_number_of_points():
    text = (ROOT / "docs/reference/hashing.md").read_text(encoding="utf-8")
    assert re.findall(r"round\((\d+) .", text) == [str(ConsistentPlacement().points)]


def test_more_points_spread_better():
    few, many = (propose(ConsistentPlacement(points=points), TEN, 4096).imbalance.sd for points in (10, 1000))
    assert many < few / 2


def test_six_processes_with_their_own_string_hashes_agree():
    script = (
        "from sharding.placement import propose; from sharding.bucket_map import BucketMap\n"
        f"before = BucketMap(0, propose('even', {TEN[:7]!r}, 512).owners)\n"
        f"print([propose(name, {TEN!r}, 512, current=before, pins={{3: 'shard_c'}}).owners"
        " for name in ('even', 'modulo', 'consistent')])"
    )
    answers = set()
    for seed in range(6):
        environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
        run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, check=True)
        answers.add(run.stdout)
    assert len(answers) == 1


# --- warnings


def test_modulo_warns_of_renumbering():
    before = BucketMap(0, propose("modulo", TEN, 4096).owners)
    proposal = propose("modulo", [*TEN, "shard_k"], 4096, current=before)
    assert proposal.warnings == (
        "The placement 'modulo' would move 3716 of 4096 buckets (91%) where 'even' moves 372. "
        "Use 'even', unless the owners must stay computable without the bucket map.",
    )
    assert len(proposal.moves) == 3716


@pytest.mark.parametrize(
    ("current", "shards"),
    [("default", "abcd"), ("ab", "abcd"), ("abc", "abc")],
    ids=["a cluster of one is spread out", "half the buckets move", "nothing changes"],
)
def test_no_warning_where_no_placement_moves_less(current, shards):
    old = [current] if current == "default" else list(current)
    before = BucketMap(0, propose("modulo", old, 512).owners)
    assert propose("modulo", list(shards), 512, current=before).warnings == ()


def test_a_change_of_placement_warns_too():
    before = BucketMap(0, propose("even", TEN, 4096).owners)
    (warning,) = propose("consistent", TEN, 4096, current=before).warnings
    assert re.fullmatch(
        r"The placement 'consistent' would move \d+ of 4096 buckets \(\d+%\) where 'even' moves 0\. .*", warning
    )


def test_a_shard_that_gets_nothing_is_named():
    assert propose("even", ["a", "b", "c"], 2).warnings == (
        "The shard 'c' would own no bucket. Raise its weight, or declare fewer shards.",
    )


# --- bad input


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (
            ("random", ["a"], 8),
            {},
            "There is no placement 'random'. Use one of: even, modulo, consistent.",
        ),
        (("even", [], 8), {}, "A placement needs at least one shard. Declare one in SHARDING['SHARDS']."),
        (("even", "ab", 8), {}, "The shards are a list of aliases, not the string 'ab'."),
        (("even", ["a", "b", "a"], 8), {}, "The shard 'a' is declared 2 times. Declare it once."),
        (("even", ["a"], 0), {}, "A cluster has 1 to 4096 buckets, not 0."),
        (("even", ["a"], 4097), {}, "A cluster has 1 to 4096 buckets, not 4097."),
        (
            ("even", ["a"], 8),
            {"weights": {"a": 0}},
            "The weight of 'a' is a positive number, not 0. To empty a shard, remove it from SHARDS.",
        ),
        (
            ("even", ["a"], 8),
            {"weights": {"a": -0.5}},
            "The weight of 'a' is a positive number, not -0.5. To empty a shard, remove it from SHARDS.",
        ),
        (
            ("even", ["a"], 8),
            {"pins": {8: "a"}},
            "Bucket 8 is pinned but does not exist: this cluster has the buckets 0 to 7.",
        ),
        (
            ("even", ["a"], 8),
            {"pins": {-1: "a"}},
            "Bucket -1 is pinned but does not exist: this cluster has the buckets 0 to 7.",
        ),
        (
            ("even", ["a"], 8),
            {"current": BucketMap.whole("a", 16)},
            "The current map has 16 buckets, and 8 are asked for. The number of buckets of a cluster never changes.",
        ),
        (
            ("modulo", ["a", "b"], 8),
            {"weights": {"a": 2}},
            "The placement 'modulo' cannot weight shards. "
            "Remove the weights, or use the placement 'even' or 'consistent'.",
        ),
        (
            ("consistent", ["a", "b"], 8),
            {"weights": {"a": 1000}},
            "The ring would have 1001000 points, and 1000000 are allowed. "
            "Scale the weights down: a shard of weight 1 has 1000.",
        ),
    ],
)
def test_impossible_requests(arguments, options, message):
    with pytest.raises(ValueError, match=whole(message)):
        propose(*arguments, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"pins": {3: "shard_x"}},
            "Bucket 3 is pinned to 'shard_x', which is none of the declared shards: a, b. "
            "Declare the shard or remove the pin.",
        ),
        (
            {"weights": {"shard_x": 2}},
            "A weight is given to 'shard_x', which is none of the declared shards: a, b. "
            "Declare the shard or remove the weight.",
        ),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_unknown_shards(name, options, message):
    with pytest.raises(UnknownShard) as caught:
        propose(name, ["a", "b"], 8, **options)
    assert str(caught.value) == message
    assert caught.value.alias == "shard_x"


def test_a_ring_without_points():
    with pytest.raises(ValueError, match=whole("A shard has at least 1 point on the ring, not 0.")):
        ConsistentPlacement(points=0)


def test_a_request_completes_the_weights():
    assert PlacementRequest(["b", "a"], 8, {"a": 2}).weights == {"b": 1.0, "a": 2}


@pytest.mark.parametrize("module", ["proposal", "request", "strategies"])
def test_examples(module):
    assert doctest.testmod(importlib.import_module(f"sharding.placement.{module}")).failed == 0
