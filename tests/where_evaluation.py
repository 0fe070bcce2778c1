"""
An evaluator of WHERE clauses in Python, with SQL's three truth values: what a row's columns make of a condition.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from django.db.models.expressions import Col, ColPairs, ExpressionList, Value
from django.db.models.lookups import Exact, GreaterThanOrEqual, In, IsNull, LessThan
from django.db.models.sql import Query
from django.db.models.sql.where import AND, OR, NothingNode, WhereNode

#: True, False, or None for SQL's unknown.
Truth = bool | None

#: {(table, attname): value}; every table that the query joins.
Row = Mapping[tuple[str, str], Any]


def matches(query: Query, row: Row) -> bool:
    """Return whether the database would find ``row``, which the query's joins have put together."""
    return _truth(query.where, row) is True


def _truth(node: Any, row: Row) -> Truth:
    if isinstance(node, WhereNode):
        return _of_children(node, row)
    if isinstance(node, NothingNode):
        return False
    if isinstance(node, IsNull):
        return (_value(node.lhs, row) is None) == node.rhs
    if isinstance(node, In):
        choices = node.rhs.get_source_expressions() if isinstance(node.rhs, ExpressionList) else node.rhs
        return _is_in(_value(node.lhs, row), [_value(each, row) for each in choices])
    return _compared(_comparison(node), _value(node.lhs, row), _value(node.rhs, row))


def _of_children(node: WhereNode, row: Row) -> Truth:
    found = [_truth(child, row) for child in node.children]
    if node.connector == AND:
        truth: Truth = False if False in found else None if None in found else True
    elif node.connector == OR:
        truth = True if True in found else None if None in found else not found
    else:
        truth = None if None in found else sum(map(bool, found)) % 2 == 1
    return truth if truth is None else truth != node.negated


def _comparison(node: Any) -> Callable[[Any, Any], bool]:
    for lookup, function in ((Exact, operator.eq), (GreaterThanOrEqual, operator.ge), (LessThan, operator.lt)):
        if isinstance(node, lookup):
            return function
    raise TypeError(f"Nothing is known of the condition {node!r}.")


def _compared(function: Callable[[Any, Any], bool], left: Any, right: Any) -> Truth:
    if isinstance(left, tuple):
        parts = [_compared(function, *pair) for pair in zip(left, right, strict=True)]
        return False if False in parts else None if None in parts else True
    return None if left is None or right is None else function(left, right)


def _is_in(value: Any, choices: list[Any]) -> Truth:
    # Django leaves NULLs out of the list, and sends no empty one.
    found = [_compared(operator.eq, value, choice) for choice in choices if choice is not None]
    return True if True in found else None if None in found else False


def _value(expression: Any, row: Row) -> Any:
    if isinstance(expression, ColPairs):
        return tuple(_value(each, row) for each in expression.get_cols())
    if isinstance(expression, Col):
        return row[expression.target.model._meta.db_table, expression.target.attname]
    if isinstance(expression, Value):
        return expression.value
    if isinstance(expression, (WhereNode, Exact, In, IsNull, GreaterThanOrEqual, LessThan)):
        return _truth(expression, row)
    if isinstance(expression, (list, tuple)):
        return tuple(_value(each, row) for each in expression)
    if hasattr(expression, "resolve_expression"):
        raise TypeError(f"Nothing is known of the expression {expression!r}.")
    return expression
