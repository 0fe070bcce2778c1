"""
The steps by which the answers of several shards become one, as ``explain()`` shows them; nothing is sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from django.db.models.expressions import Col

from aggregator import compilers, ordering, partials
from aggregator.gather import Gathering
from aggregator.merge import SortKey
from aggregator.partials import Statements
from aggregator.planner import Tier
from aggregator.totals import Totals
from sharding import cluster_map, ownership
from sharding.operations.steps import MergeKey, Statement, Steps


def steps_of(planned: Any, shards: tuple[str, ...]) -> Steps:
    """Return the steps of a compiler that has planned a SELECT statement."""
    if isinstance(planned, Gathering):
        return _of_gather(planned, shards)
    # The joins of the one that has planned are out of use.
    request = replace(planned.request, query=planned.request.query.clone())
    compiler = compilers.compiler_for(request)
    with compiler.connection.sharded_statements():
        if len(shards) == 1:
            # Django's own statement.
            return Steps((_statement(shards, compiler.as_sql()),))
        if planned.plan.tier is Tier.PARTIALS:
            return _of_partials(compiler, shards)
        compiler.oracle = planned.oracle
        return _of_merge(compiler, shards)


def _statement(databases: tuple[str, ...], compiled: tuple[str, Iterable[Any]]) -> Statement:
    return Statement(databases, *ownership.as_asked(*compiled))


def _of_gather(compiler: Any, shards: tuple[str, ...]) -> Steps:
    sql, params, reads = compiler.reads()
    home = compiler.place(reads)
    if compiler.has_all_rows(home):
        return Steps((Statement(shards, sql, tuple(params)),))
    place = "in memory" if home.vendor == "sqlite" else f"on {home.alias}"
    tables = [
        f"{table.name} ({', '.join(field.column for field in table.fields)})"
        f"{'' if table.where is None else f' WHERE {Statement((), *table.where)}'}"
        for table in reads.tables(sql, home)
    ]
    return Steps(
        gathered=tuple(tables),
        finisher=f"{place}, where each of these has the rows of all shards",
        finishing=_statement((home.alias,), (sql, params)),
    )


def _of_merge(compiler: Any, shards: tuple[str, ...]) -> Steps:
    statement = _statement(shards, compiler.as_sql())
    selected = [column for each, _, _ in compiler.select for column in ordering.columns_of(each)]
    extra = [each for each, _, _ in compiler.pre_sql_setup()[0]]
    everything = [*selected, *extra]
    return Steps(
        (statement,),
        columns=tuple(_named(compiler, selected)),
        hidden=tuple(_named(compiler, extra)),
        keys=tuple(_merge_key(compiler, key, everything) for key in compiler.order.keys),
        distinct=compiler.plan.distinct,
        low=compiler.low,
        high=compiler.high,
    )


def _of_partials(compiler: Any, shards: tuple[str, ...]) -> Steps:
    statements = partials.of_select(compiler, [cluster_map.connection_of(alias) for alias in shards])
    names = [f"c{number} = {Statement((), *column)}" for number, column in enumerate(statements.columns)]
    return Steps(
        (_statement(shards, statements.partial),),
        groups=tuple(names[: statements.keys]),
        parts=tuple(names[statements.keys :]),
        **_finished(compiler, statements),
    )


def _finished(compiler: Any, statements: Statements) -> dict[str, Any]:
    if isinstance(statements.final, Totals):
        return {"finisher": f"in Python, {statements.final}"}
    sql, params = statements.final
    databases = () if compiler.connection.vendor == "sqlite" else (compiler.connection.alias,)
    place = " ".join(["on", *databases]) if databases else "in memory"
    shown = re.sub("\0(\\d+)\0", r"type_of_c\1", sql)
    return {
        "finisher": f"{place}, where p has the rows of all shards",
        "finishing": Statement(databases, shown, tuple(params)),
    }


def _merge_key(compiler: Any, key: SortKey, columns: list[Any]) -> MergeKey:
    [name] = _named(compiler, [columns[key.position]])
    asked = compiler.oracle.order.get(key.position)
    kind = compiler.order.kinds.get(key.position)
    if asked is not None:
        compared = f"by the ranks that {compiler.connection.alias} gives ({asked.collation or asked.type})"
    elif key.read is not None:
        compared = "in Python, as moments"
    else:
        compared = "in Python" if kind is None else "in Python, by code points"
    return MergeKey(name, key.descending, key.nulls_first, compared)


def _named(compiler: Any, expressions: Iterable[Any]) -> Iterable[str]:
    """Yield the columns as a reader of the query calls them."""
    aliases = {id(expression): alias for expression, _, alias in compiler.select}
    for each in expressions:
        alias = aliases.get(id(each))
        if isinstance(each, Col):
            own = each.alias == compiler.query.base_table
            yield each.target.name if own else f"{each.alias}.{each.target.name}"
        else:
            yield alias or ordering.named(each)
