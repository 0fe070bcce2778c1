"""System checks that ask databases: whole messages, on the real test cluster, whose rows say something wrong."""

from __future__ import annotations

import uuid

import pytest
from django.core.checks import Error, Info, Tags, Warning, run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import DEFAULT_DB_ALIAS, connections, models
from django.db.backends.sqlite3.base import DatabaseWrapper as SQLite
from django.test import override_settings
from django.test.utils import isolate_apps

from sharding import cluster_map, registry
from sharding.cluster_checks import check_stored_cluster
from sharding.control import BucketOwner, Cluster, ShardIdentity, ShardNumber
from sharding.fence import raising
from sharding.fields import ShardUUIDField
from sharding.model_checks import collations
from sharding.models import ShardedModel
from tests.downtime import down
from tests.messages import whole

ALIASES = ["default", "shard_a", "shard_b", "shard_c"]
ROLLED_BACK = pytest.mark.django_db(databases=ALIASES)


def found(*aliases):
    return check_stored_cluster(None, databases=aliases or ALIASES)


def cluster():
    return Cluster.objects.using(DEFAULT_DB_ALIAS)


def identity(alias):
    return ShardIdentity.objects.using(alias)


def follow_map():
    """Let the fences agree with a map that was changed by hand."""
    cluster_map.forget()
    for alias in ALIASES:
        raising.follow_map(alias)
    # Of which nothing is left when the test is over.
    cluster_map.forget()


@ROLLED_BACK
def test_a_sound_cluster_is_silent():
    assert found() == []
    call_command("check", databases=ALIASES)


def test_a_database_that_was_not_named_is_not_asked():
    # Without the fixture of a database, asking one would fail.
    assert check_stored_cluster(None) == []
    assert collations.check_collations(None) == []
    assert check_stored_cluster(None, databases=["reference"]) == []
    assert [each for each in run_checks(tags=["sharding"], databases=[]) if "sharding" in str(each.id)] == []


@ROLLED_BACK
@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"BUCKETS": 1024}, "BUCKETS=1024 and HASH='mmh3'"),
        ({"HASH": "identity"}, "BUCKETS=4096 and HASH='identity'"),
    ],
)
def test_changed_buckets_or_hash(changed, says):
    with override_settings(SHARDING={"SHARDS": ALIASES[1:], **changed}):
        assert found() == [
            Error(
                f"This cluster was initialised with BUCKETS=4096 and HASH='mmh3', but SHARDING says {says}.",
                hint="They never change, because rows are stored by them: put the former back.",
                id="sharding.E032",
            )
        ]


@ROLLED_BACK
def test_the_url_of_another_shard():
    stored = cluster().get().uuid
    identity("shard_b").update(shard="shard_c")
    hint = "Correct the URL of 'shard_b' before anything is written there."
    assert found() == [
        Error(
            f"The database of 'shard_b' says that it is 'shard_c' of cluster {stored}, not 'shard_b' of cluster "
            f"{stored}.",
            hint=hint,
            id="sharding.E033",
        )
    ]
    # `migrate --database shard_b` names that one alone.
    assert found("shard_b") == [
        Error(
            f"The database of 'shard_b' says that it is 'shard_c' of cluster {stored}.", hint=hint, id="sharding.E033"
        )
    ]
    with pytest.raises(SystemCheckError):
        call_command("check", databases=["shard_b"])


@ROLLED_BACK
def test_the_url_of_another_cluster():
    stored, other = cluster().get().uuid, uuid.uuid4()
    identity("shard_a").update(cluster=other)
    assert found() == [
        Error(
            f"The database of 'shard_a' says that it is 'shard_a' of cluster {other}, not 'shard_a' of cluster "
            f"{stored}.",
            hint="Correct the URL of 'shard_a' before anything is written there.",
            id="sharding.E033",
        )
    ]


@ROLLED_BACK
def test_a_control_database_from_an_old_backup():
    cluster().update(epoch=5)
    identity("shard_a").update(epoch=9)
    assert found() == [
        Error(
            "The database of 'shard_a' has seen epoch 9 of the bucket map, and the control database holds epoch 5.",
            hint="The control database was restored from an older backup. Stop the application and restore the newest "
            "map, or writes go to shards that have given their buckets away.",
            id="sharding.E034",
        )
    ]


