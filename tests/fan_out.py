"""
What a cluster does without an aggregator: the tests of the seam must not depend on whether one is installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sharding.backends import hook


@contextmanager
def no_aggregator() -> Iterator[None]:
    """Take away what merges the answers of several shards."""
    before = hook._installed
    hook.install(None)
    try:
        yield
    finally:
        hook.install(before)
