"""The marks of buckets are fixed: databases keep sums of them."""

from __future__ import annotations

from itertools import combinations

from sharding.bucket_states import HIDING, SHOWING, WRITABLE, BucketState, mark_of, shown_by


def test_marks_never_change() -> None:
    assert [mark_of(bucket) for bucket in (0, 1, 4095)] == [373572482856511, 654844650845441, 907639604620998]


def test_marks_differ() -> None:
    assert len({mark_of(bucket) for bucket in range(4096)}) == 4096
    few = [mark_of(bucket) for bucket in range(300)]
    assert len({one + other for one, other in combinations(few, 2)}) == 300 * 299 // 2


def test_all_marks_together_fit_a_bigint() -> None:
    assert 2**60 < shown_by(range(4096)) < 2**63


def test_a_bucket_is_shown_or_hidden() -> None:
    assert set(BucketState) == SHOWING | HIDING
    assert not SHOWING & HIDING
    assert WRITABLE < SHOWING
