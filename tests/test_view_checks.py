"""The check of views, functions and triggers over sharded tables, in the control database of the test cluster."""

from __future__ import annotations

import pytest
from django.core.checks import Warning
from django.db import connections

from sharding import registry
from sharding.view_checks import check_stored_code
from tests import servers
from tests.downtime import down
from tests.shards.command import ROLLED_BACK, execute

pytestmark = pytest.mark.skipif(servers.engine != "postgresql", reason="asks PostgreSQL's catalogs")

BODY = "LANGUAGE plpgsql AS $$ BEGIN UPDATE shop_order SET status = 'x'; RETURN NULL; END $$"


def finding(what: str, table: str = "shop_order", label: str = "shop.Order") -> Warning:
    return Warning(
        f"The {what} in the control database names {table}, a table of the sharded model {label}. It sees the rows of "
        f"the control database only, and nothing refuses a statement that uses it.",
        hint="Ask every shard, by fan_out() or aggregator.raw(), or drop it. A view may have a ShardedModel with "
        "managed = False: it is then asked where the rows are.",
        id="sharding.W079",
    )


def found() -> list[object]:
    return list(check_stored_code(None, databases=["default"]))


def test_a_database_that_was_not_named_is_not_asked() -> None:
    # Without the fixture of a database, asking one would fail.
    assert check_stored_code(None) == []
    assert check_stored_code(None, databases=["shard_a"]) == []


@ROLLED_BACK
def test_a_sound_database_is_silent() -> None:
    assert found() == []


@ROLLED_BACK
def test_views_and_views_over_them() -> None:
    execute("default", "CREATE VIEW totals AS SELECT tenant_id, sum(total) AS total FROM shop_order GROUP BY 1")
    execute("default", "CREATE MATERIALIZED VIEW best AS SELECT max(total) FROM totals")
    execute("default", "CREATE VIEW regions AS SELECT name FROM shop_region")
    assert found() == [finding("view best"), finding("view totals")]


@ROLLED_BACK
def test_functions_by_their_text() -> None:
    for name, body in {"orders": "SELECT count(*) FROM public.SHOP_ORDER", "others": "SELECT 1 AS shop_orders"}.items():
        execute("default", f"CREATE FUNCTION {name}() RETURNS bigint LANGUAGE sql AS '{body}'")
    assert found() == [finding("function orders")]


@ROLLED_BACK
def test_triggers_of_global_tables() -> None:
    """One of a sharded table runs on the shard of its row."""
    execute("default", f"CREATE FUNCTION follow() RETURNS trigger {BODY}")
    execute("default", "CREATE TRIGGER follows AFTER UPDATE ON shop_tag FOR EACH ROW EXECUTE FUNCTION follow()")
    assert found() == []
    execute("default", "CREATE TRIGGER follows AFTER UPDATE ON shop_region FOR EACH ROW EXECUTE FUNCTION follow()")
    assert found() == [finding("trigger follows of shop_region")]


@ROLLED_BACK
def test_a_view_that_is_a_sharded_model(monkeypatch: pytest.MonkeyPatch) -> None:
    execute("default", "CREATE VIEW totals AS SELECT tenant_id, sum(total) AS total FROM shop_order GROUP BY 1")
    tables = {**registry.tables(), "totals": "shop.Total"}
    monkeypatch.setattr(registry, "tables", lambda: tables)
    assert found() == []


@ROLLED_BACK
def test_a_database_that_does_not_answer() -> None:
    with down("default"):
        assert found() == []


@ROLLED_BACK
def test_another_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sharding.view_checks.connections", {"default": connections["plain"]})
    assert found() == []
