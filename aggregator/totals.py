"""
Finishing partial results in Python, where that gives every digit which the database would give.

It spares the second statement, which has the shards wait for a network once more. Whatever needs the database's own
rules is left to it: expressions over aggregates, HAVING, slices, floats, values that Python might not compare alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal
from functools import reduce
from typing import Any

from django.db.models import Avg, Count, Max, Min, Sum
from django.db.models.expressions import Col, Ref

from aggregator import ordering, ranks
from aggregator.columns import Builder
from aggregator.merge import Row, SortKey, identity_of, sorting_key
from aggregator.planner import sources

#: Adds numbers of any size without rounding; infinities of both signs add up to NaN, as in the database.
EXACTLY = Context(prec=100_000, traps=[])
INTEGERS = frozenset({"smallint", "integer", "bigint"})
SUMMED = INTEGERS | {"numeric"}
#: Of equal values of these, it does not matter which one is shown.
COMPARED = INTEGERS | {"date"}
GROUPED = INTEGERS | ordering.TEXT | {"uuid", "date", "boolean"}
#: Equal values are the same in Python. Of dates, not all can be shown there, and none is shown here.
COUNTED = GROUPED - {"date"}

#: PostgreSQL's numbers have digits from 0 to 9999, and a quotient at least so many decimal ones that count.
BASE, DECIMALS_OF_A_DIGIT, SIGNIFICANT = 10_000, 4, 16

#: Gives a value of the answer for the partial rows of one group.
Finish = Callable[[Sequence[Row]], Any]


@dataclass(slots=True)
class Totals:
    """How each column of the answer comes from the partial rows, of which the first columns are the groups' keys."""

    keys: int
    columns: list[Finish] = field(default_factory=list)
    order: Sequence[SortKey] = ()

    def __str__(self) -> str:
        return "by putting together the parts of each group" if self.keys else "by putting together the parts"

    def finish(self, parts: Sequence[Sequence[Row]]) -> Iterator[Row]:
        """Return the rows of the answer to the partial rows of every shard."""
        groups: dict[Any, list[Row]] = {}
        for rows in parts:
            for row in rows:
                groups.setdefault(tuple([identity_of(value) for value in row[: self.keys]]), []).append(row)
        if not self.keys:
            # Of no rows there is one row of aggregates.
            groups.setdefault((), [])
        found = list(groups.values())
        if self.order:
            compare = sorting_key(self.order)
            found.sort(key=lambda rows: compare(rows[0]))
        return (tuple([finish(rows) for finish in self.columns]) for rows in found)


def totals(
    builder: Builder, select: Sequence[Any], order_by: Sequence[Any], connections: Sequence[Any]
) -> Totals | None:
    """
    Return how the rows of ``select`` are finished here, or None: by the database.

    Args:
        select: each with an expression first, as Django's compilers keep them.
        connections: where text must be sorted alike, if it is sorted.
    """
    groups, places = list(builder.groups()), list(builder.groups().values())
    made = Totals(len(groups))
    # Where values have become keys, too, they come after the groups.
    if not builder.is_additive or places != list(range(len(groups))) or (builder.keys and builder.is_sqlite):
        return None
    if not all(_is_column(group) and _type_of(builder, group) in GROUPED for group in groups):
        return None
    for expression, *_ in select:
        finish = _finish(builder, groups, expression)
        if finish is None or _is_formatted(builder, expression):
            return None
        made.columns.append(finish)
    order = _order(builder, groups, order_by, connections)
    if order is None:
        return None
    made.order = order
    return made


def _finish(builder: Builder, groups: Sequence[Any], expression: Any) -> Finish | None:
    """Return how a column of the answer is made, or None."""
    if expression in groups:
        position = groups.index(expression)
        return lambda rows: rows[0][position]
    kind = type(expression)
    if kind not in (Count, Sum, Avg, Min, Max):
        return None
    (source, *_) = expression.get_source_expressions()
    values = builder.place_of_values(expression)
    if kind is Count and values is None:
        return _number(builder.position(expression, "COUNT"))
    of = _type_of(builder, source)
    if values is not None:
        return _different(values) if kind is Count and of in COUNTED and _is_column(source) else None
    if kind is Sum:
        return _total(builder.position(expression, "SUM")) if of in SUMMED else None
    # Only of a column is it sure that it has the type which is declared.
    if builder.is_sqlite or not _is_column(source):
        return None
    if kind is Avg:
        total, number = builder.position(expression, "SUM"), builder.position(expression, "COUNT")
        return _average(_total(total), _number(number)) if of in INTEGERS else None
    choose = max if kind is Max else min
    return _chosen(builder.position(expression, expression.function), choose) if of in COMPARED else None


def _total(position: int) -> Finish:
    return lambda rows: summed([row[position] for row in rows if row[position] is not None])


def _number(position: int) -> Finish:
    return lambda rows: sum([row[position] for row in rows])


def _different(position: int) -> Finish:
    return lambda rows: len({row[position] for row in rows if row[position] is not None})


def _chosen(position: int, choose: Callable[..., Any]) -> Finish:
    return lambda rows: choose((row[position] for row in rows if row[position] is not None), default=None)


def _average(total: Finish, number: Finish) -> Finish:
    return lambda rows: quotient(int(total(rows)), count) if (count := number(rows)) else None


def summed(values: Sequence[Any]) -> Any:
    """Return the sum of values without rounding; of none, it is NULL."""
    if not values:
        return None
    if Decimal in set(map(type, values)):
        return reduce(EXACTLY.add, values)
    return sum(values)


def quotient(total: int, number: int) -> Decimal:
    """Return ``total / number`` with as many digits as PostgreSQL gives, which depends on the digits of both."""
    weight, first = _leading(abs(total))
    divisor_weight, divisor_first = _leading(number)
    quotient_weight = weight - divisor_weight - (first <= divisor_first)
    scale = max(SIGNIFICANT - quotient_weight * DECIMALS_OF_A_DIGIT, 0)
    # Half is rounded away from zero.
    digits = (abs(total) * 10**scale * 2 + number) // (number * 2)
    return Decimal(("-" if total < 0 and digits else "") + str(digits)).scaleb(-scale, EXACTLY)


def _leading(number: int) -> tuple[int, int]:
    """Return how many digits to the base of 10000 follow the first one of a number, and that."""
    weight = 0
    while number >= BASE:
        number //= BASE
        weight += 1
    return weight, number


def _order(
    builder: Builder, groups: Sequence[Any], order_by: Sequence[Any], connections: Sequence[Any]
) -> Sequence[SortKey] | None:
    compiler = builder.compiler
    if not order_by or compiler.drops_order:
        return ()
    by_column = []
    for each, _ in order_by:
        expression = sources(each.expression)[0] if isinstance(each.expression, Ref) else each.expression
        if expression not in groups:
            return None
        copy = each.copy()
        copy.set_source_expressions([expression])
        by_column.append((copy, None))
    order = ordering.order_of(compiler, by_column, [(group, compiler.compile(group), None) for group in groups])
    if order.hidden or not all(ranks.sorts_by_code_points(connections, kind) for kind in order.kinds.values()):
        return None
    return order.keys


def _is_column(expression: Any) -> bool:
    return type(expression) is Col and ordering.collation_of(expression) is None


def _type_of(builder: Builder, expression: Any) -> str:
    return ordering.type_of(builder.compiler, expression)


def _is_formatted(builder: Builder, expression: Any) -> bool:
    """Return whether a field has its column selected in a way of its own."""
    return bool(expression.select_format(builder.compiler, "c", ()) != ("c", ()))
