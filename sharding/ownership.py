"""
Which of the rows that a shard has are its own: those of buckets that it is not being given, and has not given away.

While a bucket moves, both shards have rows of it. Every shard knows from its fence which of its buckets hide their
rows, so that a statement for several shards finds each row once. In the instants in which one shard hides a bucket
already, or still, while the other does so too, the shards refuse the statement: the sender says which buckets it takes
each of them to show, by a sum.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from django.core.exceptions import FullResultSet
from django.db.models import BooleanField, Func, Value
from django.db.models.sql import Query
from django.db.models.sql.where import AND, WhereNode

from sharding import cluster_map, registry
from sharding.bucket_states import FENCE, HIDING

_STATES = ", ".join(f"'{state}'" for state in sorted(HIDING))
_HIDDEN = f"SELECT bucket FROM {FENCE} WHERE state IN ({_STATES})"
#: The function that refuses a statement.
DIFFERS = "sharding_differs"
# Whether a function may be run by parallel workers decides about the whole statement.
DIFFERS_SQL = """RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
    RAISE EXCEPTION 'This database shows other buckets than the sender of the statement takes it to show.'
        USING ERRCODE = 'SH004';
END $$"""


class _OnPostgreSQL(Func):
    output_field = BooleanField()

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        # No bucket ever moves there.
        raise FullResultSet


class IsOwned(_OnPostgreSQL):
    """The condition that a bucket's rows are to be seen on the database that is asked."""

    # Where nothing is hidden, a row costs a look at what PostgreSQL finds out once for a statement; else a comparison
    # with an array, which it makes once, too. As "<> ALL" it would expect to find a small part of the rows only.
    template = (
        f"((SELECT NOT EXISTS ({_HIDDEN})) OR nullif(%(expressions)s = ANY (ARRAY({_HIDDEN})), true) IS NOT NULL)"
    )


class IsAsKnown(_OnPostgreSQL):
    """The condition, which is met or raises, that a database shows the buckets which it shows by the sender's map."""

    # Without columns of the statement's tables, it is evaluated once.
    template = (
        "NOT EXISTS (SELECT 1 FROM sharding_identity WHERE "
        "CASE WHEN shown <> coalesce((%(expressions)s::jsonb ->> shard)::bigint, 0) "
        f"THEN {DIFFERS}() ELSE false END)"
    )


def limited(query: Query) -> Query:
    """Return a query of a sharded model, or the aggregates over one, that finds no rows which the shard hides."""
    made: Any = query.clone()
    inner = getattr(query, "inner_query", None)
    if inner is not None:
        made.inner_query = limited(inner)
        return made  # type: ignore[no-any-return]
    entry = registry.get(made.model)
    bucket: Any = entry.model._meta.get_field(registry.BUCKET_COLUMN)
    is_owned: Any = IsOwned(bucket.get_col(made.get_initial_alias()))
    is_as_known: Any = IsAsKnown(Value(cluster_map.shown()))
    made.where = WhereNode([made.where, is_owned, is_as_known], AND)
    return made  # type: ignore[no-any-return]


def own(query: Query) -> Query:
    """Return the same, where nobody has taken the shard to show anything: it is asked by itself."""
    made: Any = query.clone()
    inner = getattr(query, "inner_query", None)
    if inner is not None:
        made.inner_query = own(inner)
        return made  # type: ignore[no-any-return]
    bucket: Any = made.model._meta.get_field(registry.BUCKET_COLUMN)
    is_owned: Any = IsOwned(bucket.get_col(made.get_initial_alias()))
    made.where = WhereNode([made.where, is_owned], AND)
    return made  # type: ignore[no-any-return]


def condition(column: str) -> tuple[str, tuple[Any, ...]]:
    """Return the same condition in SQL, about a column that has the bucket, with its parameters (PostgreSQL)."""
    conditions = IsOwned.template % {"expressions": column}, IsAsKnown.template % {"expressions": "%s"}
    return " AND ".join(conditions), (cluster_map.shown(),)


def as_asked(sql: str, params: Iterable[Any]) -> tuple[str, tuple[Any, ...]]:
    """Return a statement, with its parameters, as a reader knows it: without the conditions that ``limited()`` adds."""
    found = _ADDED.search(sql)
    if found is None:
        return sql, tuple(params)
    begin, end = _group_around(sql, found.start()), found.end()
    kept = tuple(param for param in params if param != cluster_map.shown())
    if begin == found.start() - 1:
        # There is no other condition.
        return sql[: begin - len(" WHERE ")] + sql[end:], kept
    return sql[:begin] + sql[begin + 1 : found.start() - len(" AND ")] + sql[end:], kept


def _group_around(sql: str, place: int) -> int:
    """Return where the parenthesis opens inside which a place is."""
    depth = 1
    while depth:
        place -= 1
        depth += {")": 1, "(": -1}.get(sql[place], 0)
    return place


_COLUMN = r'"[^"]+"\."bucket"'
_ADDED = re.compile(
    "{} AND {}\\)".format(
        re.escape(IsOwned.template % {"expressions": "COLUMN"}).replace("COLUMN", _COLUMN),
        re.escape(IsAsKnown.template % {"expressions": "%s"}),
    )
)
