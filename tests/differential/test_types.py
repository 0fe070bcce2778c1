"""
Random questions about columns of every type, of a cluster and of one database: what sorts first, what is equal.

Of values that are equal, such as 1.0 and 1.00, any one may stand for all, as in one database.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from django.db import DatabaseError, transaction
from django.db.models import Count, F, Max, Min, QuerySet
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from aggregator import fan_out
from sharding.testing import cluster
from tests import servers
from tests.differential import kinds
from tests.differential.data import REFERENCE
from tests.differential.kinds import KINDS, WITHOUT_MAXIMUM

PROGRAMS = min(200, int(os.environ.get("SHARDKIT_DIFFERENTIAL_PROGRAMS", 2_200)) // 5)
LONG = 20_000
BATCH = 50
SHAPES = ("rows", "streamed", "distinct", "groups", "aggregates")
NULLS = ("", "first", "last")

pytestmark = [pytest.mark.django_db(databases="__all__"), pytest.mark.differential]

#: A column, whether it is descending, and where NULLs are.
Order = tuple[str, bool, str]


@dataclass(frozen=True, slots=True)
class Question:
    shape: str
    orders: tuple[Order, ...]
    others: tuple[str, ...]
    bounds: tuple[int, int] | None
    by_number: bool


columns = st.sampled_from(sorted(KINDS))
questions = st.builds(
    Question,
    shape=st.sampled_from(SHAPES),
    orders=st.lists(
        st.tuples(columns, st.booleans(), st.sampled_from(NULLS)),
        min_size=2,
        max_size=3,
        unique_by=lambda order: order[0],
    ).map(tuple),
    others=st.lists(st.sampled_from(sorted(KINDS.keys() - WITHOUT_MAXIMUM)), min_size=1, max_size=2, unique=True).map(
        tuple
    ),
    bounds=st.none() | st.tuples(st.integers(0, 12), st.integers(1, 20)),
    by_number=st.booleans(),
)


@pytest.fixture(scope="module")
def model(django_db_setup: None, django_db_blocker: Any) -> Iterator[Any]:
    with django_db_blocker.unblock(), cluster.owners(*servers.SHARDS), kinds.table() as made:
        yield made


@pytest.mark.parametrize("name", KINDS)
def test_each_type(model: Any, name: str) -> None:
    """Every direction and place of NULLs, in rows, among different values and in groups."""
    for shape in SHAPES[:4]:
        for descending in (False, True):
            for nulls in NULLS:
                other = "int" if name in WITHOUT_MAXIMUM else name
                expected = check(model, Question(shape, ((name, descending, nulls),), (other,), None, False))
                assert not isinstance(expected, str), expected
                assert len(expected) > 1


def test_several_columns(model: Any, request: pytest.FixtureRequest) -> None:
    programs = LONG if request.config.getoption("--long") else PROGRAMS

    def compare(question: Question) -> None:
        check(model, question)

    for number in range(programs // BATCH):
        options = settings(max_examples=BATCH, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        seed(number)(options(given(questions)(compare)))()


def check(model: Any, question: Question) -> Any:
    """Compare the answers of the cluster and of one database, or their kinds of error, and return them."""
    expected = answer(question, model.objects.using(REFERENCE), REFERENCE)
    found = answer(question, fan_out(model.objects), "default")
    assert found == expected, question
    return expected


def answer(question: Question, rows: QuerySet[Any], alias: str) -> Any:
    """Return the answer as plain values, or the kind of error."""
    try:
        with transaction.atomic(using=alias):
            return plain(ask(question, rows))
    except DatabaseError as error:
        return type(error).__name__


def ask(question: Question, rows: QuerySet[Any]) -> Any:
    orders = [_order(*order) for order in question.orders]
    names = [name for name, _, _ in question.orders]
    chosen = slice(None) if question.bounds is None else slice(question.bounds[0], sum(question.bounds))
    if question.shape == "rows":
        return list(rows.order_by(*orders, "id").values_list("id", *question.others)[chosen])
    if question.shape == "streamed":
        found = rows.order_by(*orders, "-id").values_list("id", *names)[chosen]
        return list(found.iterator(chunk_size=4))
    if question.shape == "distinct":
        return list(rows.values_list(*names).distinct().order_by(*orders)[chosen])
    parts = {f"most_{name}": Max(name) for name in question.others}
    parts |= {f"least_{name}": Min(name) for name in question.others}
    parts |= {f"different_{name}": Count(name, distinct=True) for name in question.others}
    if question.shape == "aggregates":
        return rows.aggregate(n=Count("id"), **parts)
    groups = rows.values(*names).annotate(n=Count("id"), keys=Count("tenant_id", distinct=True), **parts)
    return list(groups.order_by(*(["-n"] if question.by_number else []), *orders)[chosen])


def _order(name: str, descending: bool, nulls: str) -> Any:
    flags: dict[str, bool] = {f"nulls_{nulls}": True} if nulls else {}
    return F(name).desc(**flags) if descending else F(name).asc(**flags)


def plain(value: Any) -> Any:
    """Return what is the same for values that are equal in PostgreSQL."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, bool):
        # Not the same as 1.
        return f"{value}"
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, datetime.timedelta) and abs(value.days) == 365:
        return datetime.timedelta(360 if value.days > 0 else -360)
    return "NaN" if isinstance(value, (float, Decimal)) and value != value else value
