"""What is found before the first move about servers and about the cluster: each finding has a real cause."""

from __future__ import annotations

import re

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connections
from django.test import override_settings

from sharding import cluster_map
from sharding.errors import PreflightFailed
from sharding.models import Move
from sharding.rebalance import preflight
from sharding.rebalance.finding import Finding, Severity
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.rebalance.preflights import SOURCE, TARGET, alone, found, name_of, ready, spoilt

__all__ = ["ready"]

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=CLUSTER, available_apps=SHOP_ONLY),
    pytest.mark.usefixtures("ready"),
]


def test_a_sound_cluster_has_nothing_in_the_way():
    assert found() == []


def test_without_a_setting_nobody_is_kept_from_writing(settings):
    with override_settings(SHARDING={**settings.SHARDING, "FENCE": None}):
        findings = found()
    assert (
        "error",
        "fence",
        "SHARDING['FENCE'] is None, so that nothing keeps writers away from a bucket that has moved. Set it to 'row' "
        "and run `manage.py migrate_all`.",
    ) in findings


def test_a_bucket_that_is_on_its_way():
    for bucket, phase in ((0, "copying"), (1, "copying"), (3, "done")):
        Move.objects.create(
            plan="00000000-0000-0000-0000-000000000001", bucket=bucket, source="shard_a", target="shard_c", phase=phase
        )
    try:
        assert found() == [
            (
                "error",
                "moves",
                "Bucket 0 is on its way from 'shard_a' to 'shard_c' already (copying). Wait until that move has ended, "
                "and make a new plan.",
            )
        ]
    finally:
        Move.objects.all().delete()


def test_a_fence_of_another_day():
    bucket = cluster_map.current().buckets_of(SOURCE)[0]
    with spoilt(
        TARGET,
        f"INSERT INTO sharding_fence VALUES ({bucket}, 'owned', 1, 0, '', 5)",
        f"DELETE FROM sharding_fence WHERE bucket = {bucket}",
    ):
        assert found() == [
            (
                "error",
                "fence",
                f"The fence of 'shard_b' and the bucket map disagree about the buckets {bucket}, as after a restore "
                f"from a backup. Run `manage.py shards certify shard_b`.",
            )
        ]


def test_a_target_that_lacks_reference_rows():
    with spoilt(
        "default",
        """UPDATE sharding_reference SET shards = '["shard_a"]' WHERE table_name = 'shop_currency'""",
        """UPDATE sharding_reference SET shards = '["shard_a", "shard_b", "shard_c"]'
           WHERE table_name = 'shop_currency'""",
    ):
        assert found() == [
            (
                "error",
                "references",
                "'shard_b' was not given the rows of shop_currency, to which rows that move may refer. Run "
                "`manage.py migrate_all`.",
            )
        ]


def test_room_is_asked_for_or_compared():
    assert found(arriving={TARGET: 5 * 2**30}) == [
        (
            "note",
            "space",
            "'shard_b' gets 5.0 GB, and only its operator can see whether its disk has room for them. Look there, or "
            "say with --capacity what it can hold.",
        )
    ]
    ((severity, check, message),) = found(arriving={TARGET: 5 * 2**30}, capacity={TARGET: 2**30})
    assert (severity, check) == ("error", "space")
    assert re.sub(r"[\d.]+ kB", "SIZE", message) == (
        "'shard_b' has SIZE of sharded rows and gets 5.0 GB, which is more than its capacity of 1.0 GB. Make room, or "
        "raise the capacity."
    )
    assert found(arriving={TARGET: 2**20}, capacity={TARGET: 2**30}) == []


def test_a_wrong_server_behind_an_alias(monkeypatch):
    wrong = connections["shard_c"].settings_dict
    for key in ("NAME", "HOST", "PORT", "PASSWORD"):
        monkeypatch.setitem(connections[TARGET].settings_dict, key, wrong[key])
    ((severity, _, message),) = [each for each in found() if each[1] == "identity"]
    cluster = message.partition("of cluster ")[2].partition(",")[0]
    assert (severity, message) == (
        "error",
        f"The database of 'shard_b' says that it is 'shard_c' of cluster {cluster}, not 'shard_b' of cluster "
        f"{cluster}. Correct the URL of 'shard_b', or restore what was lost.",
    )


def test_a_database_that_says_nothing():
    with spoilt(
        TARGET,
        "CREATE TABLE kept AS SELECT * FROM sharding_identity; DELETE FROM sharding_identity",
        "INSERT INTO sharding_identity SELECT * FROM kept; DROP TABLE kept",
    ):
        assert found() == [
            (
                "error",
                "identity",
                "The database of 'shard_b' does not say which shard it is. Run `manage.py migrate_all` and "
                "`manage.py shards init`.",
            )
        ]


def test_a_server_that_does_not_answer(monkeypatch):
    monkeypatch.setitem(connections[TARGET].settings_dict, "PORT", "1")
    ((severity, check, message),) = found()
    assert (severity, check) == ("error", "answers")
    assert message.startswith("'shard_b' does not answer: connection ")
    assert message.endswith(". Start its server, or correct its URL.")


def test_a_database_that_takes_no_writes():
    name = name_of(TARGET)
    with spoilt(
        TARGET,
        f'ALTER DATABASE "{name}" SET default_transaction_read_only = on',
        f'SET default_transaction_read_only = off; ALTER DATABASE "{name}" RESET default_transaction_read_only',
    ):
        assert found() == [
            (
                "error",
                "writable",
                "Transactions on 'shard_b' are read-only (default_transaction_read_only is on). Switch that off for "
                "this role and database.",
            )
        ]


