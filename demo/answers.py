"""
Answers as values that can be compared and shown: rows with all their columns, and every value with its type.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.db.models import Model, QuerySet

#: Rows that are shown of a long answer.
SHOWN = 3


def exact(answer: Any) -> Any:
    """
    Return ``answer`` as plain values that are equal only if the answers are.

    Two objects of a model are equal to Django when their ids are; here every column counts. So do types: 1, 1.0, True
    and Decimal(1) differ.
    """
    if isinstance(answer, Model):
        columns = {field.attname: exact(getattr(answer, field.attname)) for field in answer._meta.concrete_fields}
        return answer._meta.label, columns
    if isinstance(answer, Mapping):
        return {key: exact(value) for key, value in answer.items()}
    if isinstance(answer, (list, tuple, QuerySet)):
        return [exact(each) for each in answer]
    return type(answer).__name__, answer


def difference(cluster: Any, reference: Any) -> str | None:
    """Return the first difference of two answers, in a sentence, or None if there is none."""
    if exact(cluster) == exact(reference):
        return None
    if isinstance(cluster, list) and isinstance(reference, list):
        if len(cluster) != len(reference):
            return f"{len(cluster)} rows from the cluster, {len(reference)} from one database"
        place = next(i for i, (a, b) in enumerate(zip(cluster, reference, strict=True)) if exact(a) != exact(b))
        return f"row {place + 1}: {difference(cluster[place], reference[place])}"
    if isinstance(cluster, Model) and type(cluster) is type(reference) and cluster.pk == reference.pk:
        return f"{cluster!r}: {difference(_columns(cluster), _columns(reference))}"
    if isinstance(cluster, Mapping) and isinstance(reference, Mapping) and cluster.keys() == reference.keys():
        name = next(name for name in cluster if exact(cluster[name]) != exact(reference[name]))
        return f"{name} is {cluster[name]!r} in the cluster, {reference[name]!r} in one database"
    return f"{cluster!r} instead of {reference!r}"


def lines(answer: Any) -> list[str]:
    """Return an answer in a few lines for a reader."""
    if isinstance(answer, str):
        return answer.splitlines()
    if isinstance(answer, (list, QuerySet)):
        rows = list(answer)
        left = len(rows) - SHOWN
        more = [f"… and {left:,} more"] if left > 1 else [_line(each) for each in rows[SHOWN:]]
        return [_line(each) for each in rows[:SHOWN]] + more or ["no rows"]
    return [_line(answer)]


def _line(answer: Any) -> str:
    if isinstance(answer, Model):
        return _pairs(_told(answer))
    if isinstance(answer, Mapping):
        return _pairs(answer.items())
    if isinstance(answer, tuple):
        return ", ".join(_value(each) for each in answer)
    return _value(answer)


def _told(instance: Model) -> Iterable[tuple[str, Any]]:
    yield instance._meta.object_name or "", str(instance)
    for field in instance._meta.concrete_fields:
        if field.get_internal_type() == "DateTimeField":
            yield field.name, getattr(instance, field.attname)


def _columns(instance: Model) -> dict[str, Any]:
    return {field.attname: getattr(instance, field.attname) for field in instance._meta.concrete_fields}


def _pairs(pairs: Iterable[tuple[str, Any]]) -> str:
    return "  ".join(f"{name} {_value(value)}" for name, value in pairs)


def _value(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        # Years and flight numbers are no quantities.
        return f"{value:,}" if value >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:%Y-%m-%d %H:%M}" if hasattr(value, "hour") else str(value)
