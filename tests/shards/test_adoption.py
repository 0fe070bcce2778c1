"""The command `shards init --adopt-modulo`: rows that an application placed itself."""

from __future__ import annotations

import json

import pytest
from django.db import DEFAULT_DB_ALIAS
from django.test import override_settings

from sharding import registry, shard_of
from sharding.control import Cluster
from tests.shards.command import ROLLED_BACK, SHARDS, lines, owners, refused, row_on, run
from tests.shop.models import Ledger


@pytest.fixture
def integer_keys(monkeypatch):
    """Leave out the models of the shop whose key "identity" cannot hash."""
    models = {label: model for label, model in registry._models.items() if label not in {"shop.device", "shop.reading"}}
    monkeypatch.setattr(registry, "_models", models)
    registry.reset()
    yield
    registry.reset()


IDENTITY = {"SHARDS": SHARDS, "HASH": "identity", "BUCKETS": 3072}


@ROLLED_BACK
@pytest.mark.usefixtures("blank", "integer_keys")
def test_rows_that_an_application_placed_by_modulo_are_adopted():
    with override_settings(SHARDING=IDENTITY):
        for key in range(-9, 9):
            row_on(SHARDS[key % 3], key)
        assert lines(run("init", "--adopt-modulo", "3"))[0] == "Bucket map (key % 3):"
        assert owners()[:4] == ["shard_a", "shard_b", "shard_c", "shard_a"]
        assert all(shard_of(key, model=Ledger) == SHARDS[key % 3] for key in range(-9, 9))
        assert Ledger.objects.filter(tenant_id=5).count() == 1
        # The bucket column of an adopted table is whatever its migration wrote.
        assert json.loads(refused("audit", "--json")[0])["findings"][0]["kind"] == "bucket"


@ROLLED_BACK
@pytest.mark.usefixtures("blank")
@pytest.mark.parametrize(
    ("changed", "n", "complaint"),
    [
        (
            {"BUCKETS": 4096},
            "3",
            "--adopt-modulo 3 needs a number of buckets that 3 divides, and SHARDING['BUCKETS'] is 4096. Set it to "
            "4095.",
        ),
        (
            {},
            "4",
            "--adopt-modulo 4 needs 4 shards in SHARDING['SHARDS'], in the order of their remainders, and it names 3: "
            "shard_a, shard_b, shard_c.",
        ),
    ],
)
def test_adoption_that_cannot_be(changed, n, complaint):
    with override_settings(SHARDING={**IDENTITY, **changed}):
        assert refused("init", "--adopt-modulo", n)[1] == complaint


@ROLLED_BACK
@pytest.mark.usefixtures("blank")
def test_adoption_names_the_row_that_is_elsewhere():
    with override_settings(SHARDING=IDENTITY):
        row_on("shard_b", 4)
        row_on("shard_b", 6)
        assert refused("init", "--adopt-modulo", "3")[1] == (
            "The shop.Ledger with the id (6, 1) is on 'shard_b', number 1 of SHARDING['SHARDS'], but its tenant_id=6 "
            "belongs to 'shard_a' by key % 3. List the shards in the order of their remainders, or correct the row."
        )
        assert not Cluster.objects.using(DEFAULT_DB_ALIAS).exists()


@ROLLED_BACK
@pytest.mark.usefixtures("blank", "integer_keys")
def test_adoption_finds_what_its_sample_did_not(monkeypatch):
    monkeypatch.setattr("sharding.operations.adoption.SAMPLE", 0)
    with override_settings(SHARDING=IDENTITY):
        row_on("shard_b", 6)
        assert refused("init", "--adopt-modulo", "3")[1].startswith(
            "Under this map, rows would not be on the shard that owns them: 1 row of shop.Ledger on 'shard_b' (for "
            "example tenant_id=6, which goes to 'shard_a')."
        )