@pytest.fixture
def impatient(monkeypatch):
    """Nothing may be open for long."""
    monkeypatch.setattr(preflight.preflight_servers, "LEFT_OPEN", 0.0)
    monkeypatch.setattr(preflight.preflight_servers, "LONG", 0.0)


@pytest.mark.usefixtures("impatient")
def test_prepared_transactions():
    ours = f"shardkit:{'0' * 32}:{'0' * 16}.1:shard_a"
    with (
        spoilt(
            SOURCE,
            f"BEGIN; DELETE FROM shop_tag; PREPARE TRANSACTION '{ours}'",
            f"ROLLBACK PREPARED '{ours}'",
        ),
        spoilt(
            TARGET, "BEGIN; DELETE FROM shop_tag; PREPARE TRANSACTION 'somebody''s'", "ROLLBACK PREPARED 'somebody''s'"
        ),
    ):
        findings = [each for each in found() if each[1] == "prepared"]
    assert [(severity, check, re.sub(r"for \d+ s,", "for 0 s,", message)) for severity, check, message in findings] == [
        (
            "error",
            "prepared",
            "A transaction over several databases has been in doubt on 'shard_a' for 0 s, and a move waits for it as "
            "long as it stands. Run `manage.py shards recover`.",
        ),
        (
            "error",
            "prepared",
            """The transaction "somebody's", which is none of this toolkit's, has been prepared on 'shard_b' for 0 """
            "s, and a move waits for it as long as it stands. Commit it or roll it back.",
        ),
    ]


@pytest.mark.usefixtures("impatient")
def test_transactions_that_stay_open():
    with spoilt(SOURCE, "BEGIN; DELETE FROM shop_tag", "ROLLBACK") as session:
        ((severity, check, message),) = found()
        pid = session.connection.info.backend_pid
    assert (severity, check) == ("warning", "transactions")
    assert re.sub(r", \d+ s\)", ", 0 s)", message) == (
        f"Transactions have been open on 'shard_a' for more than 0 s: {pid} (shardkit-inspection, 0 s). A bucket that "
        f"one of them has written changes hands only when it ends. End them, or expect moves to wait."
    )


REMEDY = "Raise max_connections, or the limit of the role or the database, or let the application open fewer."


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (3, ("error", "connections", f"'shard_b' takes 3 more connections, and moves need 4. {REMEDY}")),
        (
            9,
            (
                "warning",
                "connections",
                f"'shard_b' takes 9 more connections, of which moves need 4; the application may find none. {REMEDY}",
            ),
        ),
    ],
)
def test_connections_that_are_left(left, expected):
    name = name_of(TARGET)
    connections[TARGET].close()
    alone(TARGET)
    with spoilt(TARGET, "SELECT", f'ALTER DATABASE "{name}" CONNECTION LIMIT -1') as session:
        # That of the test, and that of the check.
        session.connection.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT {left + 2}')
        assert found() == [expected]


@pytest.mark.parametrize(("seconds", "severity"), [(30, "warning"), (90, "error")])
def test_clocks(seconds, severity):
    name = name_of(TARGET)
    late = f"SELECT pg_catalog.clock_timestamp() + interval '{seconds} s'"
    with spoilt(
        TARGET,
        f"CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ {late} $$; "
        f'ALTER DATABASE "{name}" SET search_path = public, pg_catalog',
        f'ALTER DATABASE "{name}" RESET search_path; DROP FUNCTION public.clock_timestamp()',
    ):
        findings = [each for each in found() if each[1] == "clocks"]
    ((found_severity, _, message),) = findings
    assert found_severity == severity
    assert re.sub(r"\d+\.\d s", "SECONDS", message) == (
        "The clock of 'shard_b' is SECONDS away from that of the control database. Let both synchronise with the same "
        "source of time (NTP)."
    )


def test_errors_are_refused_and_the_rest_is_not():
    findings = [
        Finding(Severity.ERROR, "fence", "The fence is missing. Install it."),
        Finding(Severity.WARNING, "clocks", "The clock is late. Set it."),
    ]
    with pytest.raises(PreflightFailed) as caught:
        preflight.refuse(findings)
    assert str(caught.value) == (
        "No move was begun, because of what was found before: The fence is missing. Install it."
    )
    assert caught.value.findings == (findings[0],)
    preflight.refuse(findings[1:])


def test_without_moves_there_is_nothing_to_look_at(settings):
    with override_settings(SHARDING={**settings.SHARDING, "FENCE": None}):
        assert preflight.findings([], []) == []


def test_the_command_shows_what_is_found(capsys):
    with spoilt(
        TARGET, "CREATE RULE nothing AS ON DELETE TO shop_tag DO INSTEAD NOTHING", "DROP RULE nothing ON shop_tag"
    ):
        with pytest.raises(CommandError) as caught:
            call_command("rebalance", "plan", "--drain", "shard_c", "--check")
        assert str(caught.value) == "The moves cannot begin: 1 error was found."
        printed = capsys.readouterr().out
        assert "ERROR   rules   shop_tag has the rule nothing on 'shard_b', which changes what" in printed
    call_command("rebalance", "plan", "--drain", "shard_c", "--check")
    assert "Nothing was found that could stop these moves." in capsys.readouterr().out
