"""
Which of the rows that a shard has are its own: those of buckets that it is not being given, and has not given away.

While a bucket moves, both shards have rows of it. Every shard knows from its fence which of its buckets hide their
rows, so that a statement for several shards finds each row once, whatever the process that sends it knows of moves.
"""

from __future__ import annotations

from typing import Any

from django.db.models import BooleanField, Func
from django.db.models.sql import Query
from django.db.models.sql.where import AND, WhereNode

from sharding import registry
from sharding.bucket_states import FENCE, HIDING

_STATES = ", ".join(f"'{state}'" for state in sorted(HIDING))
_HIDDEN = f"SELECT bucket FROM {FENCE} WHERE state IN ({_STATES})"


#: SQLite has no arrays.
SQLITE = f"%(expressions)s NOT IN ({_HIDDEN})"


class IsOwned(Func):
    """The condition that a bucket's rows are to be seen on the database that is asked."""

    # An array, which PostgreSQL makes once for a statement, costs less for each row than a subquery.
    template = f"%(expressions)s <> ALL (ARRAY({_HIDDEN}))"
    output_field = BooleanField()

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, template=SQLITE, **context)


def limited(query: Query) -> Query:
    """Return a query of a sharded model, or the aggregates over one, that finds no rows which the shard hides."""
    made: Any = query.clone()
    inner = getattr(query, "inner_query", None)
    if inner is not None:
        made.inner_query = limited(inner)
        return made  # type: ignore[no-any-return]
    entry = registry.get(made.model)
    bucket: Any = entry.model._meta.get_field(registry.BUCKET_COLUMN)
    owned: Any = IsOwned(bucket.get_col(made.get_initial_alias()))
    made.where = WhereNode([made.where, owned], AND)
    return made  # type: ignore[no-any-return]


def condition(column: str, vendor: str) -> str:
    """Return the same condition in SQL, about a column that has the bucket."""
    return (SQLITE if vendor == "sqlite" else IsOwned.template) % {"expressions": column}
