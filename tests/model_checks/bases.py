"""The base of most models that the tests make."""

from __future__ import annotations

from sharding.fields import ShardUUIDField
from sharding.models import ShardedModel


class Uuid(ShardedModel):
    """What most cases need: an id that holds the bucket."""

    id = ShardUUIDField(primary_key=True)

    class Meta:
        abstract = True
        app_label = "shop"
