"""
A shop with many tenants. Global: Region, Note. Reference: Currency, Country. Sharded by tenant_id: Customer and what
belongs to it, Ledger, Seat.
Sharded by their own ids: Account and its entries (an id that holds its bucket), Device and its readings (a natural id).
"""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now, Upper

from sharding.fields import ShardBigIntegerField, ShardUUIDField
from sharding.models import LookupIndex, ReferenceModel, ShardedModel


class Region(models.Model):
    name = models.CharField(max_length=40)

    def __str__(self) -> str:
        return self.name


class Currency(ReferenceModel):
    code = models.CharField(max_length=3, primary_key=True)
    digits = models.IntegerField(default=2)

    def __str__(self) -> str:
        return self.code


class Country(ReferenceModel):
    code = models.CharField(max_length=2, unique=True)
    name = models.CharField(max_length=40)
    currency = models.ForeignKey(Currency, models.CASCADE, null=True, blank=True, related_name="countries")
    rate = models.DecimalField(max_digits=12, decimal_places=6, db_default=1)
    changed = models.DateTimeField(db_default=Now())
    #: Computed by each database.
    loud = models.GeneratedField(
        expression=Upper("name"), output_field=models.CharField(max_length=40), db_persist=True
    )
    neighbours = models.ManyToManyField("self", blank=True)

    def __str__(self) -> str:
        return self.name


class Customer(ShardedModel):
    shard_key = "tenant_id"

    id = ShardUUIDField(primary_key=True)
    tenant_id = models.IntegerField()
    name = models.CharField(max_length=40)
    email = models.EmailField(blank=True)
    joined = models.DateField(null=True)
    region = models.ForeignKey(
        Region, models.SET_NULL, null=True, blank=True, db_constraint=False, related_name="customers"
    )
    country = models.ForeignKey(Country, models.SET_NULL, null=True, blank=True, related_name="customers")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant_id", "email"], name="one_email_a_tenant")]

    def __str__(self) -> str:
        return self.name


class Tag(ShardedModel):
    shard_key = "tenant_id"

    id = ShardBigIntegerField(primary_key=True)
    tenant_id = models.IntegerField()
    label = models.CharField(max_length=20)
    #: Computed by the database and returned by INSERT.
    shouted = models.GeneratedField(
        expression=Upper("label"), output_field=models.CharField(max_length=20), db_persist=True
    )

    def __str__(self) -> str:
        return self.label


class Order(ShardedModel):
    shard_key = "tenant_id"

    id = ShardUUIDField(primary_key=True)
    tenant_id = models.IntegerField()
    customer = models.ForeignKey(Customer, models.CASCADE, null=True, blank=True, related_name="orders")
    status = models.CharField(max_length=10, default="new")
    total = models.DecimalField(max_digits=10, decimal_places=2, default=0)
    quantity = models.IntegerField(null=True, blank=True)
    weight = models.FloatField(null=True, blank=True)
    created = models.DateTimeField(null=True, blank=True)
    tags = models.ManyToManyField(Tag, through="OrderTag", related_name="orders")

    def __str__(self) -> str:
        return f"{self.status} {self.total}"


class PaidOrder(Order):
    class Meta:
        proxy = True


class Line(ShardedModel):
    shard_key = "tenant_id"

    id = ShardBigIntegerField(primary_key=True)
    tenant_id = models.IntegerField()
    order = models.ForeignKey(Order, models.CASCADE, related_name="lines")
    product = models.CharField(max_length=20)
    amount = models.IntegerField(default=1)

    def __str__(self) -> str:
        return f"{self.amount} {self.product}"


class OrderTag(ShardedModel):
    shard_key = "tenant_id"

    id = ShardUUIDField(primary_key=True)
    tenant_id = models.IntegerField()
    order = models.ForeignKey(Order, models.CASCADE)
    tag = models.ForeignKey(Tag, models.CASCADE)

    def __str__(self) -> str:
        return f"{self.order_id} {self.tag_id}"


class Account(ShardedModel):
    shard_key = "id"

    id = ShardUUIDField(primary_key=True)
    owner = models.CharField(max_length=20)

    def __str__(self) -> str:
        return self.owner


class Entry(ShardedModel):
    shard_key = "account"

    id = ShardUUIDField(primary_key=True)
    account = models.ForeignKey(Account, models.CASCADE, related_name="entries")
    amount = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return str(self.amount)


class Device(ShardedModel):
    shard_key = "serial"

    serial = models.CharField(max_length=20, primary_key=True)
    model = models.CharField(max_length=20, blank=True)

    def __str__(self) -> str:
        return self.serial


class Reading(ShardedModel):
    shard_key = "device"

    id = ShardUUIDField(primary_key=True)
    device = models.ForeignKey(Device, models.CASCADE, db_constraint=False, related_name="readings")
    value = models.IntegerField()

    def __str__(self) -> str:
        return str(self.value)


class Ledger(ShardedModel):
    shard_key = "tenant_id"

    pk = models.CompositePrimaryKey("tenant_id", "number")
    tenant_id = models.IntegerField()
    number = models.IntegerField()
    text = models.CharField(max_length=20, blank=True)

    def __str__(self) -> str:
        return f"{self.tenant_id}/{self.number}"


class Member(ShardedModel):
    """Found by email, by city, and by an account elsewhere, without the shard key."""

    shard_key = "tenant_id"
    lookups = [
        LookupIndex(fields=["email"], unique=True),
        LookupIndex(fields=["city"]),
        LookupIndex(fields=["provider", "subject"], unique=True),
    ]

    id = ShardUUIDField(primary_key=True)
    tenant_id = models.IntegerField()
    email = models.EmailField(unique=True, null=True, blank=True)
    city = models.CharField(max_length=20, blank=True)
    provider = models.CharField(max_length=20, null=True, blank=True)  # noqa: DJ001 - NULL is nobody's account
    subject = models.IntegerField(null=True, blank=True)
    note = models.CharField(max_length=20, blank=True)

    def __str__(self) -> str:
        return str(self.email)


class Seat(ShardedModel):
    """Its primary key has two columns, and so has that of its lookup's entries."""

    shard_key = "tenant_id"
    lookups = [LookupIndex(fields=["code"], unique=True, name="shop_seat_by_code")]

    pk = models.CompositePrimaryKey("tenant_id", "number")
    tenant_id = models.IntegerField()
    number = models.IntegerField()
    member = models.ForeignKey(Member, models.CASCADE, null=True, related_name="seats")
    code = models.SlugField(null=True)  # noqa: DJ001 - NULL is no code

    def __str__(self) -> str:
        return f"{self.tenant_id}/{self.number}"


class Note(models.Model):
    """A global model that refers to a sharded one."""

    order = models.ForeignKey(Order, models.CASCADE, null=True, db_constraint=False, related_name="notes")
    text = models.CharField(max_length=40)

    def __str__(self) -> str:
        return self.text
