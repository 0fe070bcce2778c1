"""A shard is given all rows before it serves; what lacks some is named, refused, and repaired."""

from __future__ import annotations

import json
import threading

import pytest
from django.core.checks import Warning
from django.db import DEFAULT_DB_ALIAS, connections

from aggregator import fan_out, on_each_shard
from sharding import cluster_map, map_reading, reference_copies, reference_sync, routing
from sharding.cluster_checks import check_stored_cluster
from sharding.control import BucketOwner, ReferenceCopies
from sharding.errors import ReferenceOutdated, UnknownShard
from sharding.testing.statements import statements
from tests.clocks import change_time
from tests.layouts import CLUSTER, tenant_on
from tests.messages import whole
from tests.reference.copies import MODELS, everywhere, rows_of
from tests.shards.command import lines, refused, run
from tests.shop.models import Country, Currency, Customer

pytestmark = pytest.mark.django_db(databases=CLUSTER)

TABLES = sorted(model._meta.db_table for model in MODELS)


@pytest.fixture(autouse=True)
def forgotten():
    """What a test makes this process believe is forgotten."""
    yield
    cluster_map.forget()


@pytest.fixture
def rows(db):
    euro = Currency.objects.create(code="EUR")
    finland = Country.objects.create(code="FI", name="Finland", currency=euro)
    finland.neighbours.add(Country.objects.create(code="SE", name="Sweden"))
    return finland


def native(alias, sql, *params):
    with routing.native(alias), connections[alias].cursor() as cursor:
        cursor.execute(sql, params)


def take_away(alias):
    """Let a shard be one that was never given any rows."""
    for model in reversed(MODELS):
        native(alias, f"DELETE FROM {model._meta.db_table}")
    for stored in ReferenceCopies.objects.using(DEFAULT_DB_ALIAS).all():
        stored.shards = json.dumps([each for each in json.loads(stored.shards) if each != alias])
        stored.save(using=DEFAULT_DB_ALIAS)
    cluster_map.refresh()


def refusal(alias, table="shop_country", label="shop.Country"):
    return whole(
        f"The shard {alias!r} was not given the rows of {table!r} yet, a table of the reference model {label}. Run "
        f"`manage.py migrate_all`, which copies them."
    )


def test_a_test_cluster_holds_everything():
    assert dict(ReferenceCopies.objects.using(DEFAULT_DB_ALIAS).values_list("table_name", "shards")) == dict.fromkeys(
        TABLES, json.dumps(["shard_a", "shard_b", "shard_c"])
    )
    assert reference_sync.shards_behind() == {}


def test_a_shard_without_the_rows_does_not_serve_them(rows):
    take_away("shard_b")
    tenant = tenant_on("shard_b")
    Customer.objects.create(tenant_id=tenant, name="Ada")
    ada = Customer.objects.filter(tenant_id=tenant)
    assert ada.count() == 1
    for query in (
        ada.filter(country__code="FI"),
        ada.select_related("country"),
        fan_out(ada.order_by("country__name")),
    ):
        with pytest.raises(ReferenceOutdated, match=refusal("shard_b")) as caught:
            list(query)
        assert (caught.value.table, caught.value.alias) == ("shop_country", "shard_b")
    with pytest.raises(ReferenceOutdated, match=refusal("shard_b")):
        list(Country.objects.using("shard_b").raw("SELECT * FROM shop_country"))
    assert list(Customer.objects.filter(tenant_id=tenant_on("shard_a"), country__code="FI")) == []
    reference_sync.bring_up_to_date("shard_b")
    assert list(ada.filter(country__code="FI")) == []
    assert list(ada.select_related("country")) == [ada.get()]


def test_a_process_learns_of_it_with_the_bucket_map(rows):
    take_away("shard_b")
    assert reference_copies.missing("shard_b") == TABLES
    reference_copies.add(connections["default"], "shard_b", TABLES)
    customers = Customer.objects.filter(tenant_id=tenant_on("shard_b"), country__code="FI")
    with pytest.raises(ReferenceOutdated):
        list(customers)
    assert reference_copies.missing("shard_b") == []
    cluster_map.refresh()
    assert list(customers) == []


def test_once_everything_is_there_nothing_is_asked(rows):
    customers = Customer.objects.filter(tenant_id=tenant_on("shard_b"), country__code="FI")
    list(customers)
    with statements() as sent:
        list(customers.all())
    assert sent.counts == {"shard_b": 1}


def test_nothing_of_it_is_asked_in_the_threads_of_a_fan_out(rows, monkeypatch):
    """Their connections would be the threads' own."""
    asked: list[int] = []
    stored = map_reading.stored_copies

    def ask(before):
        asked.append(threading.get_ident())
        return stored(before)

    monkeypatch.setattr(map_reading, "stored_copies", ask)
    cluster_map.forget()
    list(fan_out(Customer.objects).filter(country__code="FI"))
    assert asked == [threading.get_ident()]
    cluster_map.forget()
    on_each_shard(lambda connection: connection.cursor().execute("SELECT count(*) FROM shop_country"), parallel=True)
    assert asked == [threading.get_ident()] * 2


