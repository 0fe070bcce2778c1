"""Keys and their buckets: golden vectors, the laws of the encoding, what is refused, the documented table."""

from __future__ import annotations

import doctest
import enum
import os
import re
import subprocess
import sys
from collections import Counter
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal, localcontext
from pathlib import Path
from uuid import UUID

import mmh3
import pytest
from django.db.models import IntegerChoices, TextChoices
from django.utils.safestring import mark_safe
from hypothesis import assume, given
from hypothesis import strategies as st

from sharding import hashing
from sharding.errors import UnhashableKey
from sharding.hashing import bucket_of, encode
from tests.messages import whole
from tests.murmur3 import murmur3_x86_32

ROOT = Path(__file__).parent.parent

# (key, canonical bytes, hash, bucket of 4096). Rows are stored by these numbers: a change of one loses data.
GOLDEN = [
    (0, b"int:0", 3814448160, 3104),
    (1, b"int:1", 3356080692, 2612),
    (-1, b"int:-1", 2425705868, 1420),
    (42, b"int:42", 2178192596, 1236),
    (9223372036854775807, b"int:9223372036854775807", 1745179541, 917),
    (-9223372036854775808, b"int:-9223372036854775808", 1044814169, 2393),
    (1000000000000000000000000000000, b"int:1000000000000000000000000000000", 3513344894, 894),
    ("", b"str:", 570923367, 2407),
    ("42", b"str:42", 3471778963, 1171),
    ("a", b"str:a", 1648995104, 2848),
    ("A", b"str:A", 1371589639, 3079),
    ("Zoë", b"str:Zo\xc3\xab", 554081350, 3142),
    ("Zoe\u0308", b"str:Zoe\xcc\x88", 351510251, 3819),
    ("東京", b"str:\xe6\x9d\xb1\xe4\xba\xac", 2044905352, 1928),
    ("🦊", b"str:\xf0\x9f\xa6\x8a", 3485702327, 2231),
    (" a b ", b"str: a b ", 347717222, 3686),
    (UUID("00000000-0000-0000-0000-000000000000"), b"uuid:00000000000000000000000000000000", 1977725998, 1070),
    (UUID("018BCFE5-6800-74D4-9A3C-5D1F0E6B7A28"), b"uuid:018bcfe5680074d49a3c5d1f0e6b7a28", 3505894873, 1497),
    (b"", b"bytes:", 992409982, 2430),
    (b"42", b"bytes:42", 320467903, 959),
    (b"\x00\xff\x80", b"bytes:\x00\xff\x80", 1764563791, 2895),
    (bytearray(b"42"), b"bytes:42", 320467903, 959),
    (memoryview(b"42"), b"bytes:42", 320467903, 959),
    (date(1, 1, 1), b"date:0001-01-01", 3575086492, 3484),
    (date(2026, 11, 21), b"date:2026-11-21", 1810823634, 2514),
    (Decimal("0"), b"decimal:0", 1898263585, 1057),
    (Decimal("-0.00"), b"decimal:0", 1898263585, 1057),
    (Decimal("0E+3"), b"decimal:0", 1898263585, 1057),
    (Decimal("1"), b"decimal:1", 3143917497, 4025),
    (Decimal("1.0"), b"decimal:1", 3143917497, 4025),
    (Decimal("1.00"), b"decimal:1", 3143917497, 4025),
    (Decimal("1E+3"), b"decimal:1000", 3889056544, 2848),
    (Decimal("-12.50"), b"decimal:-12.5", 3121534906, 1978),
    (Decimal("1E-7"), b"decimal:0.0000001", 551073957, 2213),
    (
        Decimal("12345678901234567890.123456789012345678901234567890"),
        b"decimal:12345678901234567890.12345678901234567890123456789",
        971957153,
        929,
    ),
    (datetime(2026, 11, 21, 10, 30, tzinfo=UTC), b"datetime:2026-11-21T10:30:00.000000+00:00", 1831063669, 117),
    (
        datetime(2026, 11, 21, 12, 30, tzinfo=timezone(timedelta(hours=2))),
        b"datetime:2026-11-21T10:30:00.000000+00:00",
        1831063669,
        117,
    ),
    (datetime(2026, 11, 21, 10, 30, 0, 1, tzinfo=UTC), b"datetime:2026-11-21T10:30:00.000001+00:00", 3177458017, 2401),
    (
        datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        b"datetime:1969-12-31T23:59:59.999999+00:00",
        1818324234,
        3338,
    ),
    (datetime(99, 1, 1, tzinfo=UTC), b"datetime:0099-01-01T00:00:00.000000+00:00", 116303134, 1310),
]


