"""
Which of the rows that a shard has are its own: those of buckets that it is not being given, and has not given away.

While a bucket moves, both shards have rows of it. Every shard knows from its fence which of its buckets hide their
rows, so that a statement for several shards finds each row once. In the instants in which one shard hides a bucket
already, or still, while the other does so too, the shards refuse the statement: the sender says which buckets it takes
each of them to show, by a sum.

To look at the bucket of each row costs more than the rest of a cheap statement. A statement that does not do so is
refused by a shard that hides anything; see sharding.hidden_rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from django.core.exceptions import FullResultSet
from django.db.models import BooleanField, Expression, Func
from django.db.models.sql import Query
from django.db.models.sql.where import AND, WhereNode

from sharding import cluster_map, registry
from sharding.bucket_states import FENCE, HIDING

_STATES = ", ".join(f"'{state}'" for state in sorted(HIDING))
_HIDDEN = f"SELECT bucket FROM {FENCE} WHERE state IN ({_STATES})"
#: The function that refuses a statement.
SHOWS = "sharding_shows"
SHOWS_ARGUMENTS = "known jsonb, may_hide boolean"
# STABLE, it reads in the snapshot of the statement. Whether a function may be run by parallel workers decides about the
# whole statement.
SHOWS_SQL = f"""RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    is_other boolean;
    hides boolean;
BEGIN
    -- Only the fence itself knows where nothing counts for it.
    SELECT shown <> coalesce((known ->> shard)::bigint, 0),
           CASE WHEN NOT may_hide THEN coalesce(hidden > 0, EXISTS ({_HIDDEN})) END
    INTO is_other, hides FROM sharding_identity;
    IF is_other THEN
        RAISE EXCEPTION 'This database shows other buckets than the sender of the statement takes it to show.'
            USING ERRCODE = 'SH004';
    ELSIF hides THEN
        RAISE EXCEPTION 'This database hides rows, and the sender of the statement takes it to hide none.'
            USING ERRCODE = 'SH004', DETAIL = '{{"hides": true}}';
    END IF;
    RETURN true;
END $$"""


class IsOwned(Func):
    """The condition that a bucket's rows are to be seen on the database that is asked."""

    output_field = BooleanField()

    # Where nothing is hidden, a row costs a look at what PostgreSQL finds out once for a statement; else a comparison
    # with an array, which it makes once, too. As "<> ALL" it would expect to find a small part of the rows only.
    template = (
        f"((SELECT NOT EXISTS ({_HIDDEN})) OR nullif(%(expressions)s = ANY (ARRAY({_HIDDEN})), true) IS NOT NULL)"
    )

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        # No bucket ever moves there.
        raise FullResultSet


class IsAsKnown(Expression):
    """
    The condition, which is met or raises, that a database shows the buckets which it shows by the sender's map.

    It raises as well if the database hides rows, unless the statement looks for that itself: it is ``careful``.
    """

    output_field = BooleanField()
    # Without columns of the statement's tables, it is evaluated once: by a function, which costs the planner less than
    # a subquery.
    template = f"{SHOWS}(%(expressions)s::jsonb, %(careful)s)"

    def __init__(self, known: str, *, careful: bool) -> None:
        super().__init__()
        self.known = known
        self.sql = self.template % {"expressions": "%s", "careful": str(careful).lower()}

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        return self.sql, [self.known]

    def as_sqlite(self, compiler: Any, connection: Any) -> Any:
        # No bucket ever moves there.
        raise FullResultSet


def limited(query: Query, known: str, *, careful: bool) -> Query:
    """
    Return a query of a sharded model, or the aggregates over one, that finds no rows which the shard hides.

    Args:
        known: what each shard shows by the map of which the shards that are asked were taken; cluster_map.shown().
        careful: False for one that a shard refuses which hides any.
    """
    return _with(query, lambda inner: _conditions(inner, known, careful))


def own(query: Query) -> Query:
    """Return the same, where nobody has taken the shard to show anything: it is asked by itself."""
    return _with(query, lambda inner: [_is_owned(inner)])