def test_writes_go_to_the_shards_that_hold_the_rows(rows):
    take_away("shard_b")
    rows.name = "Suomi"
    with statements() as sent:
        rows.save()
    assert "shard_b" not in sent
    assert rows_of(Country, "shard_a") == rows_of(Country, "default")
    assert rows_of(Country, "shard_b") == []
    found = reference_sync.bring_up_to_date("shard_b")
    assert [(each.model, len(each.missing), each.repaired) for each in found] == [
        ("shop.Currency", 1, 1),
        ("shop.Country", 2, 2),
        ("shop.Country_neighbours", 2, 2),
    ]
    for model in MODELS:
        everywhere(model)


def test_what_is_missing_is_told(rows):
    take_away("shard_b")
    expected = f"It was not given the rows of {', '.join(TABLES)}. Run `manage.py migrate_all`."
    printed, complaint = refused("status", "--json")
    assert json.loads(printed)["databases"]["shard_b"]["problems"] == [expected]
    assert complaint == "Something is wrong with shard_b."
    assert check_stored_cluster(None, databases=CLUSTER) == [
        Warning(
            f"The shard 'shard_b' was not given the rows of reference models: {', '.join(TABLES)}.",
            hint="Run `manage.py migrate_all`, or `manage.py shards init` again. Until then, statements there that "
            "read these tables are refused, and writes of these models do not reach it.",
            id="sharding.W052",
        )
    ]
    assert check_stored_cluster(None, databases=["shard_b"]) == []
    assert lines(run("init")) == [
        "Copied the rows of reference models to shard_b.",
        "The bucket map is as it was. Move buckets with `manage.py rebalance`.",
    ]
    for model in MODELS:
        everywhere(model)
    assert check_stored_cluster(None, databases=CLUSTER) == []


def test_a_shard_that_left_is_given_the_rows_anew_when_it_returns(rows):
    """While it is away writes do not reach it, and the first one notes that it lacks rows."""
    stored = ReferenceCopies.objects.using(DEFAULT_DB_ALIAS).get(table_name="shop_country")
    stored.shards = json.dumps(["shard_a", "shard_b", "shard_c", "shard_gone"])
    stored.save(using=DEFAULT_DB_ALIAS)
    rows.save()
    stored.refresh_from_db()
    assert json.loads(stored.shards) == ["shard_a", "shard_b", "shard_c"]


def test_a_shard_that_serves_and_that_this_process_does_not_know(rows):
    stored = ReferenceCopies.objects.using(DEFAULT_DB_ALIAS).get(table_name="shop_country")
    stored.shards = json.dumps(["shard_a", "shard_gone"])
    stored.save(using=DEFAULT_DB_ALIAS)
    BucketOwner.objects.using(DEFAULT_DB_ALIAS).filter(bucket=7).update(shard="shard_gone")
    message = (
        "The shard 'shard_gone' owns buckets and holds a copy of 'shop_country', but is not in DATABASES, so this "
        "write would not reach it. Declare it again, or restart this process with today's settings."
    )
    with pytest.raises(UnknownShard, match=whole(message)) as caught:
        rows.save()
    assert caught.value.alias == "shard_gone"


def test_every_kind_of_difference_is_put_right(rows):
    native("shard_a", "UPDATE shop_country SET name = 'other' WHERE code = 'FI'")
    native("shard_a", "DELETE FROM shop_country_neighbours")
    native("shard_a", "INSERT INTO shop_currency (code, digits) VALUES ('OLD', 0)")
    native("shard_c", "DELETE FROM shop_country_neighbours")
    found = {drift.model: drift for drift in reference_sync.bring_up_to_date("shard_a")}
    assert {model: (len(each.missing), len(each.differing), len(each.surplus)) for model, each in found.items()} == {
        "shop.Currency": (0, 0, 1),
        "shop.Country": (0, 1, 0),
        "shop.Country_neighbours": (2, 0, 0),
    }
    assert all(each.wrong == 0 for each in found.values())
    reference_sync.bring_up_to_date("shard_c")
    for model in MODELS:
        everywhere(model)


def test_a_surplus_row_to_which_others_refer_is_left(rows):
    tenant = tenant_on("shard_a")
    native(
        "shard_a",
        "INSERT INTO shop_country (id, code, name, rate, changed) VALUES (7000900, 'XX', 'x', 1, '2020-01-01')",
    )
    customer = Customer.objects.create(tenant_id=tenant, name="Ada", country_id=7000900)
    native(
        "shard_a",
        "INSERT INTO shop_country (id, code, name, rate, changed) VALUES (7000901, 'XY', 'x', 1, '2020-01-01')",
    )
    (found,) = (drift for drift in reference_sync.bring_up_to_date("shard_a") if drift.model == "shop.Country")
    assert (len(found.surplus), found.repaired, found.wrong) == (2, 1, 1)
    assert [*found.referred_to] == ["shop.Customer"]
    customer.delete()
    reference_sync.bring_up_to_date("shard_a")
    everywhere(Country)


