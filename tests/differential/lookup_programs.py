"""
Random programs over members, which have lookups: what is written and read by their second keys, as plain values.
"""

from __future__ import annotations

from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import F, QuerySet, Value
from django.db.models.functions import Concat
from hypothesis import strategies as st

from aggregator import fan_out
from tests.differential.data import REFERENCE, TENANTS
from tests.lookups.stored import differences
from tests.shop.models import Member

EMAILS = ("ann", "bob", "eve", "zoe", "Ann", "")
CITIES = ("Oslo", "Rome", "")

#: What happens: its name and its details.
Step = tuple[str, Any]

_tenant = st.sampled_from(TENANTS)
_email = st.one_of(st.none(), st.sampled_from(EMAILS))
_city = st.sampled_from(CITIES)
_row = st.tuples(_tenant, _email, _city)
_rows = st.lists(_row, min_size=1, max_size=6)
_some = st.lists(st.sampled_from((*EMAILS, "nobody")), min_size=0, max_size=4)

_steps = st.one_of(
    st.tuples(st.just("create"), _row),
    st.tuples(st.just("create"), _row),
    st.tuples(st.just("bulk_create"), _rows),
    st.tuples(st.just("ignore_conflicts"), _rows),
    st.tuples(st.just("save"), st.tuples(_email, _email, _city)),
    st.tuples(st.just("update_one"), st.tuples(_email, _email)),
    st.tuples(st.just("update_city"), st.tuples(_city, _city)),
    st.tuples(st.just("update_all"), st.booleans()),
    st.tuples(st.just("update_tenant"), st.tuples(_tenant, _email)),
    st.tuples(st.just("bulk_update"), _some),
    st.tuples(st.just("delete"), _some),
    st.tuples(st.just("delete_city"), _city),
    st.tuples(st.just("delete_row"), _email),
    st.tuples(st.just("get_or_create"), _row),
    st.tuples(st.just("update_or_create"), _row),
    st.tuples(st.just("get"), _email),
    st.tuples(st.just("filter"), _some),
    st.tuples(st.just("cities"), st.lists(_city, max_size=2)),
    st.tuples(st.just("count"), st.tuples(_city, _email)),
)
#: Steps of their own, and steps that are done and undone together.
_more = st.lists(st.one_of(_steps, _steps, st.lists(_steps, min_size=2, max_size=4)), min_size=3, max_size=12)
_first = st.lists(_row, min_size=3, max_size=6, unique_by=lambda row: row[1] or repr(row))
programs = st.tuples(st.tuples(st.just("bulk_create"), _first), _more).map(lambda both: [both[0], *both[1]])


class _Undone(Exception):
    """Ends a block that is rolled back."""


def run(program: list[Any], side: str) -> tuple[list[Any], list[Any]]:
    """Return the answers of the steps, and the rows that are there at the end; everything is rolled back."""
    using = REFERENCE if side == REFERENCE else "default"
    answers: list[Any] = []
    rows: list[Any] = []
    actor = _Side(using)
    try:
        with transaction.atomic(using=using):
            for each in program:
                answers.append(_undone(actor, each) if isinstance(each, list) else _attempt(actor, each))
            if side != REFERENCE:
                assert differences() == []
            rows = sorted(actor.everybody().values_list("tenant_id", "email", "city", "note"), key=repr)
            raise _Undone
    except _Undone:
        return answers, rows


def _attempt(side: _Side, step: Step) -> Any:
    name, detail = step
    try:
        with transaction.atomic(using=side.using):
            return getattr(side, name)(detail)
    except IntegrityError:
        return "taken"
    except Member.DoesNotExist:
        return "nobody"


def _undone(side: _Side, steps: list[Step]) -> list[Any]:
    answers: list[Any] = []
    try:
        with transaction.atomic(using=side.using):
            answers += [_attempt(side, each) for each in steps]
            raise _Undone
    except _Undone:
        return answers


