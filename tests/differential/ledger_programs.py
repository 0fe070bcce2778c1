"""
Random reads of ledgers, whose primary key has two columns; as plain values.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, F, Max, Q, QuerySet
from hypothesis import strategies as st

from aggregator import fan_out
from tests.differential.data import REFERENCE, TENANTS, save
from tests.shop.models import Ledger

TEXTS = ("", "a", "B", "é")
NUMBERS = (0, 1, 2, 5)
FIELDS = ("pk", "number", "text", "tenant_id")


@dataclass(frozen=True)
class Read:
    """One question."""

    #: (lookup, value)
    where: tuple[tuple[str, Any], ...]
    #: rows, values_list, count, group, aggregate, in_bulk
    shape: str
    fields: tuple[str, ...]
    order: tuple[str, ...]
    distinct: bool
    bounds: tuple[int, int] | None


_pairs = st.tuples(st.sampled_from(TENANTS), st.sampled_from(NUMBERS))
_lookups = st.one_of(
    st.tuples(st.just("number__lte"), st.sampled_from(NUMBERS)),
    st.tuples(st.just("text"), st.sampled_from(TEXTS)),
    st.tuples(st.just("tenant_id__in"), st.lists(st.sampled_from(TENANTS), min_size=1, max_size=6)),
    st.tuples(st.just("pk__in"), st.lists(_pairs, min_size=1, max_size=6)),
    st.tuples(st.just("pk"), _pairs),
    st.tuples(st.just("pk__gt"), _pairs),
    st.tuples(st.just("pk__lte"), _pairs),
)
_names = st.sampled_from([*FIELDS, *(f"-{name}" for name in FIELDS)])

programs = st.builds(
    Read,
    where=st.lists(_lookups, max_size=2).map(tuple),
    shape=st.sampled_from(["rows", "rows", "values_list", "values_list", "count", "group", "aggregate", "in_bulk"]),
    fields=st.lists(st.sampled_from(FIELDS), min_size=1, max_size=3, unique=True).map(tuple),
    order=st.lists(_names, max_size=2, unique_by=lambda name: name.removeprefix("-")).map(tuple),
    distinct=st.booleans(),
    bounds=st.none() | st.tuples(st.integers(0, 6), st.integers(1, 12)),
)


def load() -> None:
    rng = random.Random(20_130_101)
    pairs = [(key, number) for key in TENANTS for number in NUMBERS]
    save(Ledger, [Ledger(tenant_id=key, number=number, text=rng.choice(TEXTS)) for key, number in pairs])


def clear() -> None:
    fan_out(Ledger.objects).delete()
    Ledger.objects.using(REFERENCE).all()._raw_delete(REFERENCE)


def run(program: Read, side: str) -> Any:
    rows: QuerySet[Any] = Ledger.objects.using(REFERENCE) if side == REFERENCE else fan_out(Ledger.objects)
    for lookup in program.where:
        rows = rows.filter(Q(lookup))
    if program.shape == "aggregate":
        return rows.aggregate(n=Count("pk"), last=Max("text"), texts=Count("text", distinct=True))
    if program.shape == "group":
        rows = rows.values(*program.fields).annotate(n=Count("text"), most=Max("number"))
        return list(_cut(program, rows.order_by(*_total(program, program.fields))))
    if program.shape == "in_bulk":
        return {pk: row.text for pk, row in rows.in_bulk().items()}
    if program.shape == "values_list":
        return list(_cut(program, _values(program, rows)))
    rows = _cut(program, (rows.distinct() if program.distinct else rows).order_by(*_total(program, ("pk",))))
    return rows.count() if program.shape == "count" else [(row.pk, row.text, row.bucket) for row in rows]


def _values(program: Read, rows: QuerySet[Any]) -> QuerySet[Any]:
    # Beside such a key, Django's own DISTINCT would cut columns off the rows, for which it selects the order as well.
    if not program.distinct or "pk" in program.fields:
        return rows.order_by(*_total(program, ("pk",))).values_list(*program.fields)
    order = [name for name in program.order if name.removeprefix("-") in program.fields]
    return rows.distinct().order_by(*order, *program.fields).values_list(*program.fields)


def _total(program: Read, last: tuple[str, ...]) -> list[Any]:
    """Return a total order, so that there is one right answer."""
    order = [name for name in program.order if program.shape != "group" or name.removeprefix("-") in last]
    return [*order, *(F(name) if name != "pk" else name for name in last)]


def _cut(program: Read, rows: QuerySet[Any]) -> QuerySet[Any]:
    return rows if program.bounds is None else rows[program.bounds[0] : sum(program.bounds)]