def test_the_audit_finds_and_repairs(rows):
    native("shard_a", "UPDATE shop_country SET name = 'other' WHERE code = 'FI'")
    native("shard_b", "DELETE FROM shop_country_neighbours")
    native("shard_b", "INSERT INTO shop_currency (code, digits) VALUES ('OLD', 0)")
    pk = rows.pk
    printed, complaint = refused("audit")
    assert complaint == "Not all rows are where they belong: 4 findings."
    assert lines(printed)[1] == "9 copies of reference tables, compared with the control database's rows."
    links = ", ".join(str(each.pk) for each in Country.neighbours.through.objects.order_by("pk"))
    table = [line.split("   ") for line in lines(printed)[5:]]
    assert [[cell.strip() for cell in row if cell.strip()] for row in table] == [
        ["shop.Country", "shard_a", "0", "1", "0", f"{pk}"],
        ["shop.Currency", "shard_b", "0", "0", "1", "OLD"],
        ["shop.Country_neighbours", "shard_b", "2", "0", "0", links],
    ]
    data = json.loads(refused("audit", "--json", "--model", "shop.country")[0])
    assert (data["copies"], data["wrong"], data["tables"]) == (3, 1, 0)
    assert data["drifts"] == [
        {
            "model": "shop.Country",
            "database": "shard_a",
            "missing": 0,
            "differing": 1,
            "surplus": 0,
            "repaired": 0,
            "referred_to": {},
            "examples": [str(pk)],
        }
    ]
    assert lines(run("audit", "--repair-reference"))[-1] == "Reference rows put right: 4."
    for model in MODELS:
        everywhere(model)
    assert lines(run("audit"))[-1] == "Every row is where it belongs."


def test_the_audit_lists_keys_as_one_counts(db):
    """They travel as text, in which 10 comes before 9."""
    for pk, code in ((10, "NO"), (-2, "DK"), (9, "SE"), (100, "IS"), (-10, "FO")):
        Country.objects.create(pk=pk, code=code, name=code)
    Currency.objects.bulk_create(Currency(code=code) for code in ("b", "10", "9", "a9", "a10", "9b"))
    native("shard_a", "DELETE FROM shop_country")
    native("shard_a", "UPDATE shop_currency SET digits = 3")
    found = {each["model"]: each["examples"] for each in json.loads(refused("audit", "--json")[0])["drifts"]}
    assert found == {
        "shop.Country": ["-10", "-2", "9", "10", "100"],
        "shop.Currency": ["9", "10", "9b", "a10", "a9"],
    }


def test_the_audit_tells_what_it_left(rows):
    native(
        "shard_a",
        "INSERT INTO shop_country (id, code, name, rate, changed) VALUES (7000900, 'XX', 'x', 1, '2020-01-01')",
    )
    customer = Customer.objects.create(tenant_id=tenant_on("shard_a"), name="Ada", country_id=7000900)
    printed, complaint = refused("audit", "--repair-reference")
    assert complaint == "Not all rows are where they belong: 1 finding."
    assert lines(printed)[-1] == "Left on shard_a: 1 surplus rows of shop.Country, to which shop.Customer refers."
    customer.delete()


def test_no_difference_is_told_that_goes_away_by_itself(rows, monkeypatch):
    """Between two commits of one block, a shard is a moment behind."""
    native("shard_a", "UPDATE shop_country SET name = 'other' WHERE code = 'FI'")
    later = lambda seconds: native("shard_a", "UPDATE shop_country SET name = 'Finland' WHERE code = 'FI'")  # noqa: E731
    change_time(monkeypatch, "sharding.operations.reference_audit", sleep=later)
    assert lines(run("audit"))[-1] == "Every row is where it belongs."


def test_unique_values_are_exchanged(rows):
    """As a data migration leaves them that makes the rows on each database in another order."""
    Customer.objects.create(tenant_id=tenant_on("shard_b"), name="Ada", country=rows)
    for old, new in (("FI", "x"), ("SE", "FI"), ("x", "SE")):
        native("shard_b", "UPDATE shop_country SET code = %s WHERE code = %s", new, old)
    reference_sync.bring_up_to_date("shard_b")
    everywhere(Country)


def test_a_surplus_row_is_in_the_way(rows):
    Customer.objects.create(tenant_id=tenant_on("shard_b"), name="Ada", country=rows)
    native("shard_b", "DELETE FROM shop_country_neighbours")
    native("shard_b", "UPDATE shop_customer SET country_id = 77")
    native("shard_b", "UPDATE shop_country SET id = 77 WHERE code = %s", "FI")
    message = whole(
        "The rows of shop.Country cannot be copied to 'shard_b': rows that only shard_b has are in the way, and "
        "shop.Customer refers to them (primary key 77). Let these refer to other rows, and copy again."
    )
    with pytest.raises(ReferenceOutdated, match=message):
        reference_sync.bring_up_to_date("shard_b")
    native("shard_b", "UPDATE shop_customer SET country_id = NULL")
    reference_sync.bring_up_to_date("shard_b")
    everywhere(Country)