@ROLLED_BACK
def test_a_cluster_that_was_never_initialised():
    cluster().delete()
    expected = Warning(
        "The control database holds no bucket map, but there are shards: shard_a, shard_b, shard_c.",
        hint="Run `manage.py migrate_all` and then `manage.py shards init`.",
        id="sharding.W035",
    )
    assert found("default") == [expected]
    with override_settings(SHARDING={"SHARDS": []}):
        assert found("default") == []


@ROLLED_BACK
def test_a_database_that_was_never_migrated():
    for alias in ALIASES:
        with connections[alias].cursor() as cursor:
            cursor.execute("DROP TABLE sharding_identity")
    assert found() == []


@ROLLED_BACK
def test_an_owner_that_is_not_declared():
    BucketOwner.objects.using(DEFAULT_DB_ALIAS).filter(bucket__lt=7).update(shard="shard_d")
    assert found() == [
        Error(
            "The bucket map names 'shard_d' as the owner of 7 buckets, and DATABASES does not have it.",
            hint="Declare it again (with sharding.env: set SHARD_URL_D); its rows are there.",
            id="sharding.E036",
        )
    ]


@ROLLED_BACK
def test_an_owner_that_the_shards_do_not_list():
    count = BucketOwner.objects.using(DEFAULT_DB_ALIAS).filter(shard="shard_c").count()
    with override_settings(SHARDING={"SHARDS": ["shard_a", "shard_b"]}):
        assert found() == [
            Error(
                f"The bucket map names 'shard_c' as the owner of {count} buckets, and SHARDING['SHARDS'] does not list "
                f"it.",
                hint="List it again: its rows are there, and it would be migrated as the database of an app.",
                id="sharding.E036",
            )
        ]


@ROLLED_BACK
def test_default_may_own_buckets_without_being_listed():
    BucketOwner.objects.using(DEFAULT_DB_ALIAS).filter(bucket__lt=7).update(shard=DEFAULT_DB_ALIAS)
    follow_map()
    assert found() == []


@ROLLED_BACK
def test_a_bucket_map_with_holes():
    BucketOwner.objects.using(DEFAULT_DB_ALIAS).filter(bucket__in=[7, 4095]).delete()
    assert found() == [
        Error(
            "The bucket map holds 4094 of 4096 buckets.",
            hint="Restore the table sharding_bucket of the control database from a backup.",
            id="sharding.E032",
        )
    ]


@ROLLED_BACK
def test_a_new_shard():
    BucketOwner.objects.using(DEFAULT_DB_ALIAS).filter(shard="shard_c").update(shard="shard_a")
    follow_map()
    assert found() == [
        Info(
            "The shard 'shard_c' is declared and owns no buckets.",
            hint="Move buckets to it with `manage.py rebalance`.",
            id="sharding.I038",
        )
    ]
    ShardNumber.objects.using(DEFAULT_DB_ALIAS).filter(shard="shard_c").delete()
    assert found() == [
        Warning(
            "The shard 'shard_c' is declared, and the cluster does not know it.",
            hint="Run `manage.py shards init` again: it numbers the new shard and leaves the bucket map alone.",
            id="sharding.W037",
        )
    ]


@pytest.mark.django_db(databases=ALIASES, transaction=True)
def test_a_shard_that_is_down():
    connection = connections["shard_b"]
    connection.close()
    port = connection.settings_dict["PORT"]
    connection.settings_dict["PORT"] = "1"
    try:
        [error] = found()
    finally:
        connection.settings_dict["PORT"] = port
    assert error.msg.startswith("The database of 'shard_b' cannot be asked: connection ")
    assert "Connection refused" in error.msg
    assert connection.settings_dict["PASSWORD"] not in error.msg or not connection.settings_dict["PASSWORD"]
    assert (error.hint, error.id) == ("Start its server, or correct its URL.", "sharding.E039")


@pytest.mark.django_db(databases=ALIASES, transaction=True)
@pytest.mark.parametrize("alias", ["default", "shard_b"])
def test_one_check_alone_says_that_a_database_is_down(alias):
    with down(alias):
        complaints = [each for each in run_checks(databases=[alias]) if each.is_serious()]
    assert [each.id for each in complaints] == ["sharding.E039"]
    assert complaints[0].msg.startswith(f"The database of {alias!r} cannot be asked: connection ")


