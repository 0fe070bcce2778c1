"""What the databases hold: rows of members and seats on their shards, entries in the control database."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.db.models import Model

from sharding import cluster_map, registry, routing
from sharding.lookups.declaration import Lookup
from tests.layouts import CLUSTER
from tests.shop.models import Member, Seat

EMAIL = "shop_member_email_lookup"
ACCOUNT = "shop_member_provider_subject_lookup"
NAMES = [EMAIL, "shop_member_city_lookup", ACCOUNT, "shop_seat_by_code"]


def lookup(name: str = EMAIL) -> Lookup:
    return next(each for model in (Member, Seat) for each in registry.get(model).lookups if each.name == name)


def entries(name: str = EMAIL) -> dict[Any, tuple[Any, ...]]:
    """Return {primary key: (bucket, value, …)}."""
    found = lookup(name)
    return {pk: tuple(values) for pk, *values in found.entries.values_list("pk", "bucket", *found.attnames)}


def emails() -> set[str]:
    return {email for _, email in entries().values()}


def differences() -> list[str]:
    """Return what is not as it must be between the rows of all shards and the entries of all lookups."""
    found = []
    for model in (Member, Seat):
        for each in registry.get(model).lookups:
            wanted, stored = _wanted(each), entries(each.name)
            found += [
                f"{each.name}, {pk}: {stored.get(pk)} instead of {wanted.get(pk)}"
                for pk in wanted.keys() | stored.keys()
                if wanted.get(pk) != stored.get(pk)
            ]
    return found


def _wanted(each: Lookup) -> dict[Any, tuple[Any, ...]]:
    rows: dict[Any, tuple[Any, ...]] = {}
    for alias in CLUSTER:
        with routing.native(alias):
            stored = each.sharded._base_manager.using(alias).values_list("pk", "bucket", *each.attnames)
            rows |= {pk: tuple(values) for pk, *values in stored if None not in values}
    return rows


def entry_model(name: str) -> type[Model]:
    return apps.get_model("shop", name)


def tamper(name: str = EMAIL) -> Any:
    """Return the entries of a lookup as a queryset that may change them."""
    return lookup(name).entries.using("default")


def change(row: Any, **values: Any) -> None:
    """Change a row behind the lookups' back, as before they were declared."""
    alias = shard_of(row)
    with routing.native(alias):
        assert Member.objects.using(alias).filter(pk=row.pk).update(**values) == 1


def shard_of(row: Any) -> str:
    return cluster_map.current().owner(row.bucket)


def differences_of(name: str) -> list[str]:
    return [each for each in differences() if each.startswith(name)]
