"""The command `rebalance plan`: what it plans on real shards, what it prints, and what it refuses."""

from __future__ import annotations

import io
import re

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connections
from django.test import override_settings

from sharding import bucket_of, cluster_map
from sharding.control import BucketOwner, ShardNumber
from sharding.rebalance import plan_file
from tests.layouts import CLUSTER, SHOP_ONLY, neighbour_in_bucket, tenant_on, tenants_on
from tests.shop.models import Customer, Order

pytestmark = pytest.mark.django_db(databases=CLUSTER)


def run(*arguments):
    """Return the lines that the command prints."""
    out = io.StringIO()
    call_command("rebalance", "plan", *arguments, stdout=out)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def refused(*arguments):
    with pytest.raises(CommandError) as raised:
        run(*arguments)
    assert raised.value.returncode == 1
    return str(raised.value)


def planned(*arguments):
    return plan_file.from_json("\n".join(run(*arguments, "--json")))


@pytest.fixture(autouse=True)
def same_map_afterwards(monkeypatch):
    monkeypatch.setattr(cluster_map, "_loaded", cluster_map._loaded)


def give(source, target):
    """Let a shard have the buckets of another one, by the map."""
    BucketOwner.objects.filter(shard=source).update(shard=target)
    cluster_map.forget()


def fill(tenant, rows):
    Order.objects.bulk_create([Order(tenant_id=tenant) for _ in range(rows)])
    return bucket_of(tenant, model=Order)


@pytest.fixture
def uneven():
    """Three tenants on shard_a, and one on each of the others."""
    tenants = tenants_on("shard_a")
    found = [fill(next(tenants), 100) for _ in range(3)]
    fill(tenant_on("shard_b"), 100)
    fill(tenant_on("shard_c"), 100)
    return found


def test_nothing_is_to_be_done():
    assert run("--by", "buckets") == [
        "Nothing is to be moved.",
        "  Each shard's load is within 10 % of its fair share: there is nothing to do.",
        "",
        "Nothing was changed.",
    ]


def test_a_plan_is_shown_and_nothing_is_changed(uneven):
    before = list(BucketOwner.objects.values_list("bucket", "shard"))
    printed = run("--by", "rows", "--threshold", "0.5")
    (moved,) = {move.bucket for move in planned("--by", "rows", "--threshold", "0.5").moves if move.rows}
    assert moved in uneven
    assert [line for line in printed if "before" in line] == [
        "shard_a   before    300   ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒    1.76",
        "shard_b   before    100   ▒▒▒▒▒▒▒▒▒      ┃                0.62",
        "shard_c   before    100   ▒▒▒▒▒▒▒▒▒      ┃                0.62",
    ]
    assert any(re.match(rf" *{moved}   shard_a   shard_[bc] +100 ", line) for line in printed)
    assert any(line.endswith(" at 20 MB/s (assumed).") for line in printed)
    assert printed[-1] == "Nothing was changed."
    assert list(BucketOwner.objects.values_list("bucket", "shard")) == before


def test_a_rate_that_is_given_is_said_to_be(uneven):
    assert any(line.endswith(" at 1.5 GB/s (given).") for line in run("--by", "rows", "--rate", "1.5GB"))


def test_the_plan_is_written_to_a_file_as_json_shows_it(uneven, tmp_path):
    path = tmp_path / "plan.json"
    printed = run("--drain", "shard_b", "--by", "rows", "--output", str(path))
    assert printed[-1] == f"Written to {path}. Nothing else was changed."
    found = plan_file.read(path)
    assert found == planned("--drain", "shard_b", "--by", "rows")
    assert {move.source for move in found.moves} == {"shard_b"}
    assert len(found.moves) == len(cluster_map.current().buckets_of("shard_b"))
    assert refused("--output", str(tmp_path)) == f"The plan cannot be written to {str(tmp_path)!r}: Is a directory."


def test_a_drained_shard_goes_to_those_alone_that_may_receive():
    found = planned("--drain", "shard_b", "--only", "shard_c", "--by", "buckets")
    assert {(move.source, move.target) for move in found.moves} == {("shard_b", "shard_c")}


def test_weights():
    found = planned("--weights", "shard_a=2", "shard_b=1", "--by", "buckets")
    counts = {share.alias: share.buckets for share in found.after.shares}
    assert counts["shard_a"] == pytest.approx(2048, rel=0.02)
    assert (
        "  Put these weights into SHARDING['WEIGHTS'] as well, or the next plan takes them back: 'shard_a': 2."
        in run("--weights", "shard_a=2", "shard_b=1", "--by", "buckets")
    )


def test_default_gives_buckets_and_gets_none_unless_it_is_asked_to():
    BucketOwner.objects.update(shard="default")
    cluster_map.forget()
    found = planned("--by", "buckets")
    assert {move.source for move in found.moves} == {"default"}
    assert {share.alias: share.buckets for share in found.after.shares} == pytest.approx(
        dict.fromkeys(CLUSTER, 1024), rel=0.02
    )
    assert {move.target for move in planned("--drain", "default", "--by", "buckets").moves} == set(CLUSTER[1:])


def test_capacity():
    bucket = fill(tenant_on("shard_b"), 50)
    complaint = refused("--drain", "shard_b", "--capacity", "shard_a=1kB", "shard_c=2kB")
    assert complaint.startswith("The buckets of 'shard_b' do not fit on the other shards: ")
    assert complaint.endswith(
        " bytes fits nowhere (shard_a has 1,024 of 1,024 bytes free; shard_c has 2,048 of 2,048 bytes free). Raise a "
        "capacity, or add a shard."
    )
    assert f" and bucket {bucket} with " in complaint


