"""
`sharding_identity.shown` is the sum of the marks of what is shown, and `hidden` the number of buckets that are not;
statements compare them in their snapshot.
"""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from sharding.bucket_states import HIDING, BucketState
from sharding.ownership import SHOWS, IsAsKnown
from tests.fence.conftest import SHARD, become
from tests.layouts import CLUSTER, SHOP_ONLY

pytestmark = pytest.mark.django_db(transaction=True, databases=CLUSTER, available_apps=SHOP_ONLY)

KNOWN = IsAsKnown.template % {"expressions": "%s", "careful": "true"}
HIDES_NOTHING = IsAsKnown.template % {"expressions": "%s", "careful": "false"}


@pytest.fixture(scope="module", params=["row"])
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def shown(session: Any) -> int:
    found: int = session.execute("SELECT shown FROM sharding_identity").fetchone()[0]
    return found


def is_right(session: Any) -> bool:
    query = (
        "SELECT coalesce(sum(mark) FILTER (WHERE state IN ('owned', 'capturing', 'fenced')), 0), "
        "count(*) FILTER (WHERE state IN ('importing', 'moved')) FROM sharding_fence"
    )
    counted = session.execute("SELECT shown, hidden FROM sharding_identity").fetchone()
    return bool(counted == session.execute(query).fetchone())


@pytest.mark.parametrize("state", list(BucketState))
def test_it_follows_the_states(admin, state):
    become(admin, state)
    assert is_right(admin)
    become(admin, "owned")
    assert is_right(admin)


def test_it_follows_whatever_is_done_to_the_table(admin):
    admin.execute("DELETE FROM sharding_fence WHERE bucket < 100")
    assert is_right(admin)
    admin.execute("UPDATE sharding_fence SET generation = 3")
    assert is_right(admin)
    admin.execute("TRUNCATE sharding_fence")
    assert shown(admin) == 0
    assert is_right(admin)
    admin.execute("INSERT INTO sharding_fence VALUES (1, 'owned', 1, 0, '', 5), (2, 'moved', 1, 0, '', 7)")
    assert shown(admin) == 5
    assert is_right(admin)
    admin.execute("UPDATE sharding_fence SET bucket = 3, state = 'importing' WHERE bucket = 1")
    assert shown(admin) == 0
    assert is_right(admin)
    admin.execute("DELETE FROM sharding_fence")
    assert is_right(admin)


def test_two_changes_at_the_same_time_both_count(admin, connect):
    other = connect()
    with admin.transaction():
        admin.execute("UPDATE sharding_fence SET state = 'moved' WHERE bucket = 1")
        other.execute("BEGIN; SELECT 1 FROM sharding_fence")
    other.execute("UPDATE sharding_fence SET state = 'moved' WHERE bucket = 2")
    other.execute("COMMIT")
    assert is_right(admin)


@pytest.mark.parametrize("table", ["shop_ledger", "shop_order"])
def test_a_statement_compares_it_once_also_where_no_row_is_found(admin, table):
    now = json.dumps({SHARD: shown(admin)})
    other = json.dumps({SHARD: shown(admin) + 1})
    query = f"SELECT count(*) FROM {table} WHERE bucket = 7 AND {KNOWN}"
    assert admin.execute(query, [now]).fetchone() == (0,)
    for wrong in (other, "{}"):
        with pytest.raises(psycopg.Error) as caught:
            admin.execute(query, [wrong])
        assert caught.value.sqlstate == "SH004"
    plan = "\n".join(line for (line,) in admin.execute(f"EXPLAIN {query}", [now]).fetchall())
    assert "One-Time Filter" in plan


@pytest.mark.parametrize("state", list(BucketState))
@pytest.mark.parametrize("counted", [True, False], ids=["counted", "not counted"])
def test_one_that_takes_nothing_to_be_hidden(admin, state, counted):
    """Where triggers do not count, the fence itself is asked."""
    become(admin, state)
    now = json.dumps({SHARD: shown(admin)})
    if not counted:
        admin.execute("UPDATE sharding_identity SET shown = NULL, hidden = NULL")
    query = "SELECT count(*) FROM shop_ledger WHERE {}"
    assert admin.execute(query.format(KNOWN), [now]).fetchone() == (0,)
    if state not in HIDING:
        assert admin.execute(query.format(HIDES_NOTHING), [now]).fetchone() == (0,)
        return
    with pytest.raises(psycopg.Error) as caught:
        admin.execute(query.format(HIDES_NOTHING), [now])
    assert caught.value.sqlstate == "SH004"
    assert caught.value.diag.message_primary == (
        "This database hides rows, and the sender of the statement takes it to hide none."
    )


def test_it_keeps_no_statement_from_parallel_workers(admin):
    query = f"SELECT proparallel, provolatile FROM pg_proc WHERE proname = '{SHOWS}'"
    assert admin.execute(query).fetchall() == [("s", "s")]


@pytest.mark.parametrize("statement", ["DELETE FROM shop_ledger WHERE {}", "UPDATE shop_ledger SET text = '' WHERE {}"])
def test_so_do_writes(admin, statement):
    with pytest.raises(psycopg.Error) as caught:
        admin.execute(statement.format(KNOWN), ["{}"])
    assert caught.value.sqlstate == "SH004"
