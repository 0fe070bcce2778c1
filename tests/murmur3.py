"""
MurmurHash3 x86_32 written from its definition, to check that the library computes what docs/reference/hashing.md says.
"""

from __future__ import annotations

MASK = 0xFFFFFFFF


def murmur3_x86_32(data: bytes, seed: int = 0) -> int:
    """Return the unsigned 32-bit hash of ``data``."""
    state = seed
    whole = len(data) - len(data) % 4
    for start in range(0, whole, 4):
        state ^= _scramble(int.from_bytes(data[start : start + 4], "little"))
        state = (_rotate(state, 13) * 5 + 0xE6546B64) & MASK
    state ^= _scramble(int.from_bytes(data[whole:], "little"))
    return _finish(state ^ len(data))


def _scramble(block: int) -> int:
    return _rotate(block * 0xCC9E2D51 & MASK, 15) * 0x1B873593 & MASK


def _rotate(word: int, bits: int) -> int:
    return (word << bits | word >> 32 - bits) & MASK


def _finish(state: int) -> int:
    state = (state ^ state >> 16) * 0x85EBCA6B & MASK
    state = (state ^ state >> 13) * 0xC2B2AE35 & MASK
    return state ^ state >> 16