class _Side:
    """One of the two sides: the cluster, where emails and cities are second keys, or one database."""

    def __init__(self, using: str) -> None:
        self.using = using
        self.rows: Any = Member.objects.using(REFERENCE) if using == REFERENCE else Member.objects
        #: Numbers the rows in the order of their making, since their ids differ.
        self.made = 0

    def everybody(self) -> QuerySet[Any]:
        return self.rows.all() if self.using == REFERENCE else fan_out(Member.objects)

    def _new(self, row: tuple[Any, ...]) -> Member:
        self.made += 1
        tenant, email, city = row
        return Member(tenant_id=tenant, email=email, city=city, note=str(self.made))

    def _one(self, email: str | None) -> Member:
        # Nobody can be looked for by NULL.
        return self.rows.get(email="nobody" if email is None else email)  # type: ignore[no-any-return]

    def create(self, row: Any) -> None:
        self._new(row).save(using=self.using, force_insert=True)

    def bulk_create(self, rows: Any) -> int:
        return len(self.rows.bulk_create([self._new(row) for row in rows]))

    def ignore_conflicts(self, rows: Any) -> int:
        return len(self.rows.bulk_create([self._new(row) for row in rows], ignore_conflicts=True))

    def save(self, detail: Any) -> None:
        who, email, city = detail
        row = self._one(who)
        row.email, row.city = email, city
        row.save()

    def update_one(self, detail: Any) -> int:
        who, email = detail
        return int(self.rows.filter(email=who or "nobody").update(email=email))

    def update_city(self, detail: Any) -> int:
        before, after = detail
        return int(self.rows.filter(city=before).update(city=after))

    def update_all(self, also_city: bool) -> int:
        # Such values that no order of the rows makes two of them equal on the way.
        self.made += 1
        changed = {"city": "Rome"} if also_city else {}
        return int(self.everybody().update(email=Concat(F("email"), Value(f"#{self.made}")), **changed))

    def update_tenant(self, detail: Any) -> int:
        tenant, email = detail
        return int(self.rows.filter(tenant_id=tenant, city="Oslo").update(email=email))

    def bulk_update(self, emails: Any) -> int:
        rows = sorted(self.rows.filter(email__in=emails), key=lambda row: row.note)
        for row in rows:
            self.made += 1
            row.email = f"new{self.made}"
        return int(self.rows.bulk_update(rows, ["email"]))

    def delete(self, emails: Any) -> int:
        return int(self.rows.filter(email__in=emails).delete()[0])

    def delete_city(self, city: str) -> int:
        return int(self.rows.filter(city=city).delete()[0])

    def delete_row(self, email: Any) -> int:
        return self._one(email).delete()[0]

    def get_or_create(self, row: Any) -> Any:
        tenant, email, city = row
        self.made += 1
        defaults = {"tenant_id": tenant, "city": city, "note": str(self.made)}
        found, created = self.rows.get_or_create(email=email or "x", defaults=defaults)
        return found.note, created

    def update_or_create(self, row: Any) -> Any:
        tenant, email, city = row
        self.made += 1
        new = {"tenant_id": tenant, "city": city, "note": str(self.made)}
        found, created = self.rows.update_or_create(email=email or "x", defaults={"city": city}, create_defaults=new)
        return found.note, found.city, created

    def get(self, email: Any) -> str:
        return self._one(email).note

    def filter(self, emails: Any) -> list[str]:
        return sorted(self.rows.filter(email__in=emails).values_list("note", flat=True))

    def cities(self, cities: Any) -> list[Any]:
        found = self.rows.filter(city__in=cities).order_by("-tenant_id")
        return [list(found.values_list("tenant_id", flat=True)[:3]), sorted(found.values_list("note", "city"))]

    def count(self, detail: Any) -> tuple[int, bool]:
        city, email = detail
        return self.rows.filter(city=city).count(), self.rows.filter(city=city, email=email or "nobody").exists()
