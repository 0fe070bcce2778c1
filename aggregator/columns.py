"""
Partial results: every shard computes partial results, and one of the databases finishes them in SQL.

So types, NULLs, rounding, collations, HAVING, ORDER BY and expressions over aggregates are the database's own. The
statement of the shards has the groups' keys and the parts of each aggregate as columns c0, c1, …; the statement that
finishes is the original one with each aggregate replaced by one over these columns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from django.core.exceptions import EmptyResultSet, FullResultSet
from django.db.models import (
    Aggregate,
    Avg,
    BooleanField,
    Case,
    Count,
    DecimalField,
    Func,
    Max,
    Min,
    StdDev,
    Sum,
    Variance,
    When,
)
from django.db.models.expressions import Col, RawSQL, Ref, Star, Subquery
from django.db.models.sql import Query

from aggregator import listing, ordering, variance
from aggregator.compiled import Sql, place_of
from aggregator.planner import condition_of, filter_of, is_bitwise, is_listing, names_bucket, sources
from aggregator.refusal import ONE_KEY, cannot_merge

#: Stands for the type of a column of p; no SQL contains it by itself.
TYPE_OF = "\0{}\0"

#: Types that row_to_json() makes something else of: NULL, where jsonb is null.
AS_TEXT = frozenset({"jsonb", "hstore", "hstore[]"})
#: What AVG(x) is computed from exactly, by the type of x: SUM(x) keeps all digits of these.
AVERAGED = frozenset({"smallint", "integer", "bigint", "numeric", "double precision", "interval"})
#: What StdDev(x) and Variance(x) are computed from, by the type of x.
SPREAD = variance.EXACT | {variance.FLOAT}
#: What BitAnd(x), BitOr(x) and BitXor(x) are computed from.
BITS = frozenset({"smallint", "integer", "bigint"})


class Builder:
    """Builds both statements from a compiler whose clauses are resolved."""

    def __init__(self, compiler: Any, groups: Sequence[Any], leaves: Sequence[Any]) -> None:
        self.compiler = compiler
        self.columns: list[Sql] = []
        self.types: list[str] = []
        self.compares_text = False
        #: Partial groups may be finer than the groups of the answer.
        self._splits = False
        self._groups: dict[Any, str] = {}
        for group in groups:
            try:
                column = self._column(group)
            except (EmptyResultSet, FullResultSet):
                # A constant, by which Django does not group.
                continue
            self._groups[group] = self._collate(column, group)
        self.grouped_by = list(self._groups.values())
        # SQLite has no exact sums: the values themselves become group keys, counted.
        spread = [leaf for leaf in leaves if self.is_sqlite and type(leaf) in (StdDev, Variance)]
        self._spread = {id(leaf): self._raw(leaf.get_source_expressions()[0]) for leaf in spread}
        self._listed = {id(leaf): listing.over_parts(self, leaf) for leaf in leaves if is_listing(leaf)}
        # Counting different ids is counting ids: each is on one shard, and in one partial row unless values are keys.
        # Otherwise the values become group keys.
        different = [leaf for leaf in leaves if leaf.distinct and id(leaf) not in self._listed]
        self._pushes_distinct = not (spread or self._listed or self._splits) and all(map(self._on_one_shard, different))
        self._distinct = {id(leaf): self._distinct_column(leaf) for leaf in different if not self._pushes_distinct}
        self.keys = len(self.columns)

    def finished(self, node: Any) -> Any:
        """Return an expression with its groups and aggregates replaced by the columns of the partial results."""
        if isinstance(node, Ref):
            # A position in the SELECT clause or an alias of it, which are the same in the statement that finishes.
            return node
        if id(node) in self._listed:
            return self._listed[id(node)]
        if isinstance(node, Aggregate):
            sql = self._finished(node)
            return RawSQL(sql, (), output_field=node.output_field)
        if node in self._groups:
            return RawSQL(self._groups[node], (), output_field=node.output_field)
        if isinstance(node, (Subquery, Query, Col)):
            what = node.target.name if isinstance(node, Col) else "a subquery"
            raise cannot_merge(self.compiler.query, f"{what} beside aggregates, which is not grouped by", ONE_KEY)
        inner = sources(node)
        if not inner:
            return node
        copy = node.copy()
        copy.set_source_expressions([None if each is None else self.finished(each) for each in inner])
        return copy

    @property
    def is_additive(self) -> bool:
        """Return whether nothing but groups and what is counted once has become a key of the partial results."""
        return not (self._spread or self._listed or self._splits)

    def groups(self) -> dict[Any, int]:
        """Return what is grouped by, with the places of the columns."""
        return {group: self._place(column) for group, column in self._groups.items()}

    def position(self, leaf: Any, function: str) -> int:
        """Return the place of the column with a function of what an aggregate is about."""
        return self._place(self._part(leaf, function))

    def place_of_values(self, leaf: Any) -> int | None:
        """Return the place of the values of a DISTINCT aggregate, or None if the shards can do with its parts."""
        column = self._distinct.get(id(leaf))
        return None if column is None else self._place(column)

    def _place(self, column: str) -> int:
        return int(re.split(r"\D+", column)[1])

    def key(self, expression: Any) -> str:
        """Return the column of an expression by which the partial results are grouped, too."""
        self.compares_text |= ordering.type_of(self.compiler, expression) not in ordering.EXACT
        return self._collate(self._column(expression), expression)

    def _finished(self, leaf: Any) -> str:
        kind = type(leaf)
        if leaf.distinct and not self._pushes_distinct:
            column = self._distinct[id(leaf)]
            return self._typed(leaf, f"{leaf.function}(DISTINCT {column})")
        if kind in (StdDev, Variance):
            return self._deviation(leaf)
        if kind is Avg:
            self._require(leaf, AVERAGED)
            total, number = self._part(leaf, "SUM"), self._part(leaf, "COUNT")
            factor = " * 1.0" if self.is_sqlite else ""
            return self._typed(leaf, f"(SUM({total}){factor} / NULLIF(SUM({number}), 0))")
        if is_bitwise(leaf):
            self._require(leaf, BITS)
        part = self._part(leaf, str(leaf.function))
        if kind not in (Count, Sum, Min, Max):
            return f"{leaf.function}({part})"
        if kind in (Min, Max):
            expression = leaf.get_source_expressions()[0]
            self.compares_text |= ordering.type_of(self.compiler, expression) not in ordering.EXACT
            return self._typed(leaf, f"{leaf.function}({self._collate(part, expression)})")
        # Beside a DISTINCT aggregate, whose values are groups, no rows are no partial rows.
        total = f"COALESCE(SUM({part}), 0)" if kind is Count else f"SUM({part})"
        if self.is_sqlite:
            return self._typed(leaf, total)
        # SUM(bigint) is numeric; the type of the part itself is known when the shards have answered.
        return f"CAST({total} AS {TYPE_OF.format(part[3:])})"

    def _deviation(self, leaf: Any) -> str:
        if self.is_sqlite:
            rows = Aggregate(Star(), function="COUNT", filter=condition_of(leaf))
            number = self._part(rows, "COUNT")
            return self._typed(leaf, variance.of_values(leaf.function, self._spread[id(leaf)], number))
        kind = self._require(leaf, SPREAD)
        number, total = self._part(leaf, "COUNT"), self._part(leaf, "SUM")
        if kind == variance.FLOAT:
            return variance.of_floats(leaf.function, number, total, self._part(leaf, "VAR_POP"))
        squares = leaf.copy()
        expression, *others = leaf.get_source_expressions()
        square = Func(expression, expression, template="((%(expressions)s)::numeric)", arg_joiner=")::numeric * (")
        squares.set_source_expressions([square, *others])
        return variance.of_numbers(leaf.function, number, total, self._part(squares, "SUM"))

    def _part(self, leaf: Any, function: str) -> str:
        try:
            sql, params = leaf.as_sql(self.compiler, self.compiler.connection, function=function)
        except EmptyResultSet:
            never = leaf.copy()
            never.filter = filter_of(leaf, RawSQL("0 = 1", (), output_field=BooleanField()))
            sql, params = never.as_sql(self.compiler, self.compiler.connection, function=function)
        return self._add((sql, tuple(params)), "")

    def _typed(self, leaf: Any, sql: str) -> str:
        # As Django's SQLiteNumericMixin: without it, a number would be compared with a parameter's text.
        if self.is_sqlite and isinstance(leaf.output_field, DecimalField):
            return f"CAST({sql} AS NUMERIC)"
        return sql

    def _require(self, leaf: Any, types: frozenset[str]) -> str:
        kind = ordering.type_of(self.compiler, leaf.get_source_expressions()[0])
        if not self.is_sqlite and kind not in types:
            raise cannot_merge(self.compiler.query, f"{type(leaf).__name__}() over the type {kind}", ONE_KEY)
        return kind

    def _distinct_column(self, leaf: Any) -> str:
        expression = leaf.get_source_expressions()[0]
        return self._collate(self._column(self._counted(leaf)), expression)

    def _counted(self, leaf: Any) -> Any:
        """Return what a DISTINCT aggregate is about: NULL where its filter does not hold."""
        expression = leaf.get_source_expressions()[0]
        if not leaf.filter:
            return expression
        return Case(When(condition_of(leaf), then=expression))

    def _on_one_shard(self, leaf: Any) -> bool:
        expression = leaf.get_source_expressions()[0]
        return type(leaf) is Count and names_bucket(self.compiler.query, expression, with_null=False)

    def _column(self, expression: Any) -> str:
        sql, params = self.compiler.compile(expression)
        kind = ordering.type_of(self.compiler, expression)
        if not self.is_sqlite and kind in AS_TEXT:
            # Equal values may have different texts.
            self._splits = True
            return self._add((f"({sql})::text", tuple(params)), "") + f"::{kind}"
        declared = expression.output_field.db_type(self.compiler.connection) if self.is_sqlite else None
        return self._add((sql, tuple(params)), declared or "")

    def _add(self, sql: Sql, declared: str) -> str:
        place = place_of(sql, self.columns)
        if place is None:
            place = len(self.columns)
            self.columns.append(sql)
            self.types.append(declared)
        return f"p.c{place}"

    def _raw(self, expression: Any) -> str:
        sql, params = self.compiler.compile(expression)
        return self._add((sql, tuple(params)), "")

    def _collate(self, column: str, expression: Any) -> str:
        collation = ordering.collation_of(expression)
        if collation is None:
            return column
        return f"{column} COLLATE {self.compiler.connection.ops.quote_name(collation)}"

    @property
    def is_sqlite(self) -> bool:
        """Return whether it is SQLite's databases that are asked."""
        return bool(self.compiler.connection.vendor == "sqlite")
