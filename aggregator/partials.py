"""
Aggregates over several shards: the statement for their partial results, and the one that finishes these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import EmptyResultSet, FullResultSet

from aggregator import collations, executor, finishing
from aggregator.columns import Builder
from aggregator.compiled import Sql
from aggregator.merge import Row
from aggregator.planner import aggregates
from aggregator.totals import Totals, totals
from sharding import ownership


@dataclass(frozen=True, slots=True)
class Statements:
    """What is sent to every shard, and what finishes their answers."""

    partial: Sql
    #: What a shard is to check once before that: nothing, if it is empty.
    check: Sql
    #: Declared types of the partial columns on SQLite, where they take part in comparisons.
    declared: Sequence[str]
    #: Reads p, the table of all partial rows; or what finishes them without a statement.
    final: Sql | Totals
    #: Text is compared, so that all shards must compare it alike.
    compares_text: bool
    #: The partial columns, of which the first ones are what is grouped by.
    columns: Sequence[Sql]
    keys: int

    @property
    def sent(self) -> Sql:
        """Return the statement for every shard."""
        sql, params = self.partial
        condition, own = self.check
        return (ownership.checked(sql, condition), (*params, *own)) if condition else (sql, params)

    @property
    def sql(self) -> Sql:
        """Return the statement that finishes."""
        assert not isinstance(self.final, Totals)
        return self.final


def rows(compiler: Any, connections: Sequence[Any]) -> Iterator[Row]:
    """Return the rows of the answer to a compiler's query, with its hidden columns."""
    return answered(compiler, of_select(compiler, connections), connections)


def answered(compiler: Any, statements: Statements, connections: Sequence[Any]) -> Iterator[Row]:
    """Ask every shard for its partial results, and return the finished rows."""
    if statements.compares_text:
        collations.require_same(compiler.query, connections)
    if isinstance(statements.final, Totals):
        return statements.final.finish(executor.run(connections, finishing.fetching(*statements.sent)))
    finish = finishing.in_memory if compiler.connection.vendor == "sqlite" else finishing.on_a_shard
    return iter(finish(compiler.connection, connections, statements))


def verify(compiler: Any) -> None:
    """
    Check that a query whose plan says so can be answered from partial results.

    Raises:
        CannotMerge: it cannot.
    """
    of_select(compiler)


def of_select(compiler: Any, connections: Sequence[Any] = ()) -> Statements:
    """
    Return the statements of a compiler whose pre_sql_setup() has been called; its joins must still be in use.

    Args:
        connections: none, where nothing is asked, and all that the database finishes is verified.
    """
    extra, order_by, _ = compiler.pre_sql_setup()
    having = compiler.having
    select = [*compiler.select, *extra]
    expressions = [expression for expression, _, _ in select]
    leaves = list(aggregates([*expressions, *(ordering.expression for ordering, _ in order_by), having]))
    builder = Builder(compiler, compiler.groups, leaves)
    is_plain = connections and having is None and not compiler.query.distinct and not _is_sliced(compiler)
    here = totals(builder, select, order_by, connections) if is_plain else None
    final = here or _final(builder, select, having, order_by)
    tables, params = compiler.get_from_clause()
    asked, known = (None, None) if compiler.where is None else ownership.apart(compiler.where)
    where, where_params = _where(compiler, asked)
    source = " ".join(tables) + (f" WHERE {where}" if where else "")
    partial = _partial(builder, source, (*params, *where_params))
    return _statements(builder, partial, final, _where(compiler, known))


def of_rows(compiler: Any, select: Sequence[Any], inner: Sql, connections: Sequence[Any]) -> Statements:
    """Return the statements for aggregates over the rows of an inner statement, which no two shards share."""
    builder = Builder(compiler, (), list(aggregates(select)))
    selected = [(expression, None, None) for expression in select]
    final = totals(builder, selected, (), connections) or _final(builder, selected, None, ())
    sql, params = inner
    partial = _partial(builder, f"({sql}) subquery", params)
    return _statements(builder, partial, final)


def _statements(builder: Builder, partial: Sql, final: Sql | Totals, check: Sql = ("", ())) -> Statements:
    columns = tuple(builder.columns)
    return Statements(partial, check, builder.types, final, builder.compares_text, columns, builder.keys)


def _is_sliced(compiler: Any) -> bool:
    return bool(getattr(compiler, "low", 0)) or getattr(compiler, "high", None) is not None


def _partial(builder: Builder, source: str, params: Sequence[Any]) -> Sql:
    columns = ", ".join(f"{sql} AS c{number}" for number, (sql, _) in enumerate(builder.columns))
    sql = f"SELECT {columns or '1 AS c0'} FROM {source}"
    if builder.keys:
        # By position: as expressions with parameters, the keys would not be taken for the selected ones.
        sql += " GROUP BY " + ", ".join(str(number + 1) for number in range(builder.keys))
    own = [param for _, column in builder.columns for param in column]
    return sql, (*own, *params)


def _final(builder: Builder, select: Sequence[Any], having: Any, order_by: Sequence[Any]) -> Sql:
    compiler = builder.compiler
    query = compiler.query
    quote = compiler.connection.ops.quote_name
    params: list[Any] = []
    columns = []
    for expression, _, alias in select:
        finished = builder.finished(expression)
        sql, own = finished.select_format(compiler, *compiler.compile(finished))
        columns.append(f"{sql} AS {quote(alias)}" if alias else sql)
        params.extend(own)
    sql = f"SELECT {'DISTINCT ' if query.distinct else ''}{', '.join(columns)} FROM p"
    if builder.grouped_by:
        sql += " GROUP BY " + ", ".join(builder.grouped_by)
    if having is not None:
        try:
            condition, own = compiler.compile(builder.finished(having))
        except FullResultSet:
            pass
        else:
            sql += f" HAVING {condition}"
            params.extend(own)
    return _ordered(builder, sql, params, order_by)


def _ordered(builder: Builder, sql: str, params: list[Any], order_by: Sequence[Any]) -> Sql:
    compiler = builder.compiler
    # A slice may hold a part of the groups that are equal in order, and the next slice must hold the others.
    sliced = _is_sliced(compiler)
    terms = []
    if not compiler.drops_order:
        for ordering_, _ in order_by:
            copy = ordering_.copy()
            copy.set_source_expressions([builder.finished(ordering_.expression)])
            term, own = compiler.compile(copy)
            terms.append(term)
            params.extend(own)
    if sliced and not compiler.query.distinct:
        terms.extend(builder.grouped_by)
    if terms:
        sql += " ORDER BY " + ", ".join(terms)
    if sliced:
        sql += " " + compiler.connection.ops.limit_offset_sql(compiler.low, compiler.high)
    return sql, tuple(params)


def _where(compiler: Any, condition: Any) -> Sql:
    if condition is None:
        return "", ()
    try:
        sql, params = compiler.compile(condition)
    except EmptyResultSet:
        if compiler.elide_empty:
            raise
        # The aggregates of no rows are asked for.
        return "0 = 1", ()
    except FullResultSet:
        return "", ()
    return sql, tuple(params)
