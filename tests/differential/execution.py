"""
Runs a program on one side, the cluster or the reference database, and returns something comparable.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

from django.contrib.postgres.aggregates import BoolAnd, BoolOr
from django.db import transaction
from django.db.models import Avg, Count, F, Max, Min, Q, QuerySet, StdDev, Sum, Variance
from django.db.models.functions import Upper

from aggregator import fan_out
from tests.aggregates import BitOr, BitXor, listing
from tests.differential import foreign_keys, gathered
from tests.differential.conditions import ELSEWHERE
from tests.differential.data import REFERENCE
from tests.differential.programs import Read, Write
from tests.shop.models import Country, Line, Order

ROW = ("id", "tenant_id", "customer_id", "status", "total", "quantity", "weight", "created")
STATE = ("tenant_id", "customer__name", "status", "total", "quantity", "weight", "created")


class _RollBack(Exception):
    """Ends the atomic block of a write program."""


def run(program: Read | Write, side: str) -> Any:
    """Return the answer of a read program, or the rows that a write program leaves behind."""
    return _read(program, side) if isinstance(program, Read) else _write(program, side)


def matching_tenants(program: Read | Write) -> set[int]:
    """Return the tenants whose rows a program touches, by asking the reference database."""
    if isinstance(program, Read):
        return _tenants(program.reach, program.keys, program.where)
    found: set[int] = set()
    for name, detail in program.changes:
        if name in {"update", "delete"}:
            found |= _tenants(*detail)
        elif name == "bulk_create":
            found |= set(detail)
        elif name == "foreign key":
            found |= set(detail[0])
    return found


def same(a: Any, b: Any) -> bool:
    """Compare two answers; sums of floats depend on the order of addition."""
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b and type(a) is type(b))


def _tenants(reach: str, keys: tuple[int, ...], where: Any) -> set[int]:
    rows = _reached(reach, keys, REFERENCE).filter(where.q() if where else Q())
    return set(rows.order_by().values_list("tenant_id", flat=True).distinct())


def _found(reach: str, keys: tuple[int, ...], where: Any, side: str) -> QuerySet[Any]:
    rows = _reached(reach, keys, side)
    if side != REFERENCE and where and where.constructs() & ELSEWHERE:
        # Written where it is asked.
        rows = fan_out(rows)
    return rows.filter(where.q()) if where else rows


def _reached(reach: str, keys: tuple[int, ...], side: str) -> QuerySet[Any]:
    rows: Any = Order.objects.using(REFERENCE) if side == REFERENCE else Order.objects.all()
    if reach == "one-key":
        return rows.filter(tenant_id=keys[0])
    if reach == "several-keys":
        return rows.filter(tenant_id__in=keys)
    return rows.all() if side == REFERENCE else fan_out(rows)


def _read(program: Read, side: str) -> Any:
    rows = _found(program.reach, program.keys, program.where, side)
    if program.shape == "group":
        return _group(program, rows)
    if program.shape == "aggregate":
        return rows.aggregate(**_aggregates(program))
    if program.shape in gathered.SHAPES:
        return gathered.answer(program, rows)
    return _rows(program, rows)


def _rows(program: Read, rows: QuerySet[Any]) -> Any:
    as_values = program.shape in {"values", "values_list"}
    if program.distinct:
        rows = rows.distinct()
    if program.order or program.bounds or program.shape in {"first", "last"}:
        # A total order, so that there is one right answer.
        last = program.fields if program.distinct and as_values else ("pk",)
        rows = rows.order_by(*map(_ordering, program.order), *last)
    if as_values:
        rows = getattr(rows, program.shape)(*program.fields)
    if program.bounds and program.shape not in {"first", "last"}:
        rows = rows[program.bounds[0] : sum(program.bounds)]
    if program.shape in {"count", "exists"}:
        return getattr(rows, program.shape)()
    if program.shape in {"first", "last"}:
        found = getattr(rows, program.shape)()
        return found and _row(found)
    found = [_row(each) if program.shape == "rows" else each for each in rows]
    return found if program.order or program.bounds else sorted(map(repr, found))


def _row(order: Order) -> tuple[Any, ...]:
    return tuple(getattr(order, name) for name in ROW)


def _ordering(order: tuple[str, bool, str]) -> Any:
    name, descending, nulls = order
    flags: dict[str, bool] = {f"nulls_{nulls}": True} if nulls else {}
    return F(name).desc(**flags) if descending else F(name).asc(**flags)


def _group(program: Read, rows: QuerySet[Any]) -> Any:
    rows = rows.values(*program.fields).annotate(n=Count("pk"), **_aggregates(program))
    if program.having is not None:
        rows = rows.filter(n__gte=program.having)
    rows = rows.order_by(*(["-n"] if program.order_by_aggregate else []), *program.fields)
    return list(rows[program.bounds[0] : sum(program.bounds)] if program.bounds else rows)


def _aggregates(program: Read) -> dict[str, Any]:
    kinds: dict[str, Callable[[str], Any]] = {
        "Count": Count,
        "Sum": Sum,
        "Min": Min,
        "Max": Max,
        "Avg": Avg,
        "StdDev": StdDev,
        "StdDev sample": lambda name: StdDev(name, sample=True),
        "StdDev filter": lambda name: StdDev(name, filter=Q(status="paid")),
        "Variance": Variance,
        "Variance sample": lambda name: Variance(name, sample=True),
        "BitXor": BitXor,
        "BitOr": BitOr,
        "BoolAnd": lambda name: BoolAnd(Q(**{f"{name}__gt": 0})),
        "BoolOr": lambda name: BoolOr(Q(**{f"{name}__gt": 0})),
        "ArrayAgg": lambda name: listing("ArrayAgg", name, order=(name, "pk")),
        "StringAgg distinct": lambda name: listing("StringAgg", name, order=(name,), distinct=True),
        "Count distinct": lambda name: Count(name, distinct=True),
        "Sum filter": lambda name: Sum(name, filter=Q(status="paid")),
        "Sum default": lambda name: Sum(name, default=0),
    }
    return {f"a{place}": kinds[kind](name) for place, (kind, name) in enumerate(program.aggregates)}


def _write(program: Write, side: str) -> Any:
    using = REFERENCE if side == REFERENCE else "default"
    answers: list[Any] = []
    try:
        with transaction.atomic(using=using):
            for change in program.changes:
                answers.append(_change(change, side))
            if program.savepoint:
                try:
                    with transaction.atomic(using=using):
                        for change in reversed(program.changes):
                            _change(change, side)
                        raise _RollBack
                except _RollBack:
                    pass
            answers.append(_state(side))
            raise _RollBack
    except _RollBack:
        answers.append(_state(side))
    return answers


def _change(change: tuple[str, Any], side: str) -> Any:
    name, detail = change
    if name in {"update", "delete"}:
        reach, keys, where = detail
        rows = _found(reach, keys, where, side)
        return rows.update(quantity=F("quantity") + 1, status="upd") if name == "update" else rows.delete()
    if name == "foreign key":
        return foreign_keys.write(*detail, side=side)
    if name.endswith("a country"):
        return _change_country(name, detail, side)
    manager: Any = Order.objects.using(REFERENCE) if side == REFERENCE else Order.objects
    if name == "bulk_create":
        made = manager.bulk_create([Order(tenant_id=key, status="bulk", quantity=key) for key in detail])
        return [each.tenant_id for each in made if each.pk]
    if name == "save":
        return _save(detail, side)
    tenant, number = detail
    order, created = manager.get_or_create(tenant_id=tenant, status=f"goc{number}", defaults={"quantity": number})
    return order.quantity, created


def _change_country(name: str, detail: Any, side: str) -> Any:
    countries: Any = Country.objects.using(REFERENCE) if side == REFERENCE else Country.objects
    if name == "make a country":
        country, created = countries.get_or_create(
            code=f"{detail}", defaults={"id": 1000 + detail, "name": "new", "rate": detail}
        )
        return country.rate, created
    if name == "delete a country":
        return countries.filter(code=detail).delete()
    return countries.filter(code=detail).update(name=Upper("name"), rate=F("rate") * 2 + 1)


def _save(place: int, side: str) -> Any:
    found = _reached("all-shards", (), side).order_by("pk")[place : place + 1]
    for order in found:
        order.quantity = 99
        order.save()
    return len(found)


def _state(side: str) -> Any:
    orders = _reached("all-shards", (), side).values_list(*STATE)
    lines: Any = Line.objects.using(REFERENCE) if side == REFERENCE else fan_out(Line.objects)
    return (
        sorted(map(repr, orders)),
        sorted(Counter(lines.values_list("tenant_id", "product", "order__status")).items()),
        _countries(side),
    )


def _countries(side: str) -> Any:
    """Return every country, and how many orders each shard finds there by its own copy."""
    countries: Any = Country.objects.using(REFERENCE) if side == REFERENCE else Country.objects
    orders = _reached("all-shards", (), side).order_by().values("customer__country__name", "customer__country__rate")
    return (
        sorted(map(repr, countries.values_list("code", "name", "rate", "currency"))),
        sorted(
            map(
                repr,
                orders.annotate(n=Count("pk")).values_list("customer__country__name", "customer__country__rate", "n"),
            )
        ),
    )
