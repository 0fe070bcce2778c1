"""When the checks of models warn and when they refuse; the shop is silent; each id is documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.apps import apps as installed
from django.core.checks import Error, Warning
from django.db import models
from django.test import override_settings

from sharding import cluster_checks, cluster_map, map_reading, model_checks
from sharding.bucket_map import BucketMap
from sharding.model_checks import MODEL_CHECKS
from sharding.models import ShardedModel

SOURCES = [*Path(model_checks.__file__).parent.glob("*.py"), Path(cluster_checks.__file__)]
REFERENCE = Path(__file__).resolve().parent.parent.parent / "docs" / "reference" / "checks.md"


def test_the_models_of_the_shop_are_silent():
    assert [each for check in MODEL_CHECKS for each in check([installed.get_app_config("shop")])] == []
    assert [each for check in MODEL_CHECKS for each in check(None)] == []


def everything():
    class Label(models.Model):
        class Meta:
            app_label = "shop"

    class Invoice(ShardedModel):
        shard_key = "tenant_id"
        tenant_id = models.IntegerField()
        id = models.BigAutoField(primary_key=True)
        number = models.IntegerField(unique=True)
        labels = models.ManyToManyField(Label)
        label = models.ForeignKey(Label, models.CASCADE)

        class Meta:
            app_label = "shop"

    class Item(ShardedModel):
        shard_key = "tenant_id"
        tenant_id = models.IntegerField()
        id = models.UUIDField(primary_key=True)

        class Meta:
            app_label = "shop"

    class Credit(Invoice):
        class Meta:
            app_label = "shop"


def numbers(found):
    return sorted(each.id for each in found())


def test_warnings_while_default_is_the_only_owner(found):
    everything()
    with override_settings(SHARDING={"SHARDS": []}):
        assert numbers(found) == [f"sharding.W{number:03}" for number in range(25, 31)]
        assert {type(each) for each in found()} == {Warning}


def test_errors_as_soon_as_shards_are_declared(found):
    everything()
    assert numbers(found) == [f"sharding.E{number:03}" for number in range(25, 31)]
    assert {type(each) for each in found()} == {Error}


@pytest.mark.parametrize(("owner", "letter"), [("default", "W"), ("shard_a", "E")])
def test_a_map_that_is_known_says_who_owns(found, monkeypatch, owner, letter):
    everything()
    known = map_reading.Loaded(BucketMap.whole(owner, 4096, epoch=1), {}, 0.0)
    monkeypatch.setattr(cluster_map, "_loaded", known)
    assert numbers(found) == [f"sharding.{letter}{number:03}" for number in range(25, 31)]


def test_every_id_is_in_the_reference_once():
    used = {number for source in SOURCES for number in re.findall(r'id="(sharding\.[EWI]\d{3})"', source.read_text())}
    shared = {number for source in SOURCES for number in re.findall(r'^\s+"(\d{3})",$', source.read_text(), re.M)}
    used |= {f"sharding.{letter}{number}" for number in shared for letter in "EW"}
    listed = re.findall(r"`(sharding\.[EWI]\d{3})`", REFERENCE.read_text())
    assert len(listed) == len(set(listed))
    assert sorted(used - set(listed)) == []
    assert len(used) == 36
