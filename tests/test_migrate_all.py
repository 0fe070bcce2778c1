"""``migrate_all`` on real servers, as a user runs it: order, failures, resumption, and what it is asked for."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time

import pytest
from django.core.management import CommandError, call_command

from tests.garden import (
    ALTERING,
    HEIGHT,
    INITIAL,
    SHARDS,
    columns,
    garden,
    migrated,
    project,
    running_servers,
    without_times,
)
from tests.messages import whole
from tests.migrating_project import postgresql_databases

__all__ = ["garden", "migrated", "project", "running_servers"]

pytestmark = pytest.mark.db

AGAIN = "Correct the cause and run `manage.py migrate_all` again: what is applied is not repeated.\n"
EXISTS = 'garden.0002_height failed: column "height" of relation "garden_plant" already exists\n'
REFUSED = 'connection failed: connection to server at "127.0.0.1", port 1 failed: Connection refused'
TALL = "ALTER TABLE garden_plant ADD COLUMN height integer"
LOW = "ALTER TABLE garden_plant DROP COLUMN height"


def applied(alias, migration="garden.0002_height"):
    return f"{alias}: applied {migration} (… s)"


def test_all_databases_are_migrated_and_the_second_run_has_nothing_to_do(project):
    project.configure("garden", more="INSTALLED_APPS += ['django.contrib.contenttypes', 'django.contrib.auth']")
    lines = without_times(project.succeed("migrate_all", "garden"))
    assert lines[:2] == [applied("default", "garden.0001_initial"), applied("shard_a", "garden.0001_initial")]
    assert sorted(lines[2:]) == [applied(alias, "garden.0001_initial") for alias in SHARDS[1:]]
    assert columns(project, "default", "garden_place") == ["id", "name"]
    for alias in SHARDS:
        assert columns(project, alias) == ["bucket", "id", "name", "owner_id"]
        assert columns(project, alias, "garden_place") == []
    assert project.succeed("migrate_all", "garden") == "No migrations to apply.\n"


def test_a_failure_on_one_shard_leaves_the_others_alone_and_the_next_run_resumes(migrated):
    migrated.migration("garden", "0002_height", HEIGHT, after=["0001_initial"])
    migrated.ask("shard_b", TALL)
    code, output, errors = migrated.manage("migrate_all")
    assert (code, errors) == (1, f"CommandError: shard_b was not migrated, {EXISTS}{AGAIN}")
    lines = without_times(output)
    assert lines[:2] == [applied("default"), applied("shard_a")]
    assert sorted(lines[2:]) == ["shard_b: failed in garden.0002_height", applied("shard_c")]

    migrated.ask("shard_b", LOW)
    assert without_times(migrated.succeed("migrate_all")) == [applied("shard_b")]
    assert all("height" in columns(migrated, alias) for alias in ("default", *SHARDS))


@pytest.mark.parametrize(
    ("broken", "not_started"),
    [("default", "shard_a, shard_b, shard_c"), ("shard_a", "shard_b, shard_c")],
    ids=["control database", "canary"],
)
def test_a_failure_before_the_last_stage_stops_the_run(migrated, broken, not_started):
    migrated.migration("garden", "0002_height", HEIGHT, after=["0001_initial"])
    migrated.ask(broken, TALL)
    code, output, errors = migrated.manage("migrate_all")
    message = f"{broken} was not migrated, {EXISTS}Not started because of that: {not_started}.\n{AGAIN}"
    assert (code, errors) == (1, f"CommandError: {message}")
    assert without_times(output)[-1] == f"{broken}: failed in garden.0002_height"
    assert "height" not in columns(migrated, "shard_c")


def test_the_canary_of_a_resumed_run_is_a_shard_that_has_something_to_do(migrated):
    migrated.migration("garden", "0002_height", HEIGHT, after=["0001_initial"])
    migrated.succeed("migrate_all", "--database", "default", "--database", "shard_a")
    migrated.ask("shard_b", TALL)
    code, _, errors = migrated.manage("migrate_all")
    assert (code, errors) == (
        1,
        f"CommandError: shard_b was not migrated, {EXISTS}Not started because of that: shard_c.\n{AGAIN}",
    )


def test_a_shard_without_pending_migrations_gets_the_table_and_the_triggers_that_it_lacks(migrated):
    migrated.succeed("shards", "init")
    migrated.ask("shard_b", "DROP TABLE garden_plant")
    fence = "SELECT tgname FROM pg_trigger WHERE tgrelid = 'garden_plant'::regclass AND NOT tgisinternal ORDER BY 1"
    triggers = migrated.ask("shard_a", fence)
    migrated.ask("shard_c", f"DROP TRIGGER {triggers[0][0]} ON garden_plant")
    assert sorted(migrated.succeed("migrate_all").splitlines()) == [
        "No migrations to apply.",
        "shard_b: created garden_plant, whose model is kept on shards now",
        "shard_b: fenced public.garden_plant",
        "shard_c: fenced public.garden_plant",
    ]
    assert [migrated.ask(alias, fence) for alias in SHARDS] == [triggers] * 3
    assert migrated.succeed("migrate_all") == "No migrations to apply.\n"


@pytest.mark.parametrize("down", ["shard_a", "shard_b"], ids=["the first shard", "another shard"])
def test_a_shard_that_is_down_is_named_and_the_others_are_migrated(migrated, down):
    migrated.migration("garden", "0002_height", HEIGHT, after=["0001_initial"])
    migrated.take_down(down)
    code, output, errors = migrated.manage("migrate_all")
    assert (code, errors) == (1, f"CommandError: {down} was not migrated, it cannot be reached: {REFUSED}\n{AGAIN}")
    lines = without_times(output)
    up = [alias for alias in SHARDS if alias != down]
    assert lines[0] == f"{down}: cannot be reached: {REFUSED}"
    assert lines[1:] == [applied("default"), *(applied(alias) for alias in up)]


def test_shards_whose_urls_were_exchanged_are_not_migrated(migrated):
    migrated.succeed("shards", "init")
    migrated.migration("garden", "0002_height", HEIGHT, after=["0001_initial"])
    a, b = migrated.addresses["shard_a"], migrated.addresses["shard_b"]
    migrated.addresses.update(shard_a=b, shard_b=a)
    migrated.write("databases.json", json.dumps(migrated.addresses))
    for options in ((), ("--check",)):
        code, output, errors = migrated.manage("migrate_all", *options)
        assert code == 1
        for alias, other in (("shard_a", "shard_b"), ("shard_b", "shard_a")):
            assert f"The database of '{alias}' says that it is '{other}' of cluster " in output + errors
    assert "height" not in columns(migrated, "shard_a")
    assert "height" in columns(migrated, "shard_c")


def test_nothing_is_migrated_without_the_control_database(migrated):
    migrated.migration("garden", "0002_height", HEIGHT, after=["0001_initial"])
    migrated.take_down("default")
    code, _, errors = migrated.manage("migrate_all")
    assert (code, errors) == (
        1,
        f"CommandError: default was not migrated, it cannot be reached: {REFUSED}\n"
        f"Not started because of that: shard_a, shard_b, shard_c.\n{AGAIN}",
    )
    assert "height" not in columns(migrated, "shard_a")


def test_a_killed_run_is_resumed(migrated):
    slow = "import time\ndef wait(apps, schema_editor):\n    time.sleep(60)\n"
    migrated.migration(
        "garden", "0002_height", f"{HEIGHT}, migrations.RunPython(wait)", after=["0001_initial"], more=slow
    )
    process = migrated.start("migrate_all", "--database", "shard_a")
    deadline = time.monotonic() + 100
    while migrated.ask("shard_a", ALTERING) == [(0,)] and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    quick = "def wait(apps, schema_editor):\n    pass\n"
    migrated.migration(
        "garden", "0002_height", f"{HEIGHT}, migrations.RunPython(wait)", after=["0001_initial"], more=quick
    )
    lines = without_times(migrated.succeed("migrate_all"))
    assert sorted(line for line in lines if "waiting" not in line) == [applied(alias) for alias in ("default", *SHARDS)]


def test_migrations_are_unapplied_everywhere(migrated):
    migrated.migration("garden", "0002_height", HEIGHT, after=["0001_initial"])
    migrated.succeed("migrate_all", "-v", "0")
    lines = without_times(migrated.succeed("migrate_all", "garden", "0001"))
    assert sorted(lines) == [f"{alias}: unapplied garden.0002_height (… s)" for alias in ("default", *SHARDS)]
    assert not any("height" in columns(migrated, alias) for alias in ("default", *SHARDS))


def test_a_squashed_migration_that_is_applied_in_part_leads_to_its_last_one(migrated):
    migrated.migration("garden", "0002_height", HEIGHT, after=["0001_initial"])
    more = "REPLACES = [('garden', '0001_initial'), ('garden', '0002_height')]"
    migrated.migration("garden", "0003_squashed", f"{INITIAL} {HEIGHT}", more=more)
    plan = json.loads(migrated.succeed("migrate_all", "garden", "0003", "--plan", "--json"))
    assert plan["databases"]["shard_b"]["pending"] == ["garden.0002_height"]
    assert without_times(migrated.succeed("migrate_all", "garden", "0003"))[0] == applied("default")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shopping"], "No installed app with label 'shopping'."),
        (["messages"], "App 'messages' does not have migrations."),
        (["shop", "0009"], "Cannot find a migration matching '0009' from app 'shop'."),
        (["auth", "00"], "More than one migration matches '00' in app 'auth'. Please be more specific."),
        (
            ["--database=shard_x"],
            "There is no database 'shard_x'. Choose from default, reference, plain, shard_a, shard_b, shard_c.",
        ),
        (["--parallel=0"], "Error: argument --parallel: 0 is too small; the least is 1."),
        (["--parallel=many"], "Error: argument --parallel: 'many' is not a number."),
        (["--lock-timeout=0"], "Error: argument --lock-timeout: 0 is too small; the least is 0.001."),
        (["--lock-timeout=-inf"], "Error: argument --lock-timeout: -inf is too small; the least is 0.001."),
        (["--lock-timeout=nan"], "Error: argument --lock-timeout: 'nan' is not a number."),
        (["--lock-timeout=2147484"], "Error: argument --lock-timeout: 2147484 is too large; the most is 2147483."),
        (["--lock-timeout=inf"], "Error: argument --lock-timeout: inf is too large; the most is 2147483."),
        (["--retries=-1"], "Error: argument --retries: -1 is too small; the least is 0."),
    ],
)
def test_senseless_arguments_are_refused_before_any_database_is_asked(arguments, message):
    with pytest.raises(CommandError, match=whole(message)):
        call_command("migrate_all", *arguments)


def test_replicas_are_never_migrated(project):
    with postgresql_databases("shard_a_replica_1", "mirror") as copies:
        project.addresses["shard_a_replica_1"] = copies["shard_a_replica_1"]
        project.addresses["mirror"] = {**copies["mirror"], "TEST": {"MIRROR": "default"}}
        project.configure("garden")
        project.succeed("migrate_all")
        for alias in copies:
            assert columns(project, alias, "django_migrations") == []
            refused = f"'{alias}' is a replica and gets its schema from its primary. Migrate the primary."
            assert project.manage("migrate_all", "--database", alias) == (1, "", f"CommandError: {refused}\n")


def test_app_databases_are_migrated_after_the_control_database(project):
    with postgresql_databases("press_db") as made:
        project.addresses.update(made)
        project.configure("garden", "press", more="DATABASE_ROUTERS.append('press.router.PressRouter')")
        project.write("press/models.py", "from django.db import models\nclass Note(models.Model): pass\n")
        project.write(
            "press/router.py",
            """
            class PressRouter:
                def allow_migrate(self, db, app_label, **hints):
                    return db == "press_db" if app_label == "press" else False if db == "press_db" else None
            """,
        )
        create = 'migrations.CreateModel("Note", [("id", models.BigAutoField(primary_key=True))])'
        project.migration("press", "0001_initial", create)
        lines = without_times(project.succeed("migrate_all", "press"))
        assert lines[:3] == [applied(alias, "press.0001_initial") for alias in ("default", "press_db", "shard_a")]
        assert columns(project, "press_db", "press_note") == ["id"]
        assert columns(project, "default", "press_note") == columns(project, "shard_a", "press_note") == []


def test_the_matrix_shows_what_is_applied_and_pending_where(migrated):
    migrated.migration("garden", "0002_height", HEIGHT, after=["0001_initial"])
    migrated.succeed("migrate_all", "--database", "default", "--database", "shard_a", "-v", "0")
    migrated.take_down("shard_c")
    count = len(json.loads(migrated.succeed("migrate_all", "--plan", "--json"))["databases"]["default"]["applied"])
    expected = [
        "Database  Applied  Pending",
        f"default   {count:<9}0",
        f"shard_a   {count:<9}0",
        f"shard_b   {count - 1:<9}1",
        f"shard_c   ?        ?        cannot be reached: {REFUSED}",
        "",
        "Migration           default  shard_a  shard_b",
        "garden.0002_height  applied  applied  pending",
        "",
        "Schemas not compared: shard_b, shard_c.",
    ]
    output = migrated.succeed("migrate_all", "--plan")
    assert [line.rstrip() for line in output.splitlines()] == expected
    code, output, errors = migrated.manage("migrate_all", "--check")
    assert [line.rstrip() for line in output.splitlines()] == expected
    assert (code, errors) == (
        1,
        "CommandError: Cannot be reached: shard_c. Unapplied migrations: shard_b. Run `manage.py migrate_all`.\n",
    )
    assert "height" not in columns(migrated, "shard_b")


def test_the_check_passes_when_every_database_is_as_it_should_be(migrated):
    output = migrated.succeed("migrate_all", "--check")
    assert output.splitlines()[-1] == "The schemas of the shards agree with the control database's."
    assert migrated.succeed("migrate_all", "--check", "-v", "0") == ""


def test_the_check_fails_when_a_schema_differs(migrated):
    migrated.ask("shard_b", TALL)
    code, output, errors = migrated.manage("migrate_all", "--check")
    found = "shard_b: garden_plant has a column height, which the control database does not have."
    assert (code, output.splitlines()[-1]) == (1, found)
    assert errors == (
        "CommandError: The schema differs from the control database's: shard_b. Bring it in line by hand, or by "
        "`manage.py migrate --database=<shard>` where a table is missing.\n"
    )
    data = json.loads(migrated.manage("migrate_all", "--check", "--json")[1])
    assert data["drift"] == [{"shard": "shard_b", "table": "garden_plant", "column": "height", "message": found}]


def test_json_says_what_became_of_each_database(migrated):
    migrated.migration("garden", "0002_height", HEIGHT, after=["0001_initial"])
    migrated.ask("shard_a", TALL)
    code, output, _ = migrated.manage("migrate_all", "--json")
    error = 'column "height" of relation "garden_plant" already exists'
    assert (code, json.loads(output)) == (
        1,
        {
            "databases": {
                "default": {"done": ["garden.0002_height"], "failed": None, "error": None},
                "shard_a": {"done": [], "failed": "garden.0002_height", "error": error},
            },
            "not_started": ["shard_b", "shard_c"],
        },
    )


def test_a_terminal_shows_a_bar(migrated):
    migrated.migration("garden", "0002_height", HEIGHT, after=["0001_initial"])
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm", "COLUMNS": "100"}
    command = [sys.executable, "manage.py", "migrate_all"]
    subprocess.run(command, cwd=migrated.folder, env=environment, stdout=theirs, check=True)
    os.close(theirs)
    output = b""
    while chunk := _read(ours):
        output += chunk
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output.decode())
    assert "Migrating" in text
    assert "4/4" in text
    assert "shard_c: applied garden.0002_height" in text


def _read(terminal):
    try:
        return os.read(terminal, 65536)
    except OSError:
        # Linux's way to say that the other side of a terminal is closed.
        return b""


def test_no_connection_is_left_open(migrated):
    sessions = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND backend_type = 'client backend'"
    )
    output = migrated.run(f"""
        import time
        from django.core.management import call_command
        from django.db import connections
        call_command("migrate_all", verbosity=0)
        call_command("migrate_all", check=True, verbosity=0)
        # A server needs a moment until a session that was closed is none.
        deadline = time.monotonic() + 60
        for connection in connections.all():
            with connection.cursor() as cursor:
                cursor.execute({sessions!r})
                while (left := cursor.fetchone()[0]) and time.monotonic() < deadline:
                    time.sleep(0.05)
                    cursor.execute({sessions!r})
                print(connection.alias, left)
    """)
    assert output.split("\n") == ["default 0", "shard_a 0", "shard_b 0", "shard_c 0", ""]
