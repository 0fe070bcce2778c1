"""
The sentence with which an answer that would not be exact is refused.
"""

from __future__ import annotations

from django.db.models.sql import Query

from sharding.errors import CannotMerge


def cannot_merge(query: Query, construct: str, remedy: str, error: type[CannotMerge] = CannotMerge) -> CannotMerge:
    """Return the error that names the construct which stands in the way, and what to do instead."""
    label = query.model._meta.label if query.model is not None else "raw"
    return error(
        f"The answers of several shards to this {label} query cannot be merged exactly because of {construct}. "
        f"{remedy}",
        model=label,
        construct=construct,
    )


ONE_KEY = "Limit the query to one shard key, or do this part in Python."
