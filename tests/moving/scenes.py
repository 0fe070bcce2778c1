"""
A cluster behind fences, one of whose buckets is to go from one shard to another.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections
from django.test import override_settings

from sharding import bucket_of, cluster_map
from sharding.backends.raw_sql import CONTROL_ONLY
from sharding.bucket_map import BucketMap
from sharding.fence import states
from sharding.models import Attempt, BucketOwner, CleanUp, Cluster, CopyProgress, Dirty, Move
from sharding.rebalance import registering
from sharding.rebalance.mover import Mover
from sharding.rebalance.options import Options
from sharding.rebalance.phases import Wanted
from sharding.rebalance.plan import Balance, Plan, PlannedMove, Share, digest_of
from sharding.rebalance.sessions import Session, open_session
from sharding.testing import cluster
from tests.layouts import CLUSTER, tenant_on
from tests.shop.models import Customer, Line, Order, OrderTag, Tag
from tests.unfenced import unfenced

#: Seconds after which nobody has an old map.
MAP_TTL = 0.05
MODELS = (Customer, Tag, Order, Line, OrderTag)


def plan_of(bucket_map: BucketMap, *moves: tuple[int, str]) -> Plan:
    """Return a plan that brings buckets to shards, of a map."""
    shares = tuple(Share(alias, 1.0, 0, 0, 0, 1.0) for alias in bucket_map.aliases)
    nothing = Balance(shares, bucket_map.imbalance())
    return Plan(
        epoch=bucket_map.epoch,
        buckets=bucket_map.buckets,
        digest=digest_of(bucket_map.owners),
        by="rows",
        moves=tuple(PlannedMove(bucket, bucket_map.owner(bucket), to, 10, 1000, "a test") for bucket, to in moves),
        before=nothing,
        after=nothing,
    )


@contextmanager
def control_session() -> Iterator[Session]:
    """Yield a session at the control database, as movers have them."""
    with open_session(DEFAULT_DB_ALIAS) as session:
        yield session


#: A closed bucket is given the time that a slow machine takes to decide upon it.
IN_NO_TIME = Options(window=0.0, share=1.0, latency=None, fenced=60.0)


@dataclass
class Scene:
    """A tenant on the source, with rows in each table, and a move of its bucket to the target that is planned."""

    source: str
    target: str
    options: Options = field(default_factory=lambda: IN_NO_TIME)
    #: Which tenant of the source it is.
    place: int = 0

    def __post_init__(self) -> None:
        self.tenant = tenant_on(self.source, self.place)
        self.bucket = bucket_of(self.tenant, model=Order)
        self.customer = Customer.objects.create(tenant_id=self.tenant, name="first")
        self.tag = Tag.objects.create(tenant_id=self.tenant, label="tag")
        for number in range(3):
            self.order(number)
        self.planned: UUID | None = None

    def order(self, total: int) -> Order:
        """Write an order with what belongs to it, by the door."""
        order = Order.objects.create(tenant_id=self.tenant, customer=self.customer, total=total)
        order.lines.create(tenant_id=self.tenant, product=f"product {total}")
        order.tags.add(self.tag, through_defaults={"tenant_id": self.tenant})
        return order

    def plan(self, *others: Scene) -> None:
        """Plan the move, and with it those of other scenes."""
        scenes = (self, *others)
        with control_session() as control:
            plan = plan_of(cluster_map.refresh(), *[(scene.bucket, scene.target) for scene in scenes])
            planned = registering.register(control, plan)[0]
        for scene in scenes:
            scene.planned = planned

    def wish(self, wanted: Wanted) -> list[int]:
        with control_session() as control:
            return registering.wish(control, wanted, plan=self.planned, buckets=[self.bucket])

    def mover(self, **changes: Any) -> Mover:
        return Mover(self.options, plan=self.planned, **changes)

    @property
    def move(self) -> Move:
        """Return the row of the bucket's last move."""
        return Move.objects.using("default").filter(bucket=self.bucket).order_by("-id")[:1].get()

    def states(self) -> tuple[str | None, str | None]:
        """Return what the bucket is on the source and on the target."""
        return self.states_of(self.source), self.states_of(self.target)

    def states_of(self, alias: str) -> str | None:
        row = states.states(connections[alias]).get(self.bucket)
        return str(row.state) if row else None

    def rows(self, alias: str) -> dict[str, list[tuple[Any, ...]]]:
        """Return all rows of the bucket that one database has, whoever owns them."""
        found = {}
        for model in MODELS:
            with connections[alias].cursor() as cursor:
                columns = ", ".join(f'"{each.column}"' for each in model._meta.concrete_fields)
                cursor.execute(
                    f'{CONTROL_ONLY} SELECT {columns} FROM "{model._meta.db_table}" WHERE bucket = %s '
                    f'ORDER BY "{model._meta.pk.column}"',
                    [self.bucket],
                )
                found[model.__name__] = cursor.fetchall()
        return {name: rows for name, rows in found.items() if rows}

    def leftovers(self) -> dict[str, int]:
        """Return what moves have left in tables that should be empty when all are over."""
        found = {"clean-up records": CleanUp.objects.using("default").count()}
        for alias in (self.source, self.target):
            found[f"notes on {alias}"] = Dirty.objects.using(alias).count()
            found[f"progress on {alias}"] = CopyProgress.objects.using(alias).count()
        return {name: number for name, number in found.items() if number}


@contextmanager
def fenced_cluster(*owners: str, **changes: Any) -> Iterator[None]:
    """Let the databases own the buckets in turn, behind fences; afterwards it is all as before."""
    sharding = {**settings.SHARDING, "FENCE": "row", "MAP_TTL": MAP_TTL, "MOVE_WAIT": 5.0, **changes}
    with override_settings(SHARDING=sharding), cluster.owners(*(owners or CLUSTER)):
        before = _owners()
        try:
            yield
        finally:
            _put_back(before)
    cluster_map.refresh()


def _owners() -> set[tuple[int, str, int]]:
    """Return the bucket map as it is stored."""
    return {*BucketOwner.objects.using("default").values_list("bucket", "shard", "epoch")}


def _put_back(owners: set[tuple[int, str, int]]) -> None:
    for model in (Move, Attempt, CleanUp):
        model.objects.using("default").all().delete()
    for bucket, shard, epoch in owners - _owners():
        BucketOwner.objects.using("default").filter(bucket=bucket).update(shard=shard, epoch=epoch)
    tables = [model._meta.db_table for model in reversed(MODELS)]
    for alias in CLUSTER:
        with unfenced(alias, *tables), connections[alias].cursor() as cursor:
            for table in tables:
                cursor.execute(f'{CONTROL_ONLY} DELETE FROM "{table}"')
        for kept in (Dirty, CopyProgress):
            kept.objects.using(alias).all().delete()
    Cluster.objects.using("default").update(epoch=Cluster.objects.using("default").get().epoch + 1)
