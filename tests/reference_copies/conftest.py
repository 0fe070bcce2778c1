"""Copies on a cluster whose shards own all buckets."""

from __future__ import annotations

from tests import servers

# SQLite has one writer, and the throw-away projects are made on PostgreSQL servers.
collect_ignore = [] if servers.engine == "postgresql" else ["test_concurrency.py", "test_migrating.py"]
