"""
The layout of ids that carry their bucket: a UUID of version 7 and a 63-bit integer.

Both hold the bucket and never its owner, so they survive every move. docs/reference/ids.md draws the bits.
"""

from __future__ import annotations

from os import urandom
from time import time_ns
from typing import Final
from uuid import UUID

BUCKET_BITS: Final = 12
SHARD_NUMBER_BITS: Final = 10
SEQUENCE_BITS: Final = 41

_BUCKET_MASK: Final = (1 << BUCKET_BITS) - 1
_SHARD_NUMBER_MASK: Final = (1 << SHARD_NUMBER_BITS) - 1
_TIMESTAMP_MASK: Final = (1 << 48) - 1
_VERSION_AND_VARIANT: Final = 7 << 76 | 0b10 << 62

# A clock that steps back by less than this many milliseconds (NTP, a leap second) is waited out by repeating the latest
# millisecond, so that ids keep their order. Beyond it the clock was wrong before and is followed.
TOLERATED_STEP: Final = 10_000

_latest = 0


def new_uuid(bucket: int) -> UUID:
    """
    Return a new UUID of version 7 (RFC 9562) that carries ``bucket``.

    Ids sort by the millisecond in which they were made. They are unique whatever the clock does: 62 bits are random and
    come from the kernel for each id, so threads, forks and other machines need no coordination.

    >>> bucket_of_uuid(new_uuid(1236))
    1236

    Raises:
        ValueError: ``bucket`` does not fit into 12 bits.
    """
    _check("bucket", bucket, BUCKET_BITS)
    # No pool of random bytes: a fork that Python does not see (in C, of a virtual machine) would hand them out twice.
    random = int.from_bytes(urandom(8)) >> 2
    return UUID(int=(_milliseconds() & _TIMESTAMP_MASK) << 80 | _VERSION_AND_VARIANT | bucket << 64 | random)


def bucket_of_uuid(value: UUID) -> int:
    """
    Return the 12 bits of ``value`` that hold the bucket in an id of ``new_uuid()``.

    Of any other UUID they mean nothing, and may be no bucket of a cluster that has fewer than 4096.

    >>> bucket_of_uuid(UUID("018bcfe5-6800-74d4-9a3c-5d1f0e6b7a28"))
    1236
    """
    return value.int >> 64 & _BUCKET_MASK


def pack_bigint(sequence: int, shard_number: int, bucket: int) -> int:
    """
    Return the integer id made of a number of a shard's sequence, the number of that shard, and the bucket.

    It is at most 2**63 - 1, grows with ``sequence``, and is unique if no shard number is given to a second sequence.

    >>> pack_bigint(1, 3, 1236)
    4207828

    Raises:
        ValueError: A part is negative or does not fit.
    """
    _check("sequence", sequence, SEQUENCE_BITS)
    _check("shard number", shard_number, SHARD_NUMBER_BITS)
    _check("bucket", bucket, BUCKET_BITS)
    return sequence << SHARD_NUMBER_BITS + BUCKET_BITS | shard_number << BUCKET_BITS | bucket


def bucket_of_bigint(value: int) -> int:
    """
    Return the 12 bits of ``value`` that hold the bucket in an id of ``pack_bigint()``.

    >>> bucket_of_bigint(4207828)
    1236
    """
    return value & _BUCKET_MASK


def shard_number_of_bigint(value: int) -> int:
    """
    Return the number of the shard whose sequence minted ``value``. Its row may have moved since.

    >>> shard_number_of_bigint(4207828)
    3
    """
    return value >> BUCKET_BITS & _SHARD_NUMBER_MASK


def _milliseconds() -> int:
    # Threads may race for _latest: an id is then a little out of order, never repeated.
    global _latest
    now = time_ns() // 1_000_000
    if now < _latest <= now + TOLERATED_STEP:
        return _latest
    _latest = now
    return now


def _check(part: str, value: int, bits: int) -> None:
    if value >> bits:
        raise ValueError(f"The {part} of an id is 0 to {(1 << bits) - 1} ({bits} bits), not {value!r}.")
