"""The command `shards init`: the map it writes, and what it refuses."""

from __future__ import annotations

import json
import uuid

import pytest
from django.core.management.base import SystemCheckError
from django.db import DEFAULT_DB_ALIAS, connections
from django.test import override_settings

from sharding import cluster_map, registry
from sharding.control import Cluster, ShardIdentity, ShardNumber
from sharding.operations import misplacement
from tests.shards.command import ALIASES, INITIALISED, ROLLED_BACK, SHARDS, execute, lines, owners, refused, row_on, run
from tests.shop.models import Ledger, Order


@ROLLED_BACK
@pytest.mark.usefixtures("blank")
def test_init():
    assert lines(run("init")) == [
        "Bucket map (even):",
        "",
        "database   buckets   share",
        "──────────────────────────",
        "shard_a      1,366   33.3%",
        "shard_b      1,365   33.3%",
        "shard_c      1,365   33.3%",
        "",
        "Imbalance: sd 0.03 %, max/mean 1.000",
        "",
        "Written as epoch 1.",
    ]
    cluster = Cluster.objects.using(DEFAULT_DB_ALIAS).get()
    assert (cluster.epoch, cluster.buckets, cluster.hash) == (1, 4096, "mmh3")
    assert {alias: owners().count(alias) for alias in SHARDS} == {"shard_a": 1366, "shard_b": 1365, "shard_c": 1365}
    assert dict(ShardNumber.objects.using(DEFAULT_DB_ALIAS).values_list("shard", "number")) == {
        **{"default": 0, "shard_a": 1},
        **{"shard_b": 2, "shard_c": 3},
    }
    for alias in ALIASES:
        assert ShardIdentity.objects.using(alias).values_list("shard", "cluster", "epoch").get() == (
            alias,
            cluster.uuid,
            1,
        )
    assert cluster_map.current().epoch == 1


@ROLLED_BACK
@pytest.mark.usefixtures("blank")
def test_init_as_json():
    assert json.loads(run("init", "--json", "--placement", "modulo")) == {
        "written": True,
        "epoch": 1,
        "rule": "modulo",
        "buckets": {"shard_a": 1366, "shard_b": 1365, "shard_c": 1365},
        "imbalance": {"sd": pytest.approx(0.00034, abs=1e-5), "max_over_mean": pytest.approx(1.0005, abs=1e-4)},
        "warnings": [],
        "rows_exist": False,
    }
    assert owners()[:4] == ["shard_a", "shard_b", "shard_c", "shard_a"]


@ROLLED_BACK
@pytest.mark.usefixtures("blank")
def test_init_with_weights_and_pins():
    assert lines(run("init", "--weights", "shard_a=2", "--pin", "17=default", "--pin", "18=shard_c")) == [
        "Bucket map (even):",
        "",
        "database   buckets   share",
        "──────────────────────────",
        "default          1    0.0%",
        "shard_a      2,048   50.0%",
        "shard_b      1,024   25.0%",
        "shard_c      1,023   25.0%",
        "",
        "Imbalance: sd 0.00 %, max/mean 1.000",
        "",
        "Written as epoch 1.",
        "Put these weights and pins into SHARDING as well: `rebalance` plans by them.",
    ]
    assert (owners()[17], owners()[18]) == ("default", "shard_c")


@ROLLED_BACK
@pytest.mark.usefixtures("blank")
def test_init_all_on_default_keeps_rows_where_they_are():
    row_on("default", 7)
    printed = lines(run("init", "--all-on", "default"))
    assert printed[0] == "Bucket map (all on default):"
    assert printed[-2:] == [
        "Written as epoch 1.",
        "There are rows already. Run `manage.py shards audit --repair` to store their buckets.",
    ]
    assert set(owners()) == {"default"}
    assert Ledger.objects.get(tenant_id=7).number == 1


@ROLLED_BACK
@pytest.mark.usefixtures("blank")
def test_init_of_a_cluster_of_one():
    with override_settings(SHARDING={"SHARDS": []}):
        assert json.loads(run("init", "--json"))["rule"] == "all on default"
        assert set(owners()) == {"default"}


@ROLLED_BACK
@pytest.mark.usefixtures("blank")
def test_init_can_only_show_the_map():
    assert lines(run("init", "--dry-run", "--placement", "consistent"))[-1] == "Nothing was written."
    assert not Cluster.objects.using(DEFAULT_DB_ALIAS).exists()
    assert owners() == []


