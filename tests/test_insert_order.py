"""
What the database computes for new rows comes back to the objects it was computed for.
"""

from __future__ import annotations

import random

import pytest

from sharding import shard_of
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.shop.models import Tag


@pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)
def test_bulk_create_over_several_shards() -> None:
    """The shards answer one after the other; the values are put back in the order of the objects."""
    tags = [Tag(tenant_id=tenant, label=f"label {tenant}") for tenant in range(40)]
    random.shuffle(tags)
    assert len({shard_of(tag) for tag in tags}) > 1
    made = Tag.objects.bulk_create(tags)
    assert made == tags
    assert [tag.shouted for tag in made] == [f"LABEL {tag.tenant_id}" for tag in tags]
    for tag in made:
        assert Tag.objects.get(pk=tag.pk).label == tag.label


@pytest.mark.django_db(databases=CLUSTER)
def test_one_object() -> None:
    assert Tag.objects.create(tenant_id=1, label="one").shouted == "ONE"
