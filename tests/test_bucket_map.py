"""The bucket map as a value: owners, the next epoch, and how uneven it is."""

from __future__ import annotations

import doctest
import pickle
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharding import bucket_map
from sharding.bucket_map import BucketMap, Imbalance, complete_weights
from tests.messages import whole

MAP = BucketMap(3, ("b", "a", "b", "c", "b", "a"))

owners = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=40).map(tuple)
maps = st.builds(BucketMap, st.integers(0, 100), owners)


def test_questions():
    assert MAP.buckets == 6
    assert MAP.aliases == ("a", "b", "c")
    assert [MAP.owner(bucket) for bucket in range(6)] == ["b", "a", "b", "c", "b", "a"]
    assert MAP.buckets_of("b") == (0, 2, 4)
    assert MAP.buckets_of("unheard_of") == ()
    assert list(MAP.counts().items()) == [("a", 2), ("b", 3), ("c", 1)]


@pytest.mark.parametrize(
    ("buckets", "aliases"),
    [([], ()), ([0], ("b",)), ([3, 1], ("a", "c")), (frozenset({0, 2, 4}), ("b",)), (range(6), ("a", "b", "c"))],
)
def test_owners_of_several_buckets_are_sorted(buckets, aliases):
    assert MAP.owners_of(buckets) == aliases


def test_a_cluster_of_one():
    alone = BucketMap.whole("default", 4096)
    assert (alone.epoch, alone.aliases, alone.counts()) == (0, ("default",), {"default": 4096})
    assert BucketMap.whole("default", 4, epoch=9) == BucketMap(9, ("default",) * 4)


def test_the_repr_is_short():
    assert repr(MAP) == "<BucketMap epoch 3: a 2, b 3, c 1>"


def test_a_map_is_a_value():
    twin = pickle.loads(pickle.dumps(MAP))
    assert twin == MAP
    assert hash(twin) == hash(MAP)
    assert twin.buckets_of("b") == (0, 2, 4)
    assert BucketMap(4, MAP.owners) != MAP
    with pytest.raises(FrozenInstanceError):
        MAP.epoch = 4  # type: ignore[misc]


def test_a_move_makes_the_next_epoch():
    after = MAP.moved({0: "c", 5: "d"})
    assert after == BucketMap(4, ("c", "a", "b", "c", "b", "d"))
    assert MAP.owner(0) == "b"


@pytest.mark.parametrize("bucket", [-1, 6, 4096])
@pytest.mark.parametrize(
    "ask",
    [
        lambda bucket: MAP.owner(bucket),
        lambda bucket: MAP.owners_of([0, bucket]),
        lambda bucket: MAP.moved({bucket: "a"}),
    ],
    ids=["owner", "owners_of", "moved"],
)
def test_buckets_that_do_not_exist(ask, bucket):
    with pytest.raises(ValueError, match=whole(f"There is no bucket {bucket}: this cluster has the buckets 0 to 5.")):
        ask(bucket)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BucketMap(0, ()), "A cluster has 1 to 4096 buckets, not 0."),
        (lambda: BucketMap(0, ("a",) * 4097), "A cluster has 1 to 4096 buckets, not 4097."),
        (lambda: BucketMap.whole("a", 0), "A cluster has 1 to 4096 buckets, not 0."),
        (lambda: BucketMap.whole("a", 10**9), "A cluster has 1 to 4096 buckets, not 1000000000."),
        (lambda: BucketMap(-1, ("a",)), "The epoch of a bucket map is 0 or more, not -1."),
        (lambda: BucketMap(0, ("a", "")), "The owner of bucket 1 is the alias of a shard, not ''."),
        (lambda: BucketMap(0, ("a", None)), "The owner of bucket 1 is the alias of a shard, not None."),  # type: ignore[arg-type]
        (lambda: MAP.moved({2: ""}), "The owner of bucket 2 is the alias of a shard, not ''."),
        (
            lambda: MAP.imbalance({"a": 0}),
            "The weight of 'a' is a positive number, not 0. To empty a shard, remove it from SHARDS.",
        ),
        (
            lambda: complete_weights(["a"], {"a": -1}),
            "The weight of 'a' is a positive number, not -1. To empty a shard, remove it from SHARDS.",
        ),
        (
            lambda: complete_weights(["a"], {"a": float("nan")}),
            "The weight of 'a' is a positive number, not nan. To empty a shard, remove it from SHARDS.",
        ),
        (
            lambda: complete_weights(["a"], {"a": float("inf")}),
            "The weight of 'a' is a positive number, not inf. To empty a shard, remove it from SHARDS.",
        ),
    ],
)
def test_impossible_maps(make, message):
    with pytest.raises(ValueError, match=whole(message)):
        make()


@given(maps)
def test_every_bucket_belongs_to_one_shard(some_map):
    held = [bucket for alias in some_map.aliases for bucket in some_map.buckets_of(alias)]
    assert sorted(held) == list(range(some_map.buckets))
    assert all(some_map.owner(bucket) == alias for alias in some_map.aliases for bucket in some_map.buckets_of(alias))
    assert some_map.owners_of(range(some_map.buckets)) == some_map.aliases == tuple(sorted(some_map.aliases))
    assert sum(some_map.counts().values()) == some_map.buckets


@given(maps, st.data())
def test_a_move_changes_what_it_names_and_nothing_else(some_map, data):
    buckets = st.integers(0, some_map.buckets - 1)
    changes = data.draw(st.dictionaries(buckets, st.sampled_from(["a", "e"])))
    after = some_map.moved(changes)
    assert after.epoch == some_map.epoch + 1
    for bucket in range(some_map.buckets):
        assert after.owner(bucket) == changes.get(bucket, some_map.owner(bucket))


# --- imbalance


@pytest.mark.parametrize(
    ("counts", "weights", "printed"),
    [
        ({"a": 4, "b": 4}, None, "sd 0.00 %, max/mean 1.000"),
        ({"a": 410, "b": 409, "c": 409}, None, "sd 0.12 %, max/mean 1.002"),
        ({"a": 3, "b": 1}, None, "sd 50.00 %, max/mean 1.500"),
        ({"a": 3, "b": 1}, {"a": 3}, "sd 0.00 %, max/mean 1.000"),
        ({"a": 3, "b": 1}, {"a": 30, "b": 10}, "sd 0.00 %, max/mean 1.000"),
        ({"a": 2, "b": 2}, {"a": 3, "b": 1}, "sd 57.74 %, max/mean 2.000"),
        ({"a": 4}, {"b": 1}, "sd 100.00 %, max/mean 2.000"),
        ({"a": 4}, None, "sd 0.00 %, max/mean 1.000"),
    ],
)
def test_imbalance(counts, weights, printed):
    uneven = BucketMap(0, tuple(alias for alias, count in counts.items() for _ in range(count)))
    assert str(uneven.imbalance(weights)) == printed


@given(maps)
def test_the_fullest_shard_has_at_least_its_share(some_map):
    imbalance = some_map.imbalance()
    assert imbalance.max_over_mean >= 1 - 1e-9
    assert imbalance.sd >= 0
    assert (imbalance.sd < 1e-9) is (len(set(some_map.counts().values())) == 1)


def test_imbalances_compare():
    assert Imbalance(0.1, 1.2) == Imbalance(0.1, 1.2)


def test_examples():
    assert doctest.testmod(bucket_map).failed == 0