@ROLLED_BACK
@pytest.mark.usefixtures("blank")
def test_init_refuses_to_hide_rows():
    row_on("default", 1)
    row_on("default", 2)
    printed, complaint = refused("init", "--all-on", "shard_a")
    assert printed.startswith("Bucket map (all on shard_a):")
    assert complaint == (
        "Under this map, rows would not be on the shard that owns them: 2 rows of shop.Ledger on 'default' (for "
        "example tenant_id=1, which goes to 'shard_a'). Keep them where they are with `shards init --all-on default`, "
        "and move buckets with `manage.py rebalance`."
    )
    assert not Cluster.objects.using(DEFAULT_DB_ALIAS).exists()
    row_on("shard_b", 3)
    assert refused("init", "--all-on", "shard_a")[1] == (
        "Under this map, rows would not be on the shard that owns them: 2 rows of shop.Ledger on 'default' (for "
        "example tenant_id=1, which goes to 'shard_a'); 1 row of shop.Ledger on 'shard_b' (for example tenant_id=3, "
        "which goes to 'shard_a'). Adopt rows that live at key % n with `shards init --adopt-modulo n`, or move "
        "them first."
    )


@ROLLED_BACK
@pytest.mark.usefixtures("blank")
def test_init_accepts_rows_that_are_on_their_owner():
    run("init", "--placement", "modulo", "--dry-run")
    for key in range(30):
        row_on(SHARDS[registry.get(Ledger).bucket_of_key(key) % 3], key)
    assert json.loads(run("init", "--placement", "modulo", "--json"))["rows_exist"] is True


@ROLLED_BACK
def test_all_rows_of_a_misplaced_key_are_counted():
    row_on("shard_a", 1)
    execute("shard_a", "INSERT INTO shop_ledger (bucket, tenant_id, number, text) VALUES (0, 1, 2, '')")
    row_on("shard_a", 2)
    [found] = misplacement.misplaced(["shard_b"] * 4096, ["shard_a"])
    assert (found.rows, found.owner) == (3, "shard_b")


@ROLLED_BACK
def test_a_key_without_a_bucket_is_misplaced_everywhere():
    execute("shard_a", "INSERT INTO shop_device (bucket, serial, model) VALUES (0, 'x', '')")
    with override_settings(SHARDING={"SHARDS": SHARDS, "HASH": "identity"}):
        assert list(misplacement.misplaced(["shard_a"] * 4096, ["shard_a"])) == [
            misplacement.Misplaced("shop.Device", "shard_a", 1, "serial", "x", None)
        ]
    assert str(misplacement.Misplaced("shop.Device", "shard_a", 1, "serial", "x", None)) == (
        "1 row of shop.Device on 'shard_a' (for example serial='x', which has no bucket)"
    )


@ROLLED_BACK
def test_init_happens_once():
    before = owners()
    assert refused("init") == ("", INITIALISED)
    assert refused("init", "--all-on", "default") == ("", INITIALISED)
    assert owners() == before


@ROLLED_BACK
def test_init_again_makes_a_new_shard_known():
    before = owners()
    ShardNumber.objects.using(DEFAULT_DB_ALIAS).filter(shard="shard_b").delete()
    ShardIdentity.objects.using("shard_b").delete()
    assert refused("init", "--placement", "even")[1] == INITIALISED
    assert lines(run("init")) == [
        "Made known: shard_b.",
        "Wrote its identity into shard_b.",
        "The bucket map is as it was. Move buckets with `manage.py rebalance`.",
    ]
    # Numbers are never given twice, and 3 is that of shard_c.
    assert ShardNumber.objects.using(DEFAULT_DB_ALIAS).get(shard="shard_b").number == 4
    assert ShardIdentity.objects.using("shard_b").get().shard == "shard_b"
    assert owners() == before
    assert refused("init")[1] == INITIALISED


@ROLLED_BACK
def test_init_again_finishes_what_was_interrupted():
    ShardIdentity.objects.using("shard_c").delete()
    assert json.loads(run("init", "--json")) == {
        "written": False,
        "numbered": [],
        "identified": ["shard_c"],
        "copied": [],
    }


@ROLLED_BACK
def test_init_again_under_another_hash():
    with override_settings(SHARDING={"SHARDS": SHARDS, "HASH": "identity"}):
        assert refused("init")[1] == (
            "This cluster was initialised with BUCKETS=4096 and HASH='mmh3', but SHARDING says BUCKETS=4096 and "
            "HASH='identity'. They never change: put the former back."
        )


@ROLLED_BACK
def test_init_again_with_a_wrong_url():
    cluster = Cluster.objects.using(DEFAULT_DB_ALIAS).get().uuid
    ShardIdentity.objects.using("shard_b").update(shard="shard_a")
    assert refused("init")[1] == (
        f"The database of 'shard_b' says that it is 'shard_a' of cluster {cluster}, not 'shard_b' of cluster "
        f"{cluster}. Correct the URL of 'shard_b'."
    )


@ROLLED_BACK
def test_init_again_with_a_control_database_from_a_backup():
    Cluster.objects.using(DEFAULT_DB_ALIAS).update(epoch=3)
    ShardIdentity.objects.using("shard_b").update(epoch=5)
    assert refused("init")[1] == (
        "The database of 'shard_b' has seen epoch 5 of the bucket map, and the control database holds epoch 3. Restore "
        "the newest map of the control database."
    )
    assert ShardIdentity.objects.using("shard_b").get().epoch == 5


