"""DATABASES from the environment: what the variables amount to together, .env files, addresses past a pooler."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.views.debug import SafeExceptionReporterFilter

from sharding import env

OURS = "sharding.backends.postgresql"
DJANGOS = "django.db.backends.postgresql"
CONTROL = "postgres://app:secret@control.example/app"
ONE = {"DATABASE_URL": CONTROL}
CLUSTER = {
    **ONE,
    "SHARD_URL_B": "postgres://b.example/app",
    "SHARD_URL_A": "postgres://a.example/app",
    "SHARD_URL_A__REPLICA_2": "postgres://a2.example/app",
    "SHARD_URL_A__REPLICA_10": "postgres://a10.example/app",
    "DATABASE_URL_BLOG": "mysql://blog.example/app",
    "DATABASE_URL_BLOG__REPLICA_1": "mariadb://blog1.example/app",
    "DATABASE_URL__REPLICA_1": "postgres://control1.example/app",
}


def refusal(environ, **options):
    with pytest.raises(ImproperlyConfigured) as caught:
        env.databases(environ=environ, **options)
    return str(caught.value)


def clear(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("DATABASE_URL", "SHARD_URL"))]:
        monkeypatch.delenv(name)


def test_alias_engine_and_order_come_from_the_names():
    found = env.databases(environ={**CLUSTER, "PATH": "/bin", "DATABASE_URLS": "", "MY_DATABASE_URL": ""})
    assert [(alias, entry["ENGINE"]) for alias, entry in found.items()] == [
        ("default", OURS),
        ("default_replica_1", DJANGOS),
        ("shard_a", OURS),
        ("shard_a_replica_2", DJANGOS),
        ("shard_a_replica_10", DJANGOS),
        ("shard_b", OURS),
        ("blog_db", "django.db.backends.mysql"),
        ("blog_db_replica_1", "django.db.backends.mysql"),
    ]


def test_replicas_mirror_their_primary_in_tests_and_nothing_else_does():
    found = env.databases(environ=CLUSTER)
    assert {alias: entry["TEST"] for alias, entry in found.items() if "TEST" in entry} == {
        "default_replica_1": {"MIRROR": "default"},
        "shard_a_replica_2": {"MIRROR": "shard_a"},
        "shard_a_replica_10": {"MIRROR": "shard_a"},
        "blog_db_replica_1": {"MIRROR": "blog_db"},
    }


def test_database_url_alone_is_a_cluster_of_one():
    assert env.databases(environ=ONE) == {
        "default": {
            "ENGINE": OURS,
            "NAME": "app",
            "USER": "app",
            "PASSWORD": "secret",
            "HOST": "control.example",
            "PORT": "",
        }
    }


def test_without_any_variable_the_databases_are_files(tmp_path):
    assert env.databases(environ={}, base_dir=tmp_path) == {
        "default": {"ENGINE": "sharding.backends.sqlite3", "NAME": str(tmp_path / "var/control.sqlite3")},
        "shard_a": {"ENGINE": "sharding.backends.sqlite3", "NAME": str(tmp_path / "var/shard_a.sqlite3")},
        "shard_b": {"ENGINE": "sharding.backends.sqlite3", "NAME": str(tmp_path / "var/shard_b.sqlite3")},
    }
    assert (tmp_path / "var").is_dir()


def test_files_are_in_the_working_directory_without_a_base_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert env.databases(environ={})["default"]["NAME"] == str(tmp_path / "var/control.sqlite3")


def test_a_folder_for_the_files_that_cannot_be_made(tmp_path):
    """As in a container whose variables got lost."""
    (tmp_path / "file").touch()
    assert refusal({}, base_dir=tmp_path / "file") == (
        f"No database variable is set, and the folder {tmp_path}/file/var of the SQLite files that are used then "
        f"cannot be made: Not a directory. Set DATABASE_URL, or make the folder."
    )


def test_a_comment_of_an_env_file_may_be_indented(tmp_path):
    (tmp_path / ".env").write_text(f"  # of the control database\nDATABASE_URL={CONTROL}\n")
    assert env.databases(tmp_path / ".env", environ={}) == env.databases(environ=ONE)


def test_the_environment_of_the_process_is_the_default(monkeypatch):
    clear(monkeypatch)
    monkeypatch.setenv("DATABASE_URL", CONTROL)
    assert env.databases() == env.databases(environ=ONE)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("postgres://a:s3cr3t@h/app", "postgres://b:p@h/app"),
        ("postgres://a:s3cr3t@H.example/app", "postgres://a:s3cr3t@h.EXAMPLE:5432/app?sslmode=require"),
        ("postgres://localhost:5433/app", "psql://127.0.0.1:5433/app"),
        ("postgres://[::1]/app", "postgres://localhost/app"),
        ("postgres:////run/pg/app", "postgres://%2Frun%2Fpg/app"),
        ("postgres:////run/pg/app", "postgres:///app?host=/run/pg"),
        ("postgres://H1,h2/app", "postgres://h1,H2/app"),
        ("postgres:///?service=orders", "postgres:///?service=orders"),
        ("sqlite:///app.sqlite3", "sqlite:///./x/../app.sqlite3"),
        ("sqlite:///file:a%3Fmode=memory?uri=true", "sqlite:///file:a%3Fmode=memory?uri=true"),
    ],
)
def test_two_aliases_never_share_a_database(one, other):
    assert refusal({"DATABASE_URL": one, "SHARD_URL_A": other}) == (
        "DATABASE_URL and SHARD_URL_A name the same database on the same server. Give each alias a database of its own."
    )


@pytest.mark.parametrize("name", ["SHARD_URL_B", "SHARD_URL_A__REPLICA_1", "SHARD_URL_B__DIRECT", "DATABASE_URL_BLOG"])
def test_neither_do_replicas_app_databases_and_addresses(name):
    environ = {"SHARD_URL_B": "postgres://b/app", **ONE, "SHARD_URL_A": "postgres://a/app", name: "postgres://a/app"}
    assert refusal(environ) == (
        f"SHARD_URL_A and {name} name the same database on the same server. Give each alias a database of its own."
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("postgres://h/app", "postgres://h/app2"),
        ("postgres://h/app", "postgres://h/App"),
        ("postgres://h/app", "postgres://h:5433/app"),
        ("postgres://h/app", "postgres://h2/app"),
        ("postgres:////run/a/app", "postgres:////run/b/app"),
        ("postgres:////run/a/app", "postgres:////run/A/app"),
        ("sqlite://", "sqlite://:memory:"),
        ("sqlite:///file:a%3Fmode=memory?uri=true", "sqlite:///file:b%3Fmode=memory?uri=true"),
    ],
)
def test_databases_that_differ_are_allowed(one, other):
    assert list(env.databases(environ={"DATABASE_URL": one, "SHARD_URL_A": other})) == ["default", "shard_a"]


@pytest.mark.parametrize(
    "environ",
    [
        {"DATABASE_URL": "postgres://u:s3cr3t\u2100@h/app"},
        {"DATABASE_URL": "postgres://u:s3cr3t@h:port/app"},
        {"DATABASE_URL": "mysql://u:s3cr3t@h/app"},
        {"DATABASE_URL": "postgres://u:s3cr3t@h/app", "SHARD_URL_A": "postgres://u:s3cr3t@h/app"},
        {"DATABASE_URL": "postgres://u:s3cr3t@h/app", "SHARD_URL_B__DIRECT": "postgres://u:s3cr3t@h/app"},
    ],
)
def test_a_refusal_shows_no_password_anywhere(environ, caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ImproperlyConfigured) as caught:
        env.databases(environ=environ)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    frames = [entry.frame for entry in caught.traceback if Path(str(entry.path)).parent.name == "sharding"]
    assert [frame.code.name for frame in frames] == ["databases"]
    assert "s3cr3t" not in repr(frames[0].f_locals) + str(caught.value) + caplog.text


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (
            {"DATABASE_URL__REPLICA_1": "mysql://u:s3cr3t@h/app"},
            "DATABASE_URL__REPLICA_1 is the URL of another engine than DATABASE_URL, whose data it should show. Give "
            "both the same scheme.",
        ),
        (
            {"DATABASE_URL__DIRECT": "sqlite:///s3cr3t"},
            "DATABASE_URL__DIRECT is the URL of another engine than DATABASE_URL, whose data it should show. Give "
            "both the same scheme.",
        ),
        (
            {"DATABASE_URL_LOG": "sqlite:///log", "DATABASE_URL_LOG__DIRECT": "sqlite:///log"},
            "DATABASE_URL_LOG__DIRECT is of no use: a SQLite file has no pooler to go past. Unset it.",
        ),
    ],
)
def test_a_variable_of_another_engine_than_its_primary_is_refused(extra, message):
    assert refusal({**ONE, **extra}) == message


def test_a_settings_module_may_call_it_before_django_is_configured(tmp_path):
    text = "from sharding import env\nDATABASES = env.databases(base_dir=" + repr(str(tmp_path)) + ")\n"
    (tmp_path / "module_of_settings.py").write_text(text)
    code = "from django.conf import settings; print(*settings.DATABASES)"
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("DATABASE_URL", "SHARD_URL"))}
    paths = os.pathsep.join((str(tmp_path), str(Path(env.__file__).resolve().parent.parent)))
    inner = {**outer, "DJANGO_SETTINGS_MODULE": "module_of_settings", "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], env=inner, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("default shard_a shard_b\n", "")


# .env files.


def written(tmp_path, text):
    path = tmp_path / ".env"
    path.write_bytes(text.encode())
    return path


def test_an_env_file_fills_in_what_the_environment_lacks(tmp_path, monkeypatch):
    clear(monkeypatch)
    monkeypatch.setenv("DATABASE_URL", CONTROL)
    text = "\ufeff# comment\r\n\r\nDEBUG=1\nexport SHARD_URL_A='postgres://a.example/app'\n  \nDATABASE_URL=postgres://x/y\n"
    found = env.databases(written(tmp_path, text))
    assert {alias: entry["HOST"] for alias, entry in found.items()} == {
        "default": "control.example",
        "shard_a": "a.example",
    }
    assert "SHARD_URL_A" not in os.environ


def test_an_empty_variable_of_the_environment_still_wins(tmp_path):
    env_file = written(tmp_path, f"DATABASE_URL={CONTROL}")
    assert refusal({"DATABASE_URL": ""}, env_file=env_file) == (
        "DATABASE_URL is empty. Set it to the URL of a database, or unset it."
    )


def test_a_missing_env_file_counts_as_empty(tmp_path):
    assert env.databases(tmp_path / ".env", environ=ONE) == env.databases(environ=ONE)


@pytest.mark.parametrize("line", ["DATABASE_URL = postgres://u:s3cr3t@h/app", "s3cr3t", "DATABASE-URL=s3cr3t"])
def test_a_line_that_django_environ_would_log_is_refused(tmp_path, line, caplog):
    env_file = written(tmp_path, f"# comment\n{line}\n")
    assert refusal(ONE, env_file=str(env_file)) == (
        f"Line 2 of the file {env_file} is not of the form NAME=value, without spaces around the =."
    )
    assert "s3cr3t" not in caplog.text


@pytest.mark.parametrize("again", ["SHARD_URL_A=", "export SHARD_URL_A=postgres://u:s3cr3t@h/app"])
def test_a_database_variable_that_an_env_file_sets_twice_is_refused(tmp_path, again):
    env_file = written(tmp_path, f"DEBUG=1\nSHARD_URL_A=postgres://a.example/app\nDEBUG=0\n\n{again}\n")
    assert refusal(ONE, env_file=env_file) == (
        f"Lines 2 and 5 of the file {env_file} both set SHARD_URL_A. Keep one of them."
    )


def test_an_env_file_that_cannot_be_read_is_refused(tmp_path):
    assert refusal(ONE, env_file=tmp_path) == f"The file {tmp_path} cannot be read: Is a directory."
    latin = tmp_path / "latin.env"
    latin.write_bytes(b"DATABASE_URL=\xff")
    assert refusal(ONE, env_file=latin) == f"The file {latin} is not UTF-8 text."


# Addresses past a pooler.

POOLED = {
    "DATABASE_URL": "postgres://u:p@pooler:6432/app_pooled?disable_server_side_cursors=true&conn_max_age=60",
    "DATABASE_URL__DIRECT": "postgres://owner:p%40@server:5432/app?sslmode=require",
}


def test_direct_reaches_the_server_past_the_pooler():
    entry = env.databases(environ=POOLED)["default"]
    assert (entry["HOST"], entry["USER"], entry["DISABLE_SERVER_SIDE_CURSORS"]) == ("pooler", "u", True)
    assert env.direct(entry) == {
        "ENGINE": OURS,
        "NAME": "app",
        "USER": "owner",
        "PASSWORD": "p@",
        "HOST": "server",
        "PORT": 5432,
        "OPTIONS": {"sslmode": "require"},
        "CONN_MAX_AGE": 60,
        "DISABLE_SERVER_SIDE_CURSORS": False,
    }


def test_direct_follows_a_test_runner_that_renamed_the_database():
    entry = {**env.databases(environ=POOLED)["default"], "NAME": "test_app_pooled"}
    found = env.direct(entry)
    assert (found["HOST"], found["NAME"]) == ("server", "test_app_pooled")


def test_direct_is_the_database_itself_without_a_pooler():
    entry = env.databases(environ=ONE)["default"]
    assert env.direct(entry) == entry
    same = env.databases(environ={**ONE, "DATABASE_URL__DIRECT": CONTROL})["default"]
    assert env.direct(same) == {**entry, "OPTIONS": {}, "DISABLE_SERVER_SIDE_CURSORS": False}


def test_django_hides_the_password_of_an_address_too():
    shown = SafeExceptionReporterFilter().cleanse_setting("DATABASES", env.databases(environ=POOLED))
    assert (shown["default"]["PASSWORD"], shown["default"]["DIRECT"]["PASSWORD"]) == ("*" * 20, "*" * 20)


def test_the_case_of_a_name_does_not_part_an_address_from_its_database():
    urls = {"SHARD_URL_a": "postgres://pooler/a", "SHARD_URL_A__DIRECT": "postgres://server/a"}
    assert env.direct(env.databases(environ={**ONE, **urls})["shard_a"])["HOST"] == "server"


def test_a_replica_has_its_own_address():
    environ = {**CLUSTER, "SHARD_URL_A__REPLICA_2__DIRECT": "postgres://a2-direct.example/app"}
    found = env.databases(environ=environ)
    assert env.direct(found["shard_a_replica_2"])["HOST"] == "a2-direct.example"
    assert "DIRECT" not in found["shard_a"]