def _with(query: Query, conditions: Callable[[Any], list[Any]]) -> Query:
    """Return a query of a sharded model, or the aggregates over one, with more conditions."""
    made: Any = query.clone()
    inner = getattr(query, "inner_query", None)
    if inner is not None:
        made.inner_query = _with(inner, conditions)
    else:
        made.where = WhereNode([made.where, *conditions(made)], AND)
    return made  # type: ignore[no-any-return]


def _is_owned(query: Any) -> IsOwned:
    bucket: Any = registry.get(query.model).model._meta.get_field(registry.BUCKET_COLUMN)
    return IsOwned(bucket.get_col(query.get_initial_alias()))


def make_careful(query: Any) -> None:
    """Let a query that ``limited()`` has made be a careful one."""
    asked, *_, is_as_known = query.where.children
    query.where = WhereNode([asked, *_conditions(query, is_as_known.known, careful=True)], AND)


def _conditions(query: Any, known: str, careful: bool) -> list[Any]:
    is_as_known = IsAsKnown(known, careful=careful)
    return [_is_owned(query), is_as_known] if careful else [is_as_known]


def apart(where: Any) -> tuple[Any, IsAsKnown | None]:
    """
    Return a condition that ``limited()`` has made without what is evaluated once, and that.

    Where this is a condition of the rows, PostgreSQL hands each of them on, which is a part of what it costs to count.
    """
    last = where.children[-1] if where.children else None
    if not isinstance(last, IsAsKnown):
        return where, None
    return WhereNode(where.children[:-1], AND), last


def condition(column: str, *, careful: bool) -> tuple[str, tuple[Any, ...]]:
    """Return the same condition in SQL, about a column that has the bucket, with its parameters (PostgreSQL)."""
    is_as_known = IsAsKnown(cluster_map.shown(), careful=careful)
    conditions = [IsOwned.template % {"expressions": column}, is_as_known.sql] if careful else [is_as_known.sql]
    return " AND ".join(conditions), (is_as_known.known,)


def checked(sql: str, condition: str) -> str:
    """Return a statement that checks first what is evaluated once."""
    return f"{_CHECKED}{sql}{_CHECKED_END}{condition}"


def as_asked(sql: str, params: Iterable[Any]) -> tuple[str, tuple[Any, ...]]:
    """Return a statement, with its parameters, as a reader knows it: without the conditions that ``limited()`` adds."""
    while (found := _ADDED.search(sql)) is not None:
        sql = _without(sql, *found.span())
        params = [param for param in params if param != cluster_map.shown()]
    return sql, tuple(params)


def _without(sql: str, start: int, end: int) -> str:
    """Return a statement without a condition, which is the last one where it is."""
    if sql.endswith(_CHECKED_END, 0, start):
        close = start - len(_CHECKED_END)
        begin = _group_around(sql, close)
        return sql[: begin + 1 - len(_CHECKED)] + sql[begin + 1 : close] + sql[end:]
    if sql.endswith(_WHERE, 0, start):
        return sql[: start - len(_WHERE)] + sql[end:]
    begin, end = _group_around(sql, start), end + len(")")
    if begin == start - 1:
        # There is no other condition.
        return sql[: begin - len(_WHERE)] + sql[end:]
    return sql[:begin] + sql[begin + 1 : start - len(" AND ")] + sql[end:]


def _group_around(sql: str, place: int) -> int:
    """Return where the parenthesis opens inside which a place is."""
    depth = 1
    while depth:
        place -= 1
        depth += {")": 1, "(": -1}.get(sql[place], 0)
    return place


_WHERE = " WHERE "
_CHECKED, _CHECKED_END = "SELECT * FROM (", ") AS parts WHERE "
_COLUMN = r'"[^"]+"\."bucket"'
_IS_OWNED = re.escape(IsOwned.template % {"expressions": "COLUMN"}).replace("COLUMN", _COLUMN)
_IS_AS_KNOWN = re.escape(IsAsKnown.template % {"expressions": "%s", "careful": "CAREFUL"}).replace("CAREFUL", r"\w+")
_ADDED = re.compile(f"{_IS_OWNED} AND {_IS_AS_KNOWN}|{_IS_AS_KNOWN}|{_IS_OWNED}")