@ROLLED_BACK
@pytest.mark.parametrize("alias", ALIASES)
def test_problems_of_the_settings_come_first(alias):
    message = (
        "SystemCheckError: System check identified some issues:\n\nERRORS:\n"
        "?: (sharding.E003) SHARDING['BUCKETS'] must be an integer from 1 to 4096, not 0.\n"
        "\tHINT: Leave it out for 4096. It can never change once the cluster is initialised.\n\n"
        "System check identified 1 issue (0 silenced)."
    )
    with override_settings(SHARDING={"BUCKETS": 0}), pytest.raises(SystemCheckError, match=whole(message)):
        call_command("check", databases=[alias])


def test_the_checks_have_djangos_tag_alone():
    # Under our own, Django 6 would run them for every database in `check --tag sharding`.
    assert getattr(check_stored_cluster, "tags", ()) == (Tags.database,)
    assert getattr(collations.check_collations, "tags", ()) == (Tags.database,)


# Keys that a database compares otherwise than by their bytes


@pytest.fixture
def label(monkeypatch):
    """A model with a text key, and one that refers to it."""
    monkeypatch.setattr(registry, "_models", {})
    registry.reset()
    with isolate_apps("tests.shop") as apps:

        class Label(ShardedModel):
            shard_key = "name"
            name = models.CharField(max_length=20, primary_key=True, db_collation="loose")

            class Meta:
                app_label = "shop"

        class Use(ShardedModel):
            shard_key = "label"
            id = ShardUUIDField(primary_key=True)
            label = models.ForeignKey(Label, models.CASCADE, db_constraint=False)
            note = models.TextField()

            class Meta:
                app_label = "shop"

        yield apps
    registry.reset()


def loose(label, *aliases):
    return collations.check_collations(list(label.get_app_configs()), databases=aliases)


def expected(field, alias, reason):
    label = f"{field.model._meta.label}.{field.name}"
    return Error(
        f"The column of {label} on {alias!r} {reason}, so that keys which are equal there have different buckets.",
        hint="Give the field a deterministic collation, and keep keys in one spelling, for example in lower case.",
        obj=field,
        id="sharding.E031",
    )


@ROLLED_BACK
def test_a_collation_that_is_not_there_is_left_to_the_database(label):
    assert loose(label, "default", "shard_a") == []


@ROLLED_BACK
def test_the_shop_compares_bytes():
    assert collations.check_collations(None, databases=ALIASES) == []


@pytest.mark.debian
@ROLLED_BACK
def test_a_nondeterministic_collation(label):
    name = label.get_model("shop.Label")._meta.pk
    use = label.get_model("shop.Use")._meta.get_field("label")
    with connections["shard_b"].cursor() as cursor:
        cursor.execute("CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
        reason = "has the nondeterministic collation 'loose'"
        # Before the tables exist, the model says it.
        assert loose(label, "default", "shard_b") == [
            expected(name, "shard_b", reason),
            expected(use, "shard_b", reason),
        ]
        cursor.execute('CREATE TABLE shop_label (name varchar(20) PRIMARY KEY COLLATE "C")')
        assert loose(label, "shard_b") == [expected(use, "shard_b", reason)]


@pytest.mark.debian
@ROLLED_BACK
def test_citext(label):
    name = label.get_model("shop.Label")._meta.pk
    with connections["shard_a"].cursor() as cursor:
        cursor.execute("CREATE EXTENSION citext")
        cursor.execute("CREATE DOMAIN label_name AS citext")
        for kind in ("citext", "label_name"):
            cursor.execute(f"CREATE TABLE shop_label (name {kind} PRIMARY KEY)")
            assert loose(label, "shard_a", "default") == [
                expected(name, "shard_a", "is of the type citext, which ignores case")
            ]
            cursor.execute("DROP TABLE shop_label")


@pytest.mark.parametrize("collation", ["NOCASE", "rtrim", "own"])
def test_collations_of_sqlite(collation):
    connection = SQLite({"NAME": ":memory:", "OPTIONS": {}})
    with isolate_apps("tests.shop"):

        class Label(models.Model):
            loose = models.CharField(max_length=20, db_collation=collation)
            binary = models.CharField(max_length=20, db_collation="binary")
            plain = models.CharField(max_length=20)

            class Meta:
                app_label = "shop"

    assert collations.loose(connection, Label._meta.get_field("loose")) == (
        f"has the collation {collation!r}, which ignores differences"
    )
    assert collations.loose(connection, Label._meta.get_field("binary")) is None
    assert collations.loose(connection, Label._meta.get_field("plain")) is None