class Number(enum.IntEnum):
    ANSWER = 42


class Flag(enum.IntFlag):
    A = 40
    B = 2


class MixedNumber(int, enum.Enum):
    ANSWER = 42


class Text(enum.StrEnum):
    ANSWER = "42"


class MixedText(str, enum.Enum):  # noqa: UP042 - the spelling before StrEnum
    ANSWER = "42"


class NumberChoices(IntegerChoices):
    ANSWER = 42, "the answer"


class TextualChoices(TextChoices):
    ANSWER = "42", "the answer"


class Pure(enum.Enum):
    ANSWER = 42


class ShoutingInt(int):
    def __str__(self):
        return "FORTY-TWO"

    __repr__ = __str__


@pytest.mark.parametrize(("key", "encoded", "hashed", "bucket"), GOLDEN, ids=lambda value: repr(value)[:40])
def test_golden_vectors(key, encoded, hashed, bucket):
    assert encode(key) == encoded
    assert mmh3.hash(encoded, 0, signed=False) == murmur3_x86_32(encoded) == hashed
    assert bucket_of(key, 4096) == bucket
    assert bucket_of(key, 1000) == hashed % 1000


@pytest.mark.parametrize(
    ("member", "plain"),
    [
        (Number.ANSWER, 42),
        (Flag.A | Flag.B, 42),
        (MixedNumber.ANSWER, 42),
        (NumberChoices.ANSWER, 42),
        (ShoutingInt(42), 42),
        (Text.ANSWER, "42"),
        (MixedText.ANSWER, "42"),
        (TextualChoices.ANSWER, "42"),
        (mark_safe("42"), "42"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_subclass_counts_as_its_value(member, plain):
    assert encode(member) == encode(plain)


@pytest.mark.parametrize("key", [0, "", b"", Decimal(0), UUID(int=0)], ids=repr)
def test_falsy_keys_are_keys(key):
    assert bucket_of(key, 4096) == murmur3_x86_32(encode(key)) % 4096


def test_equal_numbers_of_two_types_are_two_keys():
    assert len({encode(42), encode("42"), encode(b"42"), encode(Decimal(42))}) == 4


NAIVE = datetime(2026, 11, 21, 10, 30)
EDGE = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5)))
USE = "Use an int, str, UUID, bytes, date, Decimal or aware datetime."


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (None, f"None is no shard key: a row without a key has no bucket. {USE}"),
        (True, f"True is a bool, which is no shard key: all rows would live in two buckets. {USE}"),
        (False, f"False is a bool, which is no shard key: all rows would live in two buckets. {USE}"),
        (1.0, f"1.0 is a float, which is no shard key: a rounded number is not the number that was stored. {USE}"),
        ([1], f"A value of type list is no shard key and has no bucket. {USE}"),
        ((1, 2), f"A value of type tuple is no shard key and has no bucket. {USE}"),
        ({1}, f"A value of type set is no shard key and has no bucket. {USE}"),
        ({"a": 1}, f"A value of type dict is no shard key and has no bucket. {USE}"),
        (object(), f"A value of type object is no shard key and has no bucket. {USE}"),
        (1 + 2j, f"A value of type complex is no shard key and has no bucket. {USE}"),
        (Pure.ANSWER, f"A value of type Pure is no shard key and has no bucket. {USE}"),
        (timedelta(1), f"A value of type timedelta is no shard key and has no bucket. {USE}"),
        (UTC.utcoffset, f"A value of type builtin_function_or_method is no shard key and has no bucket. {USE}"),
        (
            NAIVE,
            "The shard key datetime.datetime(2026, 11, 21, 10, 30) has no time zone, so it names no moment and "
            "has no bucket. Make it aware, for example with django.utils.timezone.make_aware().",
        ),
        (
            EDGE,
            "The shard key datetime.datetime(1, 1, 1, 0, 0, tzinfo=datetime.timezone(datetime.timedelta(seconds=18000"
            "))) is outside the years 1 to 9999 in UTC, so it has no bucket. Use a moment within them.",
        ),
        (
            Decimal("NaN"),
            "The shard key Decimal('NaN') is not a finite number, so it has no bucket. Use a finite Decimal.",
        ),
        (
            Decimal("sNaN"),
            "The shard key Decimal('sNaN') is not a finite number, so it has no bucket. Use a finite Decimal.",
        ),
        (
            Decimal("-Infinity"),
            "The shard key Decimal('-Infinity') is not a finite number, so it has no bucket. Use a finite Decimal.",
        ),
        (
            Decimal("1E+999999"),
            "The shard key Decimal('1E+999999') has more than 131072 digits before the point or more than 16383 after "
            "it, so it has no bucket. Use a number that a numeric column holds.",
        ),
        (
            Decimal("1E-16384"),
            "The shard key Decimal('1E-16384') has more than 131072 digits before the point or more than 16383 after "
            "it, so it has no bucket. Use a number that a numeric column holds.",
        ),
        (
            "\ud800",
            "The shard key '\\ud800' contains a surrogate, which is not a character and cannot be stored. "
            "Decode the text correctly before using it.",
        ),
        (
            1 << 20000,
            "An integer of 20001 bits is too long for a shard key. Use a number that an integer field holds.",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_refused_keys(key, message):
    with pytest.raises(UnhashableKey) as caught:
        bucket_of(key, 4096)
    assert str(caught.value) == message
    assert caught.value.key is key


def test_the_repr_of_an_unknown_value_is_never_asked_for():
    class Lazy:
        def __repr__(self):
            raise AssertionError("the repr() of a QuerySet runs a query")

    with pytest.raises(UnhashableKey, match=r"^A value of type Lazy is no shard key"):
        encode(Lazy())


@pytest.mark.parametrize(("key", "bucket"), [(0, 0), (7, 7), (3072, 0), (3073, 1), (-1, 3071), (Number.ANSWER, 42)])
def test_identity_is_the_remainder(key, bucket):
    assert bucket_of(key, 3072, method="identity") == bucket


@pytest.mark.parametrize("key", [None, True, "42", 42.0, Decimal(42), UUID(int=42)], ids=repr)
def test_identity_refuses_all_but_integers(key):
    with pytest.raises(UnhashableKey) as caught:
        bucket_of(key, 3072, method="identity")
    assert str(caught.value) == (
        f"A shard key of type {type(key).__name__} has no bucket under the hash method 'identity', which takes the "
        "remainder of integers. Use an integer key, or the hash method 'mmh3'."
    )


@pytest.mark.parametrize("buckets", [0, -1, 4097])
def test_impossible_numbers_of_buckets(buckets):
    with pytest.raises(ValueError, match=whole(f"A cluster has 1 to 4096 buckets, not {buckets}.")):
        bucket_of(42, buckets)


def test_unknown_method():
    with pytest.raises(ValueError, match=whole("'md5' is not a hash method. Use one of: mmh3, identity.")):
        bucket_of(42, 4096, method="md5")


def test_six_processes_with_their_own_string_hashes_agree():
    script = (
        "from sharding.hashing import bucket_of; from uuid import UUID; from decimal import Decimal\n"
        "keys = [*range(50), *map(str, range(50)), '', UUID(int=7), b'x', Decimal('1.50')]\n"
        "print([bucket_of(key, 4096) for key in keys], hash('a'))"
    )
    answers, hashes = set(), set()
    for seed in range(1, 7):
        environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
        run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, check=True)
        buckets, _, string_hash = run.stdout.rpartition(b" ")
        answers.add(buckets)
        hashes.add(string_hash)
    assert len(answers) == 1
    assert len(hashes) == 6, "the processes were meant to differ in the hashes of their strings"


