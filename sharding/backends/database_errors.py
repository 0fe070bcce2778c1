"""
Errors of ours that stand for an error of a shard's database, and are Django's as well, to be caught as before.
"""

from __future__ import annotations

from django.db import OperationalError, ProgrammingError

from sharding import errors


class ShardNotMigrated(errors.ShardNotMigrated, ProgrammingError):
    """A shard lacks a table or a column of a model, as PostgreSQL says in a ProgrammingError."""


class ShardsUnavailable(errors.ShardsUnavailable, OperationalError):
    """The one shard that a statement needs did not answer, which is an OperationalError."""


def unavailable(alias: str, error: Exception) -> ShardsUnavailable:
    """Return the error for a statement that the shard of ``alias``, and nobody else, was to answer."""
    return ShardsUnavailable(
        f"The shard {alias!r} did not answer ({type(error).__name__}). `manage.py shards status` shows which databases "
        f"answer; .failures has the error. Queries of other shards go on.",
        failures={alias: error},
    )


def original(error: Exception) -> Exception:
    """Return the database's own error where ours stands for that of one shard, else the error itself."""
    return next(iter(error.failures.values())) if isinstance(error, ShardsUnavailable) else error  # type: ignore[return-value]
