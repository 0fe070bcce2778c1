"""
The SELECT clause of whole rows, which is the same for every query of a model: Django's own is kept.

To make it is the longest part of compiling a query that has no joins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.models import Field
from django.db.models.expressions import Col

#: What Django's get_select() returns: the columns, a klass_info, and the places of annotations.
Select = tuple[list[Any], dict[str, Any] | None, dict[str, int]]

#: {(model, kind of database): (its fields, the SELECT clause of all of them)}
_kept: dict[tuple[Any, Any], tuple[Any, tuple[Any, ...]]] = {}


def select(compiler: Any, make: Callable[[], Select]) -> Select:
    """Return the SELECT clause of a compiler, which ``make`` makes."""
    query = compiler.query
    if not _are_wanted(query):
        return make()
    place, fields = (query.model, type(compiler.connection.ops)), query.get_meta().concrete_fields
    of, columns = _kept.get(place, (None, ()))
    if of is not fields or not columns:
        made = make()
        # A field that is not plain stays so.
        _kept[place] = fields, tuple(made[0]) if of is not fields and all(map(_is_plain, made[0])) else ()
        return made
    return list(columns), {"model": query.model, "select_fields": list(range(len(columns)))}, {}


def _are_wanted(query: Any) -> bool:
    """Return whether a query selects all columns of one table, under the table's own name, and nothing else."""
    options = query.get_meta()
    return (
        query.default_cols
        and not query.deferred_loading[0]
        and query.selected is None
        and not (query.extra or query.annotations or query.select_related)
        and not options.parents
        and query.base_table == options.db_table
    )


def _is_plain(selected: Any) -> bool:
    """Return whether a column's SQL is its name: fields may select theirs in a way of their own."""
    expression, (_, params), alias = selected
    if type(expression) is not Col or params or alias is not None:
        return False
    return type(expression.output_field).select_format is Field.select_format