# --- laws


finite = st.decimals(allow_nan=False, allow_infinity=False)
moments = st.datetimes(
    min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1), timezones=st.timezones() | st.just(UTC)
)
keys = st.integers() | st.text() | st.uuids() | st.binary() | st.dates() | moments | finite


@given(keys, st.integers(1, 4096))
def test_a_bucket_is_in_range_and_stays(key, buckets):
    bucket = bucket_of(key, buckets)
    assert 0 <= bucket < buckets
    assert bucket_of(key, buckets) == bucket


@given(st.binary(max_size=70))
def test_the_library_is_murmur3(data):
    assert mmh3.hash(data, 0, signed=False) == murmur3_x86_32(data)


@pytest.mark.parametrize(
    ("data", "seed", "hashed"),
    [
        (b"", 0, 0),
        (b"", 1, 0x514E28B7),
        (b"aaa", 0x9747B28C, 0x283E0130),
        (b"aaaa", 0x9747B28C, 0x5A97808A),
        (b"test", 0, 0xBA6BD213),
        (b"Hello, world!", 0, 0xC0363E43),
        (b"The quick brown fox jumps over the lazy dog", 0, 0x2E4FF723),
    ],
)
def test_published_vectors_of_murmur3(data, seed, hashed):
    assert murmur3_x86_32(data, seed) == hashed


