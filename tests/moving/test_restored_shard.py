"""
A shard that is restored from a backup, by the steps of docs/how-to/restore-a-shard.md: with pg_dump and pg_restore.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connections
from django.test import override_settings

from aggregator import fan_out
from scripts.postgres_programs import installed
from sharding import cluster_map, minting
from sharding.backends import agreeing
from sharding.cluster_checks import check_stored_cluster
from sharding.errors import ShardUncertified
from sharding.models import BucketOwner, Fence, ShardIdentity
from sharding.rebalance.phases import Phase, Wanted
from tests import servers
from tests.documents import ROOT
from tests.downtime import down
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.messages import whole
from tests.moving.scenes import Scene, fenced_cluster
from tests.moving.test_mover import run
from tests.moving.ways import stop_at
from tests.shop.models import Order, Tag

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)

SHARD = "shard_b"
PAGE = ROOT / "docs" / "how-to" / "restore-a-shard.md"


@pytest.fixture
def cluster(transactional_db: None) -> Iterator[None]:
    before = ShardIdentity.objects.using(SHARD).get().epoch
    with fenced_cluster():
        yield
    ShardIdentity.objects.using(SHARD).update(epoch=before)


def program(name: str, *arguments: str) -> None:
    settings = connections[SHARD].settings_dict
    account = {"PGHOST": settings["HOST"], "PGPORT": settings["PORT"], "PGUSER": settings["USER"]}
    version, _ = servers.SERVERS[servers.server]
    done = subprocess.run(
        [str(installed(version) / "bin" / name), *arguments],
        env={**os.environ, **{key: str(value) for key, value in account.items()}, "PGPASSWORD": settings["PASSWORD"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@contextmanager
def backup(folder) -> Iterator[None]:
    """Save the shard before the block, and restore it after it."""
    name = connections[SHARD].settings_dict["NAME"]
    file, restored = str(folder / "backup"), f"{name}_restored"
    program("pg_dump", "--format=custom", f"--file={file}", name)
    yield
    program("createdb", "--template=template0", restored)
    program("pg_restore", "--no-owner", "--exit-on-error", f"--dbname={restored}", file)
    connections.close_all()
    program("dropdb", "--force", name)
    with connections[SHARD].copy()._nodb_cursor() as cursor:
        cursor.execute(f'ALTER DATABASE "{restored}" RENAME TO "{name}"')


def certify(*arguments: str) -> list[str]:
    """Return the lines that the command prints, and its complaint as the last."""
    out = io.StringIO()
    try:
        call_command("shards", "certify", SHARD, *arguments, stdout=out)
    except CommandError as error:
        out.write(f"{error}\n")
    return [" ".join(line.split()) for line in out.getvalue().splitlines() if line.strip(" ─")]


def moved(scene: Scene) -> None:
    scene.plan()
    run(scene)
    cluster_map.refresh()


def orders() -> int:
    return fan_out(Order.objects).count()


@pytest.fixture
def restored(cluster: None, tmp_path) -> tuple[Scene, Scene]:
    """One bucket has left the shard since the backup, and one has come."""
    going, coming = Scene(SHARD, "shard_c"), Scene("shard_a", SHARD)
    with backup(tmp_path):
        for scene in (going, coming):
            moved(scene)
            scene.order(7)
        assert orders() == 8
    return going, coming


# `shards recover` asks each database.
@pytest.mark.django_db(databases="__all__", transaction=True, available_apps=SHOP_ONLY)
def test_the_steps_of_the_page(restored):
    going, coming = restored
    epoch = cluster_map.current().epoch
    # They are in the items of a list, where a block is indented.
    steps = re.findall(r"^ +\$ python manage\.py (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert steps[:4] == [
        "shards status",
        f"shards certify {SHARD}",
        f"shards certify {SHARD} --apply",
        f"shards certify {SHARD} --apply --accept-rows",
    ]

    with pytest.raises(CommandError, match=f"Something is wrong with {SHARD}"):
        call_command("shards", "status", stdout=io.StringIO())
    table = [
        "bucket fence owner rows here elsewhere what is wrong",
        *sorted(
            [
                f"{going.bucket} owned since {epoch - 2} shard_c since {epoch - 1} 11 shard_c: 14 shown here, and "
                f"another shard's by the map",
                f"{coming.bucket} - {SHARD} since {epoch} 0 - this shard's by the map, and not shown here",
            ],
            key=lambda line: int(line.split()[0]),
        ),
        "1 bucket with 11 rows here: shown here, and another shard's by the map.",
        "1 bucket with 0 rows here: this shard's by the map, and not shown here.",
    ]
    assert certify() == [
        *table,
        f"{SHARD} is not certified: its fence and the bucket map disagree about 2 buckets. Run this again with "
        f"--apply.",
    ]
    assert going.rows(SHARD)

    assert certify("--apply") == [
        *table,
        f"{SHARD} is not certified yet: 1 bucket of its own may lack rows that came after the backup. If you accept "
        f"the rows that are here, run this again with --apply --accept-rows.",
    ]
    row = Fence.objects.using(SHARD).get(bucket=going.bucket)
    assert (row.state, row.forward, row.epoch) == ("moved", "shard_c", epoch - 1)
    assert not Fence.objects.using(SHARD).filter(bucket=coming.bucket).exists()

    printed = certify("--apply", "--accept-rows")
    assert printed[-1] == f"{SHARD} is certified at epoch {epoch}."
    assert certify() == [f"The fence of {SHARD} agrees with epoch {epoch} of the bucket map."]

    for step in steps[4:]:
        call_command(*step.split(), stdout=io.StringIO()) if "audit" not in step else _audited(step, going)
    # Rows of the bucket that has gone are on its owner, and counted once; those of the other were not in the backup.
    assert orders() == 4
    assert Order.objects.filter(tenant_id=going.tenant).count() == 4
    Order.objects.create(tenant_id=coming.tenant)
    assert orders() == 5
    assert ShardIdentity.objects.using(SHARD).get().epoch == epoch
    assert going.rows(SHARD)


def _audited(step: str, going: Scene) -> None:
    """The rows that are hidden are told."""
    out = io.StringIO()
    with pytest.raises(CommandError, match="Not all rows are where they belong: 11 findings"):
        call_command(*step.split(), stdout=out)
    assert f"on {SHARD}, key {going.tenant}: belongs to shard_c" in out.getvalue()


def test_nothing_is_sent_to_a_shard_that_is_not_certified(restored):
    going, coming = restored
    disagree = f"disagree about {min(going.bucket, coming.bucket)}, {max(going.bucket, coming.bucket)}"
    message = whole(
        f"The fence of {SHARD!r} and the bucket map {disagree}, as after a restore from a backup, so that nothing was "
        f"sent there. Run `manage.py shards certify {SHARD}`."
    )
    for use in (
        lambda: Order.objects.create(tenant_id=coming.tenant),
        lambda: Order.objects.filter(tenant_id=coming.tenant).count(),
        lambda: Order.objects.filter(tenant_id=coming.tenant).update(total=1),
        lambda: Order.objects.using(SHARD).filter(tenant_id=coming.tenant).update(total=1),
        orders,
    ):
        with pytest.raises(ShardUncertified, match=message) as caught:
            use()
        assert caught.value.alias == SHARD
        assert caught.value.buckets == sorted([going.bucket, coming.bucket])
    # Other shards have nothing to do with it.
    assert Order.objects.filter(tenant_id=going.tenant).count() == 4
    found = check_stored_cluster(None, databases=["default", SHARD])
    assert [(each.id, each.msg, each.hint) for each in found] == [
        (
            "sharding.E053",
            f"The fence of {SHARD!r} and the bucket map disagree about 2 buckets, as after a restore from a backup.",
            f"Let nothing be written there before you have run `manage.py shards certify {SHARD}`.",
        )
    ]


def test_without_the_control_database_nobody_is_kept_from_a_shard(restored):
    going, _ = restored
    with down("default"):
        assert Order.objects.using(SHARD).filter(tenant_id=going.tenant).count() == 3


def test_a_bucket_that_has_been_away_and_come_back(cluster, tmp_path):
    scene = Scene(SHARD, "shard_c")
    with backup(tmp_path):
        moved(scene)
        scene.order(8)
        back = Scene.__new__(Scene)
        back.__dict__.update(scene.__dict__, source="shard_c", target=SHARD)
        moved(back)
        epoch = cluster_map.current().epoch
        assert orders() == 4
    assert [each["kind"] for each in json.loads("\n".join(certify("--json")[:-1]))["buckets"]] == ["outdated"]
    certify("--apply")
    assert Fence.objects.using(SHARD).get(bucket=scene.bucket).epoch < epoch
    assert certify("--apply", "--accept-rows")[-1] == f"{SHARD} is certified at epoch {epoch}."
    assert Fence.objects.using(SHARD).get(bucket=scene.bucket).epoch == epoch
    assert orders() == 3


def test_a_backup_from_the_midst_of_a_move(cluster, tmp_path):
    scene = Scene(SHARD, "shard_c")
    scene.plan()
    stop_at(scene, Phase.FINISHING)
    with backup(tmp_path):
        scene.wish(Wanted.ABORT)
        run(scene)
    assert scene.states()[0] == "fenced"
    (line,) = [line for line in certify() if line.startswith(f"{scene.bucket} ")]
    assert line.endswith("was on its way when this backup was made")
    certify("--apply")
    assert scene.states()[0] == "owned"
    scene.order(3)
    assert scene.leftovers() == {}


def test_ids_that_were_made_after_the_backup_are_not_made_again(cluster, tmp_path):
    home = Scene(SHARD, "shard_c")
    with backup(tmp_path):
        # The block of numbers that this process has is from before the backup.
        minting.forget()
        after = Tag.objects.create(tenant_id=home.tenant, label="lost").pk
    assert certify("--apply")[-1].startswith(f"{SHARD} is certified at epoch ")
    minting.forget()
    again = Tag.objects.create(tenant_id=home.tenant, label="new").pk
    assert again > after


def test_moves_that_are_under_way(cluster):
    scene = Scene("shard_a", SHARD)
    scene.plan()
    stop_at(scene, Phase.COPYING)
    Fence.objects.using(SHARD).filter(bucket=scene.bucket).update(state="owned")
    complaint = (
        f"{SHARD!r} cannot be certified while moves are under way of buckets about which its fence and the bucket map "
        f"disagree: bucket {scene.bucket} from shard_a to {SHARD} (copying). Let them end, or take them back; where "
        f"a move cannot go on any more because of the restore, restore its other shard to the same moment."
    )
    for arguments in ((), ("--apply",), ("--apply", "--accept-rows")):
        assert certify(*arguments)[-1] == complaint
    assert Fence.objects.using(SHARD).get(bucket=scene.bucket).state == "owned"
    # A session does not take it for a restore.
    connections[SHARD].close()
    assert Order.objects.using(SHARD).count() == 0
    Fence.objects.using(SHARD).filter(bucket=scene.bucket).update(state="importing")


def test_a_session_is_asked_once_and_moves_are_explained_once(cluster, monkeypatch):
    compared = []
    compare = agreeing._compare

    def noted(connection, shown):
        compared.append(shown)
        compare(connection, shown)

    monkeypatch.setattr(agreeing, "_compare", noted)
    tenant = Scene("shard_a", SHARD).tenant
    for _ in range(3):
        Order.objects.filter(tenant_id=tenant).count()
    before = len(compared)
    connections["shard_a"].close()
    for _ in range(3):
        Order.objects.filter(tenant_id=tenant).count()
    assert len(compared) == before + 1


def test_nothing_is_hidden_in_favour_of_an_owner_that_is_not_declared(cluster):
    bucket = cluster_map.current().buckets_of(SHARD)[0]
    BucketOwner.objects.using("default").filter(bucket=bucket).update(shard="shard_x")
    try:
        assert certify("--apply")[-1].startswith(f"{SHARD} is certified at epoch ")
        assert Fence.objects.using(SHARD).get(bucket=bucket).state == "owned"
    finally:
        BucketOwner.objects.using("default").filter(bucket=bucket).update(shard=SHARD)


def test_what_is_no_shard(cluster):
    with pytest.raises(
        CommandError,
        match=whole("'shard_x' is no shard of this cluster. Its databases are default, shard_a, shard_b, shard_c."),
    ):
        call_command("shards", "certify", "shard_x")


def test_without_fences_there_is_nothing_to_certify(transactional_db):
    with override_settings(SHARDING={**settings.SHARDING, "FENCE": None}):
        assert certify() == [
            "'shard_b' has no fence, so there is nothing to certify. Fences are PostgreSQL's, with SHARDING['FENCE']."
        ]


def test_default_is_certified_like_a_shard(cluster):
    bucket = cluster_map.current().buckets_of("default")[0]
    Fence.objects.using("default").filter(bucket=bucket).update(state="fenced")
    call_command("shards", "certify", "default", "--apply", stdout=io.StringIO())
    assert Fence.objects.using("default").get(bucket=bucket).state == "owned"


def test_rows_are_accepted_only_when_something_is_applied(cluster):
    assert certify("--accept-rows") == [
        "--accept-rows changes something, so it needs --apply. Look first, without both."
    ]


def test_a_sound_shard_is_certified_at_once(cluster):
    epoch = cluster_map.current().epoch
    assert certify() == [f"The fence of {SHARD} agrees with epoch {epoch} of the bucket map."]
    assert BucketOwner.objects.using("default").filter(shard=SHARD).exists()
