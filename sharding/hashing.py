"""
The bucket of a shard key: a pure function of the key, the same in every process, on every platform, in every release.

A key is first written as bytes, by one rule a type, and the bytes are hashed. Both steps are fixed for ever, because
rows are stored by their result. docs/reference/hashing.md describes them for other languages.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, NoReturn
from uuid import UUID

import mmh3

from sharding.errors import UnhashableKey

MAX_BUCKETS: Final = 4096
METHODS: Final = ("mmh3", "identity")

# The bounds of PostgreSQL's numeric. Without them Decimal("1E+999999999") would be written as a gigabyte of zeros.
DIGITS_BEFORE_POINT: Final = 131_072
DIGITS_AFTER_POINT: Final = 16_383

ALLOWED: Final = "an int, str, UUID, bytes, date, Decimal or aware datetime"


def bucket_of(key: object, buckets: int, method: str = "mmh3") -> int:
    """
    Return the bucket of ``key``: an integer in ``range(buckets)``.

    The result depends on nothing else: not on the process, the platform, PYTHONHASHSEED or the bucket map. The type
    counts: 42 and "42" are two keys, so give the value that the model's field prepares.

    >>> bucket_of(42, 4096)
    1236
    >>> bucket_of(42, 12, method="identity")
    6

    Raises:
        UnhashableKey: ``key`` is None, a bool, a float, a container, a naive datetime; or, for "identity", no integer.
        ValueError: ``buckets`` or ``method`` is not one of those that exist.
    """
    check_buckets(buckets)
    if method == "mmh3":
        return mmh3.hash(encode(key), 0, signed=False) % buckets
    if method == "identity":
        return _integer(key) % buckets
    raise ValueError(f"{method!r} is not a hash method. Use one of: {', '.join(METHODS)}.")


def encode(key: object) -> bytes:
    """
    Return the canonical bytes of ``key``: the name of its type, a colon, its value.

    Values that are equal within one type have equal bytes, whatever their subclass or spelling.

    >>> encode(42), encode("42"), encode(Decimal("42.00"))
    (b'int:42', b'str:42', b'decimal:42')

    Raises:
        UnhashableKey: ``key`` has no canonical bytes.
    """
    # The order of the classes is what makes an IntEnum an int, a datetime no date, and a bool no int.
    for kind in type(key).__mro__:
        if (encoder := _ENCODERS.get(kind)) is not None:
            return encoder(key)
    _refuse(key)


def check_buckets(buckets: int) -> None:
    """
    Check that a cluster may have this number of buckets.

    Raises:
        ValueError: It may not.
    """
    if not 1 <= buckets <= MAX_BUCKETS:
        raise ValueError(f"A cluster has 1 to {MAX_BUCKETS} buckets, not {buckets!r}.")


def _encode_int(key: int) -> bytes:
    try:
        return b"int:%d" % key
    except ValueError as error:
        # Python's guard against quadratic conversions; no integer column holds such a number.
        raise UnhashableKey(
            f"An integer of {key.bit_length()} bits is too long for a shard key. "
            "Use a number that an integer field holds.",
            key=key,
        ) from error


def _encode_str(key: str) -> bytes:
    try:
        return b"str:" + str.encode(key, "utf-8")
    except UnicodeEncodeError as error:
        raise UnhashableKey(
            f"The shard key {key!r} contains a surrogate, which is not a character and cannot be stored. "
            "Decode the text correctly before using it.",
            key=key,
        ) from error


def _encode_uuid(key: UUID) -> bytes:
    return b"uuid:" + key.hex.encode("ascii")


def _encode_bytes(key: bytes | bytearray | memoryview) -> bytes:
    return b"bytes:" + bytes(key)


def _encode_date(key: dt.date) -> bytes:
    return b"date:" + dt.date.isoformat(key).encode("ascii")


def _encode_datetime(key: dt.datetime) -> bytes:
    if key.utcoffset() is None:
        raise UnhashableKey(
            f"The shard key {key!r} has no time zone, so it names no moment and has no bucket. "
            "Make it aware, for example with django.utils.timezone.make_aware().",
            key=key,
        )
    try:
        moment = key.astimezone(dt.UTC)
    except OverflowError as error:
        raise UnhashableKey(
            f"The shard key {key!r} is outside the years 1 to 9999 in UTC, so it has no bucket. "
            "Use a moment within them.",
            key=key,
        ) from error
    return b"datetime:" + dt.datetime.isoformat(moment, timespec="microseconds").encode("ascii")


def _encode_decimal(key: Decimal) -> bytes:
    if not key.is_finite():
        raise UnhashableKey(
            f"The shard key {key!r} is not a finite number, so it has no bucket. Use a finite Decimal.", key=key
        )
    if not key:  # -0, 0.00 and 0E+9 are one number
        return b"decimal:0"
    if key.adjusted() >= DIGITS_BEFORE_POINT or -int(key.as_tuple().exponent) > DIGITS_AFTER_POINT:
        raise UnhashableKey(
            f"The shard key {key!r} has more than {DIGITS_BEFORE_POINT} digits before the point or more than "
            f"{DIGITS_AFTER_POINT} after it, so it has no bucket. Use a number that a numeric column holds.",
            key=key,
        )
    # Not normalize(): it rounds to the precision of the thread's decimal context.
    text = format(key, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return b"decimal:" + text.encode("ascii")


def _integer(key: object) -> int:
    if isinstance(key, bool) or not isinstance(key, int):
        raise UnhashableKey(
            f"A shard key of type {type(key).__name__} has no bucket under the hash method 'identity', which takes the "
            "remainder of integers. Use an integer key, or the hash method 'mmh3'.",
            key=key,
        )
    return key


def _refuse(key: object) -> NoReturn:
    reason = _REASONS.get(type(key))
    if reason is None:
        # Its repr() stays out of the message: that of a QuerySet would run a query.
        reason = f"A value of type {type(key).__name__} is no shard key and has no bucket."
    else:
        reason = reason.format(key)
    raise UnhashableKey(f"{reason} Use {ALLOWED}.", key=key)


_REASONS: Final[dict[type, str]] = {
    type(None): "{!r} is no shard key: a row without a key has no bucket.",
    bool: "{!r} is a bool, which is no shard key: all rows would live in two buckets.",
    float: "{!r} is a float, which is no shard key: a rounded number is not the number that was stored.",
}

_ENCODERS: Final[dict[type, Callable[[Any], bytes]]] = {
    int: _encode_int,
    str: _encode_str,
    UUID: _encode_uuid,
    bytes: _encode_bytes,
    bytearray: _encode_bytes,
    memoryview: _encode_bytes,
    dt.date: _encode_date,
    dt.datetime: _encode_datetime,
    Decimal: _encode_decimal,
    bool: _refuse,
}
