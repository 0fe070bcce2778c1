"""
The rows of two sides, with regions and countries for some of the customers; and what moves leave.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests import moved_rows
from tests.related_rows import CHANGED
from tests.shop.models import Country, Customer, Region
from tests.two_sides import MODELS, REFERENCE, cluster_side, reference_side, rows_on, save


@contextmanager
def world_on(owners: tuple[str, ...]) -> Iterator[None]:
    """Let the aliases own the buckets inside, with the same rows on the cluster and in the reference database."""
    with rows_on(owners):
        save(Region, [Region(pk=number, name=f"{'nN'[number % 2]}{number}") for number in range(1, 5)])
        for alias in ("default", REFERENCE):
            Country.objects.using(alias).create(pk=1, code="FI", name="Suomi", changed=CHANGED)
        for side in (cluster_side, reference_side):
            for number, name in enumerate("bAéc", start=1):
                side(Customer).filter(name__startswith=name).update(region_id=number, country_id=number % 2 or None)
        with moved_rows.on_the_next_shard(MODELS, known=True):
            yield
        for side in (cluster_side, reference_side):
            side(Customer).update(region_id=None, country_id=None)
        for model in (Region, Country):
            model._default_manager.all().delete()
            reference_side(model)._raw_delete(REFERENCE)  # type: ignore[attr-defined]