@given(st.lists(keys, min_size=2, max_size=2))
def test_two_keys_share_their_bytes_only_if_they_are_equal(pair):
    first, second = pair
    if encode(first) == encode(second):
        assert first == second


@pytest.mark.parametrize("values", [st.integers(), st.text(), st.binary(), st.dates()], ids=str)
def test_distinct_keys_have_distinct_bytes(values):
    @given(values, values)
    def law(first, second):
        assert (encode(first) == encode(second)) is (first == second)

    law()


@given(finite, st.integers(0, 30))
def test_equal_decimals_have_equal_bytes(key, zeros):
    assume(key.adjusted() + zeros < 1000)
    _, digits, exponent = key.as_tuple()
    longer = Decimal((key.is_signed(), (*digits, *[0] * zeros), int(exponent) - zeros))
    assert longer == key
    assert encode(longer) == encode(key)


@given(finite)
def test_decimals_do_not_depend_on_the_context(key):
    expected = encode(key)
    with localcontext(prec=2, Emax=5, Emin=-5):
        assert encode(key) == expected
    assert Decimal(expected.removeprefix(b"decimal:").decode()) == key


@given(moments, st.integers(-1439, 1439))
def test_one_moment_has_the_same_bytes_in_every_time_zone(moment, minutes):
    elsewhere = moment.astimezone(timezone(timedelta(minutes=minutes)))
    assert encode(elsewhere) == encode(moment)


@given(st.binary())
def test_all_views_of_bytes_are_one_key(data):
    assert encode(data) == encode(bytearray(data)) == encode(memoryview(data))
    assert encode(memoryview(data)[::2]) == encode(data[::2])


@given(st.integers(), st.integers(1, 4096))
def test_identity_is_congruent(key, buckets):
    assert (bucket_of(key, buckets, "identity") - key) % buckets == 0


def test_consecutive_keys_spread():
    counts = Counter(bucket_of(key, 16) for key in range(16_000))
    assert min(counts.values()) > 900
    assert max(counts.values()) < 1100


# --- documentation


def documented_vectors():
    text = (ROOT / "docs/reference/hashing.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `(.+?)` \| `(.+?)` \| (\d+) \| (\d+) \|$", text, flags=re.MULTILINE)


@pytest.mark.parametrize(("source", "escaped", "hashed", "bucket"), documented_vectors())
def test_the_documented_table(source, escaped, hashed, bucket):
    key = eval(source)
    encoded = escaped.encode("ascii").decode("unicode_escape").encode("latin-1")
    assert encode(key) == encoded
    assert (murmur3_x86_32(encoded), bucket_of(key, 4096)) == (int(hashed), int(bucket))


def test_every_golden_vector_is_documented():
    documented = {(int(hashed), int(bucket)) for _, _, hashed, bucket in documented_vectors()}
    assert documented == {(hashed, bucket) for _, _, hashed, bucket in GOLDEN}


def test_the_documented_bounds():
    text = (ROOT / "docs/reference/hashing.md").read_text(encoding="utf-8")
    for number in (hashing.MAX_BUCKETS, hashing.DIGITS_BEFORE_POINT, hashing.DIGITS_AFTER_POINT):
        assert str(number) in text


def test_examples():
    assert doctest.testmod(hashing).failed == 0
