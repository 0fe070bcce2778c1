"""
Whether a statement gives the same row several times, so that its primary key tells no row of the answer from another.
"""

from __future__ import annotations

from typing import Any

from django.db.models.expressions import Col


def repeats_rows(query: Any) -> bool:
    """Return whether a row may come once for each of the rows that it is joined to."""
    if query.distinct or query.group_by is not None:
        return False
    used = [join for alias, join in query.alias_map.items() if query.alias_refcount[alias]]
    fields = [getattr(join, "join_field", None) for join in used]
    return any(field.one_to_many or field.many_to_many for field in fields if field is not None)


def repeats_by_join(query: Any, expression: Any) -> bool:
    """Return whether a resolved expression reads, outside aggregates, a table of which several rows may be joined."""
    if query.distinct or getattr(expression, "contains_aggregate", False):
        return False
    if isinstance(expression, Col):
        alias = expression.alias
        while alias in query.alias_map:
            join = query.alias_map[alias]
            field = getattr(join, "join_field", None)
            if field is not None and (field.one_to_many or field.many_to_many):
                return True
            alias = join.parent_alias
        return False
    return any(repeats_by_join(query, each) for each in expression.get_source_expressions() if each is not None)
