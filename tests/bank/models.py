"""
Accounts and their entries are sharded by the account's number; the journal lies in the control database.

Each transfer leaves one entry per account, and each entry tells how many there are: so that half a transfer is seen.
"""

from __future__ import annotations

from django.db import models

from sharding.fields import ShardUUIDField
from sharding.models import ShardedModel


class Account(ShardedModel):
    shard_key = "number"

    number = models.IntegerField(primary_key=True)
    balance = models.BigIntegerField()


class Entry(ShardedModel):
    shard_key = "account"

    id = ShardUUIDField(primary_key=True)
    #: Its constraint is deferred to the commit, as Django's always are.
    account = models.ForeignKey(Account, models.CASCADE, related_name="entries")
    transfer = models.CharField(max_length=32)
    amount = models.BigIntegerField()
    #: How many entries the transfer has, and whether the journal names it.
    parts = models.IntegerField()
    journaled = models.BooleanField()


class Journal(models.Model):
    transfer = models.CharField(max_length=32, primary_key=True)
