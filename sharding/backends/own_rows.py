"""
Which rows of a database its migrations find: not those of buckets that it is being given, or has given away.

A write of them would be refused, and a later reader never sees what was written.
"""

from __future__ import annotations

from typing import Any

from django.db.models.sql import Query

from sharding import conf, ownership, registry, routing


def own_rows(name: str, query: Query, connection: Any) -> Query:
    """Return what a query of a migration is on a database with a fence: without rows that this one hides."""
    if not routing.is_migrating() or name == "SQLInsertCompiler":
        return query
    if connection.vendor != "postgresql" or conf.current().fence is None:
        return query
    # An earlier state of a model may have no buckets yet.
    fields = {field.name for field in query.model._meta.local_concrete_fields} if query.model else set()
    if registry.BUCKET_COLUMN not in fields or not _has_fence(connection):
        return query
    return ownership.own(query)


def _has_fence(connection: Any) -> bool:
    if not getattr(connection, "has_fence", False):
        with connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass('sharding_fence') IS NOT NULL")
            ((connection.has_fence,),) = cursor.fetchall()
    return bool(connection.has_fence)