@ROLLED_BACK
@pytest.mark.usefixtures("blank")
def test_init_refuses_a_database_of_another_cluster():
    other = uuid.uuid4()
    ShardIdentity.objects.using("shard_c").create(cluster=other, shard="shard_x", epoch=1)
    assert refused("init")[1] == (
        f"The database of 'shard_c' says that it is 'shard_x' of cluster {other}, but this control database holds no "
        f"cluster. Correct the URL of 'shard_c', or restore the control database."
    )


@ROLLED_BACK
@pytest.mark.usefixtures("blank")
def test_init_refuses_a_database_that_was_not_migrated():
    execute("shard_c", "DROP TABLE sharding_identity")
    assert refused("init")[1] == (
        "The database of 'shard_c' has no tables of the app 'sharding'. Run `manage.py migrate_all` first."
    )


@pytest.mark.django_db(databases=ALIASES, transaction=True)
@pytest.mark.parametrize("command", ["init", "status"])
def test_two_aliases_of_one_database(command):
    settings, shared = connections["shard_c"].settings_dict, connections["shard_b"].settings_dict
    before = {name: settings[name] for name in ("HOST", "PORT", "NAME")}
    connections["shard_c"].close()
    settings.update({name: shared[name] for name in before})
    try:
        _, complaint = refused(command)
    finally:
        connections["shard_c"].close()
        settings.update(before)
    assert (
        complaint
        == {
            "init": "The database of 'shard_c' has another alias as well, or is being initialised by somebody else. "
            "Give every shard a database of its own.",
            "status": "Something is wrong with shard_c.",
        }[command]
    )


@ROLLED_BACK
@pytest.mark.usefixtures("blank")
def test_init_checks_the_models_unless_default_owns_everything(monkeypatch):
    monkeypatch.setattr(Order, "shard_key", "total_")
    registry.reset()
    with pytest.raises(SystemCheckError):
        run("init", "--dry-run")
    monkeypatch.undo()
    registry.reset()


@ROLLED_BACK
@pytest.mark.usefixtures("blank")
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ["--all-on", "shard_x"],
            "'shard_x' is no shard of this cluster. Its databases are default, shard_a, shard_b, shard_c.",
        ),
        (
            ["--weights", "shard_x=2"],
            "A weight is given to 'shard_x', which is none of the declared shards: shard_a, shard_b, shard_c. Declare "
            "the shard or remove the weight.",
        ),
        (
            ["--pin", "4096=shard_a"],
            "Bucket 4096 is pinned but does not exist: this cluster has the buckets 0 to 4095.",
        ),
        (
            ["--pin", "4096=default"],
            "Bucket 4096 is pinned but does not exist: this cluster has the buckets 0 to 4095.",
        ),
        (
            ["--placement", "modulo", "--weights", "shard_a=2"],
            "The placement 'modulo' cannot weight shards. Remove the weights, or use the placement 'even' or "
            "'consistent'.",
        ),
        (
            ["--all-on", "default", "--placement", "even", "--weights", "shard_a=2", "--pin", "1=shard_a"],
            "--all-on settles every bucket, so --placement, --weights, --pin cannot be given as well.",
        ),
        (
            ["--adopt-modulo", "3", "--all-on", "default"],
            "--adopt-modulo settles every bucket, so --all-on cannot be given as well.",
        ),
        (
            ["--adopt-modulo", "0", "--pin", "1=shard_a"],
            "--adopt-modulo settles every bucket, so --pin cannot be given as well.",
        ),
        (["--pin", "1=shard_a", "01=shard_b"], "--pin names the bucket 1 twice. Keep one of them."),
        (["--pin", "1=shard_a", "--pin", "1=shard_a"], "--pin names the bucket 1 twice. Keep one of them."),
        (
            ["--weights", "shard_a=1", "--weights", "shard_a=2"],
            "--weights names the shard 'shard_a' twice. Keep one of them.",
        ),
        (["--weights", "shard_a"], "Error: argument --weights: 'shard_a' is not of the form ALIAS=N."),
        (["--weights", "shard_a=x"], "Error: argument --weights: The weight 'x' of 'shard_a' is not a number."),
        (["--pin", "x=shard_a"], "Error: argument --pin: The bucket 'x' is not a number."),
        (
            ["--adopt-modulo", "3"],
            "--adopt-modulo needs SHARDING['HASH'] = 'identity', and it is 'mmh3': the rows live where their key says, "
            "not where its hash says.",
        ),
    ],
)
def test_init_with_bad_input(arguments, complaint):
    assert refused("init", *arguments)[1] == complaint
    assert not Cluster.objects.using(DEFAULT_DB_ALIAS).exists()
