"""One bucket that is to move."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import servers
from tests.moving.scenes import Scene, fenced_cluster

# Only PostgreSQL has moves.
collect_ignore_glob = [] if servers.engine == "postgresql" else ["test_*.py"]


@pytest.fixture
def scene(transactional_db: None) -> Iterator[Scene]:
    """A bucket of shard_a that is to go to shard_b."""
    with fenced_cluster():
        scene = Scene("shard_a", "shard_b")
        scene.plan()
        yield scene
