"""The checks of the fences, on the real test cluster whose fences are spoilt; and what `shards status` says of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.core.checks import Warning
from django.core.management import call_command
from django.test import override_settings

from sharding.control import BucketOwner, ShardIdentity
from sharding.fence import raising
from sharding.fence_checks import check_fences, check_is_fenced, check_labels
from sharding.models import Fence
from tests import servers
from tests.shards.command import ALIASES, ROLLED_BACK, SHARDS, execute, lines, refused, run

pytestmark = pytest.mark.skipif(servers.engine != "postgresql", reason="only PostgreSQL has fences")

RAISE = "Run `manage.py migrate_all`."


def found(*aliases: str) -> list[Any]:
    return check_fences(None, databases=aliases or ALIASES)


def fence(alias: str) -> Any:
    return Fence.objects.using(alias)


@ROLLED_BACK
def test_a_sound_cluster_is_silent() -> None:
    assert found() == []
    assert check_is_fenced(None) == []
    data = json.loads(run("status", "--json"))
    assert [data["databases"][alias]["fenced"] for alias in ALIASES] == [True] * 4


def test_a_database_that_was_not_named_is_not_asked() -> None:
    # Without the fixture of a database, asking one would fail.
    assert check_fences(None) == []
    assert check_fences(None, databases=["reference"]) == []


LACKS: dict[str, tuple[Callable[[], Any], str]] = {
    "no fence": (lambda: execute("shard_b", "DROP FUNCTION sharding_fence_check CASCADE"), "is missing"),
    "another version": (
        lambda: execute("shard_b", "COMMENT ON FUNCTION sharding_fence_check IS 'sharding fence 0'"),
        "is of another version",
    ),
    "no comment": (
        lambda: execute("shard_b", "COMMENT ON FUNCTION sharding_fence_check IS NULL"),
        "is of another version",
    ),
    "triggers of another form": (
        lambda: execute("shard_b", "DROP TRIGGER zz_sharding_fence_row_update ON shop_order"),
        "has not the triggers that it should have on public.shop_order",
    ),
    "triggers that are off": (
        lambda: execute("shard_b", "ALTER TABLE shop_order DISABLE TRIGGER zz_sharding_fence_row_insert"),
        "has not the triggers that it should have on public.shop_order",
    ),
}


@ROLLED_BACK
@pytest.mark.parametrize(("spoil", "says"), LACKS.values(), ids=LACKS)
def test_what_a_fence_lacks(spoil: Callable[[], Any], says: str) -> None:
    spoil()
    assert found() == found("shard_b") == [Warning(f"The fence of 'shard_b' {says}.", hint=RAISE, id="sharding.W076")]
    printed, complaint = refused("status")
    assert complaint == "Something is wrong with shard_b."
    assert f"shard_b: Its fence {says}. {RAISE}" in " ".join(printed.split())
    assert [line.split()[-1] for line in lines(printed)[5:9]] == ["ok", "ok", "WRONG", "ok"]
    raising.raise_around("shard_b")
    assert found() == []


@ROLLED_BACK
def test_many_tables_are_not_all_named() -> None:
    for table in ("account", "customer", "device", "entry", "ledger", "line", "order"):
        execute("shard_b", f"DROP TRIGGER zz_sharding_fence_truncate ON shop_{table}")
    [warning] = found()
    assert warning.msg == (
        "The fence of 'shard_b' has not the triggers that it should have on public.shop_account, public.shop_customer, "
        "public.shop_device, public.shop_entry, public.shop_ledger and 2 more."
    )


@ROLLED_BACK
def test_another_form_is_chosen() -> None:
    with override_settings(SHARDING={"SHARDS": SHARDS, "FENCE": {"shop.Order": "statement"}}):
        assert [warning.msg for warning in found("shard_a")] == [
            "The fence of 'shard_a' has not the triggers that it should have on public.shop_order."
        ]


@ROLLED_BACK
def test_who_has_no_fence_is_asked_for_none() -> None:
    execute("shard_b", "DROP FUNCTION sharding_fence_check CASCADE")
    for given in ({"SHARDS": SHARDS, "FENCE": None}, {"SHARDS": []}):
        with override_settings(SHARDING=given):
            assert found() == []
    # Before it belongs to a cluster, a database has nothing to defend.
    ShardIdentity.objects.using("shard_b").delete()
    assert found() == []
    execute("shard_b", "DROP TABLE sharding_fence")
    assert found() == []


@ROLLED_BACK
def test_without_a_whole_map_only_the_triggers_are_looked_at() -> None:
    BucketOwner.objects.using("default").filter(bucket=5).delete()
    assert found() == []


def test_no_fence_although_there_are_shards() -> None:
    with override_settings(SHARDING={"SHARDS": SHARDS, "FENCE": None}):
        assert check_is_fenced(None) == [
            Warning(
                "Shards are declared, and SHARDING['FENCE'] is None.",
                hint="Leave it out. Without a fence, a shard takes what a process with an old bucket map writes there "
                "of buckets that have moved away, and that is lost.",
                id="sharding.W078",
            )
        ]
    for given in ({"SHARDS": [], "FENCE": None}, {"SHARDS": SHARDS, "FENCE": "rows"}):
        with override_settings(SHARDING=given):
            assert check_is_fenced(None) == []
    with override_settings(SHARDING={"SHARDS": SHARDS, "FENCE": "rows"}):
        assert check_fences(None, databases=ALIASES) == []


def test_labels_that_name_no_sharded_model() -> None:
    given = {"default": "row", "shop.ORDER": "statement", "shop.Region": "row", "nope": "row"}
    with override_settings(SHARDING={"SHARDS": SHARDS, "FENCE": given}):
        assert check_labels(None) == [
            Warning(
                f"SHARDING['FENCE'] names {label!r}, which is no sharded model.",
                hint="Write its label, such as 'shop.Event', or leave it out.",
                id="sharding.W077",
            )
            for label in ("nope", "shop.region")
        ]
    for fence_of_all in ("row", None, {"default": "statement"}, "rows"):
        with override_settings(SHARDING={"SHARDS": SHARDS, "FENCE": fence_of_all}):
            assert check_labels(None) == []


@pytest.mark.filterwarnings("ignore:Overriding setting DATABASES:UserWarning")
def test_sqlite_has_none_to_miss() -> None:
    databases = {"default": {"ENGINE": "sharding.backends.sqlite3"}}
    with override_settings(SHARDING={"SHARDS": SHARDS, "FENCE": None}, DATABASES=databases):
        assert check_is_fenced(None) == []


@ROLLED_BACK
def test_check_tells_what_a_fence_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    execute("shard_b", "DROP FUNCTION sharding_fence_check CASCADE")
    call_command("check", databases=["shard_b"])
    assert "(sharding.W076) The fence of 'shard_b' is missing." in capsys.readouterr().err