def test_a_key_gets_a_shard_of_its_own_and_its_neighbours_come_along():
    whale = tenant_on("shard_a")
    small, smaller = neighbour_in_bucket(whale), neighbour_in_bucket(neighbour_in_bucket(whale))
    bucket = fill(whale, 100)
    fill(small, 20)
    fill(smaller, 10)
    Customer.objects.create(tenant_id=small, name="Ada")
    give("shard_c", "shard_b")
    printed = run("--isolate", f"shop.Order:{whale}", "--to", "shard_c")
    found = planned("--isolate", f"shop.order:{whale}")
    (move,) = found.moves
    assert (move.bucket, move.source, move.target, move.rows) == (bucket, "shard_a", "shard_c", 131)
    assert found.pins == ((bucket, "shard_c"),)
    start = printed.index(next(line for line in printed if line.startswith("comes along")))
    assert [line.split()[:2] for line in printed[start + 2 : start + 4]] == [
        [f"tenant_id={small}", "21"],
        [f"tenant_id={smaller}", "10"],
    ]
    assert f"Put the pin {bucket}: 'shard_c' into SHARDING['PINS'] once this is done." in printed
    assert any(
        line.startswith(f"  Bucket {bucket}, which has the key tenant_id={whale}, is pinned to shard_c. 2 other keys")
        for line in printed
    )


def test_a_shard_that_is_not_empty_gives_its_buckets_away_or_shares():
    whale = tenant_on("shard_a")
    alone = planned("--isolate", f"shop.Order:{whale}", "--to", "shard_c")
    assert len(alone.moves) == 1 + len(cluster_map.current().buckets_of("shard_c"))
    assert len(planned("--isolate", f"shop.Order:{whale}", "--to", "shard_c", "--shared").moves) == 1


def test_keys_that_are_none():
    assert refused("--isolate", "42") == (
        "'42' could be a key of several kinds of models. Write the label of one and a colon before it; there are "
        "shop.Account, shop.Customer, shop.Device."
    )
    assert refused("--isolate", "shop.Order:x") == ("'x' is no tenant_id of shop.Order: “x” value must be an integer.")


def test_a_shard_that_is_declared_and_not_known():
    ShardNumber.objects.filter(shard="shard_c").delete()
    give("shard_c", "shard_b")
    assert refused("--add", "shard_c") == (
        "--add names 'shard_c', which is declared, and the cluster does not know it yet. Run `manage.py migrate_all` "
        "and `manage.py shards init`: they make its tables, give it a number and its identity, and leave the bucket "
        "map alone."
    )
    assert (
        "  shard_c is left out, because the cluster does not know it yet. Run `manage.py migrate_all` and "
        "`manage.py shards init`." in run("--by", "buckets")
    )
    assert {move.target for move in planned("--by", "buckets").moves} == {"shard_a"}


def test_a_shard_that_was_added_gets_its_fair_share():
    give("shard_c", "shard_b")
    found = planned("--add", "shard_c", "--by", "buckets")
    assert {move.target for move in found.moves} == {"shard_c"}
    assert refused("--add", "shard_x") == (
        "--add names 'shard_x', which is no shard of this cluster. Its databases are default, shard_a, shard_b, "
        "shard_c. Correct the name, or declare the shard in DATABASES."
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ["--isolate", "1", "--drain", "shard_b"],
            "--isolate moves one bucket, so --drain cannot be given as well. Make two plans.",
        ),
        (["--to", "shard_b"], "--to is about the key of --isolate, and none is given. Name a key, or leave it out."),
        (["--shared"], "--shared is about the key of --isolate, and none is given. Name a key, or leave it out."),
        (
            ["--add", "shard_c", "--only", "shard_c"],
            "--add says which shards receive, so --only cannot be given as well. Make two plans.",
        ),
        (
            ["--drain", "shard_c", "--only", "shard_c"],
            "'shard_c' is to be drained, so --only cannot name it as well.",
        ),
        (["--threshold", "-1"], "The threshold is a number of 0 or more, as 0.1 is for 10 %, not -1.0."),
        (["--weights", "shard_a=0"], "The weight of 'shard_a' is a positive number, not 0.0."),
        (["--weights", "shard_a=1", "shard_a=2"], "--weights names the shard 'shard_a' twice. Keep one of them."),
        (
            ["--capacity", "shard_a=much"],
            "Error: argument --capacity: 'much' is no size. Write it as 200GB; the units are kB, MB, GB and TB.",
        ),
        (["--capacity", "much"], "Error: argument --capacity: 'much' is not of the form ALIAS=SIZE."),
        (
            ["--sample", "2"],
            "Error: argument --sample: 2 is no part of all rows, which is more than 0 and at most 1.",
        ),
        (["--sample", "x"], "Error: argument --sample: 'x' is not a number."),
    ],
)
def test_wishes_that_cannot_be(arguments, complaint):
    assert refused(*arguments) == complaint


def test_without_shards_there_is_nothing_to_plan():
    with override_settings(SHARDING={"SHARDS": []}):
        BucketOwner.objects.all().delete()
        cluster_map.forget()
        connections["default"].cursor().execute("DELETE FROM sharding_cluster")
        assert refused() == (
            "There is no shard to which buckets could move. Declare shards in DATABASES, and run "
            "`manage.py migrate_all` and `manage.py shards init`."
        )


@pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)
def test_a_shard_that_does_not_answer(monkeypatch):
    monkeypatch.setitem(connections["shard_b"].settings_dict, "PORT", "1")
    connections["shard_b"].close()
    first, second = refused().splitlines()
    assert first.startswith("A database does not answer: connection ")
    assert second == "This was met on the shard 'shard_b'. `manage.py shards status` shows which databases answer."
