"""Whatever writes a reference model, all databases hold the same rows afterwards."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core import serializers
from django.db.models import Case, F, OuterRef, Subquery, Value, When
from django.db.models.functions import Concat, Lower, Now, Random

from tests.layouts import CLUSTER, Layout
from tests.reference.conftest import World
from tests.reference.copies import everywhere
from tests.shop.models import Country, Currency

pytestmark = pytest.mark.django_db(databases=CLUSTER)

LINK: Any = Country.neighbours.through


def _save_all(world: World) -> None:
    world.finland.name = "Suomi"
    world.finland.save()


def _save_one_field(world: World) -> None:
    world.finland.rate = F("rate") + 1
    world.finland.save(update_fields=["rate"])


def _bulk_update(world: World) -> None:
    world.finland.rate, world.sweden.rate = Decimal("1.5"), Decimal("2.5")
    assert Country.objects.bulk_update([world.finland, world.sweden], ["rate"]) == 2


def _insert_or_update(world: World) -> None:
    made = Country.objects.bulk_create(
        [Country(code="FI", name="Suomi"), Country(code="NO", name="Norge")],
        update_conflicts=True,
        unique_fields=["code"],
        update_fields=["name"],
    )
    assert [each.pk for each in made] == [world.finland.pk, Country.objects.get(code="NO").pk]


def _ignore_conflicts(world: World) -> None:
    Country.objects.bulk_create(
        [Country(code="FI", name="lost"), Country(code="NO", name="Norge")], ignore_conflicts=True
    )


def _get_or_create(world: World) -> None:
    assert Country.objects.get_or_create(code="FI")[1] is False
    assert Country.objects.get_or_create(code="NO", defaults={"name": "Norge"})[1] is True


def _update_or_create(world: World) -> None:
    assert Country.objects.update_or_create(code="FI", defaults={"name": "Suomi"})[1] is False
    assert Country.objects.update_or_create(code="NO", defaults={"name": "Norge"})[1] is True


def _link(world: World) -> None:
    world.finland.neighbours.add(world.sweden)
    assert len(everywhere(LINK)) == 2


def _relink(world: World) -> None:
    world.finland.neighbours.set([world.sweden])
    world.sweden.neighbours.clear()
    assert everywhere(LINK) == []


def _load(world: World) -> None:
    """As loaddata does it: one row that is there, and a new one."""
    world.finland.name = "Suomi"
    norway = Country(id=7_000_000, code="NO", name="Norge", rate=1, changed=world.finland.changed)
    norway.loud = "NORGE"
    text = serializers.serialize("json", [world.finland, norway])
    for each in serializers.deserialize("json", text):
        each.save()


def _asynchronously(world: World) -> None:
    async def write() -> None:
        await Country.objects.acreate(code="NO", name="Norge")
        await Country.objects.filter(code="FI").aupdate(rate=7)
        await world.sweden.adelete()

    async_to_sync(write)()


WRITES: dict[str, Callable[[World], Any]] = {
    "create": lambda world: Country.objects.create(code="NO", name="Norge"),
    "create with an id": lambda world: Country.objects.create(id=7_000_000, code="NO", name="Norge"),
    "save": _save_all,
    "save one field by an expression": _save_one_field,
    "bulk_create": lambda world: Country.objects.bulk_create(
        Country(code=f"{number}", name="x", rate=number) for number in range(30)
    ),
    "bulk_create in batches": lambda world: Country.objects.bulk_create(
        [Country(code=f"{number}", name="x") for number in range(7)], batch_size=3
    ),
    "bulk_create that updates": _insert_or_update,
    "bulk_create that ignores": _ignore_conflicts,
    "bulk_update": _bulk_update,
    "get_or_create": _get_or_create,
    "update_or_create": _update_or_create,
    "update": lambda world: Country.objects.update(name="?"),
    "update by an expression": lambda world: Country.objects.update(rate=F("rate") * 3),
    "update by a random number": lambda world: Country.objects.update(rate=Random()),
    "update by the time": lambda world: Country.objects.update(changed=Now()),
    "update by cases": lambda world: Country.objects.update(
        name=Case(When(code="FI", then=Value("Suomi")), default=Concat(F("code"), Lower("name")))
    ),
    "update by a subquery": lambda world: Country.objects.update(
        rate=Subquery(Currency.objects.filter(pk=OuterRef("currency")).values("digits"))
    ),
    "update over a relation": lambda world: Country.objects.filter(currency__code="SEK").update(name="krona"),
    "update of rows in another order": lambda world: Country.objects.order_by("-code").update(rate=5),
    "delete": lambda world: world.finland.delete(),
    "delete that cascades": lambda world: world.euro.delete(),
    "delete of a queryset": lambda world: Country.objects.filter(currency__code="SEK").delete(),
    "raw delete": lambda world: Country.objects.filter(code="FI")._raw_delete("default"),
    "a link": _link,
    "fixtures": _load,
    "asynchronous": _asynchronously,
    "a link that is taken away": _relink,
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_every_database_holds_the_same_rows(write: Callable[[World], Any], layout: Layout, world: World) -> None:
    before = everywhere(Country), everywhere(LINK)
    write(world)
    assert (everywhere(Country), everywhere(LINK)) != before or write in (_relink,)
