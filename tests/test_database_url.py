"""One database URL: what django-environ makes of it, and what is refused. No refusal quotes more than the scheme."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db.backends.postgresql.base import DatabaseWrapper as PostgreSQL
from hypothesis import given
from hypothesis import strategies as st

from sharding import env

OURS = "sharding.backends.postgresql"
CONTROL = "postgres://app:secret@control.example/app"
ONE = {"DATABASE_URL": CONTROL}
UNREADABLE = (
    "cannot be read as a URL. Percent-encode the special characters of its user, password and options (/ is %2F, "
    "? is %3F, # is %23, [ is %5B, @ is %40), and check the port."
)
AFTER_HOST = (
    "has a bare @ after the host. Percent-encode the special characters of its user, password, name and options (/ is "
    "%2F, ? is %3F, @ is %40)."
)
NO_FILE = (
    "names a host, but SQLite has files only. Write three slashes before a relative path, sqlite:///name.sqlite3, and "
    "four before an absolute one, sqlite:////folder/name.sqlite3."
)
NO_NAME = "names no database. Write its name after the host: scheme://user:password@host:port/name."
NO_URL = "is not a database URL. Write scheme://user:password@host:port/name."
OTHER_ENGINE = (
    "is the URL of another engine than PostgreSQL and SQLite, on which default and the shards run. Write a "
    "postgres:// or a sqlite:// URL; an app database, DATABASE_URL_<APP>, may have any engine."
)
SECOND = (
    "has the option {}, which says what belongs before the question mark. Write it there only: "
    "scheme://user:password@host:port/name."
)
NO_FLAG = "that is neither true nor false."
NO_AGE = "has an option conn_max_age that is neither a number of seconds nor None."


def default(url, **options):
    return env.databases(environ={"DATABASE_URL": url}, **options)["default"]


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "psql", "pgsql", "POSTGRES"])
def test_every_name_of_postgresql_takes_our_engine(scheme):
    assert default(f"{scheme}://h/app")["ENGINE"] == OURS


# What the URL says.


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgres://u:p@h:6432/app", {"USER": "u", "PASSWORD": "p", "HOST": "h", "PORT": 6432, "NAME": "app"}),
        ("  postgres://h/app\n", {"HOST": "h", "NAME": "app"}),
        ("postgres://[::1]:5433/app", {"HOST": "::1", "PORT": 5433}),
        ("postgres://h1:5432,h2:5433/app", {"HOST": "h1,h2", "PORT": "5432,5433"}),
        ("postgres:///app", {"HOST": "", "NAME": "app"}),
        ("postgres://u:p@%2FRun%2Fpg:5433/app", {"HOST": "/Run/pg", "PORT": 5433, "NAME": "app", "PASSWORD": "p"}),
        ("postgres:////run/pg/app", {"HOST": "/run/pg", "NAME": "app"}),
        ("postgres:///app?host=/run/pg", {"HOST": "", "OPTIONS": {"host": "/run/pg"}}),
        ("postgres:///?service=orders", {"NAME": "", "OPTIONS": {"service": "orders"}}),
        ("postgres://h/my%40app", {"NAME": "my@app"}),
        ("sqlite:///app.sqlite3", {"ENGINE": "sharding.backends.sqlite3", "NAME": "app.sqlite3"}),
        ("sqlite:////srv/app.sqlite3", {"NAME": "/srv/app.sqlite3"}),
        ("sqlite://:memory:", {"ENGINE": "sharding.backends.sqlite3", "NAME": ":memory:"}),
        ("sqlite://", {"NAME": ":memory:"}),
        ("postgres://h/app?conn_max_age=60", {"CONN_MAX_AGE": 60, "OPTIONS": {}}),
        ("postgres://h/app?conn_max_age=None", {"CONN_MAX_AGE": None}),
        ("postgres://h/app?conn_max_age=none", {"CONN_MAX_AGE": None}),
        (
            "postgres://h/app?sslmode=require&connect_timeout=3",
            {"OPTIONS": {"sslmode": "require", "connect_timeout": 3}},
        ),
        ("postgres://h/app?pool=true", {"OPTIONS": {"pool": True}}),
        ("postgres://h/app?pool=off&server_side_binding=1", {"OPTIONS": {"pool": False, "server_side_binding": True}}),
        (
            "postgres://h/app?atomic_requests=false&conn_health_checks=True",
            {"ATOMIC_REQUESTS": False, "CONN_HEALTH_CHECKS": True},
        ),
        ("postgres://h/app?options=-c%20statement_timeout%3D5s", {"OPTIONS": {"options": "-c statement_timeout=5s"}}),
    ],
)
def test_url(url, expected):
    found = default(url)
    assert {key: found.get(key) for key in expected} == expected


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs"])))
def test_any_percent_encoded_password_arrives(password):
    found = default(f"postgres://{quote(password, safe='')}:{quote(password, safe='')}@h:5432/app")
    assert (found["USER"], found["PASSWORD"], found["HOST"]) == (password, password, "h")


@pytest.mark.parametrize("password", ["p@ss", "p:ss", "p+s", "p s", "p!$&'()*,=~s", "100%", "p%40w"])
def test_passwords_that_need_no_encoding_are_read_as_django_environ_reads_them(password):
    assert default(f"postgres://u:{password}@h/app")["PASSWORD"] == password.replace("%40", "@")


def test_django_connects_with_what_the_url_says():
    entry = {"TIME_ZONE": None, **default("postgres://u:p%2F@h:6432/app?sslmode=require")}
    params = PostgreSQL(entry, "default").get_connection_params()
    names = ("host", "port", "user", "password", "dbname", "sslmode")
    assert [params[name] for name in names] == ["h", 6432, "u", "p/", "app", "require"]


def test_relative_files_are_taken_from_the_base_directory(tmp_path):
    assert default("sqlite:///data/app.sqlite3", base_dir=tmp_path)["NAME"] == str(tmp_path / "data/app.sqlite3")
    assert default("sqlite:////srv/app.sqlite3", base_dir=tmp_path)["NAME"] == "/srv/app.sqlite3"
    assert default("sqlite://", base_dir=tmp_path)["NAME"] == ":memory:"
    assert default("sqlite:///file:x%3Fmode=memory?uri=true", base_dir=tmp_path)["NAME"] == "file:x?mode=memory"


def test_an_oracle_url_without_a_path_keeps_its_encoded_password():
    found = env.databases(environ={**ONE, "DATABASE_URL_ERP": "oracle://u:p%2F@tns"})["erp_db"]
    assert (found["NAME"], found["PASSWORD"]) == ("tns", "p/")


def test_a_url_may_refer_to_another_variable():
    assert env.databases(environ={"DATABASE_URL": "$PG", "PG": CONTROL}) == env.databases(environ=ONE)


# What is refused. No message holds any part of a URL but its scheme.


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "is empty. Set it to the URL of a database, or unset it."),
        ("  ", "is empty. Set it to the URL of a database, or unset it."),
        ("$PG", "refers, by $, to a variable that is not set, or to itself."),
        ("$LOOP", "refers, by $, to a variable that is not set, or to itself."),
        ("s3cr3t", NO_URL),
        ("postgres:u:s3cr3t@h/app", NO_URL),
        ("/run/secrets/s3cr3t", NO_URL),
        (
            "postgress://u:s3cr3t@h/app",
            "has the unknown scheme 'postgress'. Use postgres:// for PostgreSQL, sqlite:// for SQLite or mysql:// for "
            "MySQL and MariaDB.",
        ),
        ("postgres://u:s3cr3t@h", NO_NAME),
        ("postgres://u:s3cr3t@h/", NO_NAME),
        ("postgres://u:s3cr3t?@h/app", AFTER_HOST),
        ("postgres://u:s3cr3t/@h/app", AFTER_HOST),
        ("postgres://u:12/s3cr3t@h/app", AFTER_HOST),
        ("postgres://u:12/s3cr3t?@h/app", AFTER_HOST),
        ("postgres://u:a@b/s3cr3t@h/app", AFTER_HOST),
        ("postgres://u:p@h/s3cr3t#app", "has a bare # in it. Write %23 for a # in the password or the name."),
        ("postgres://u:s3cr3t@h/app?sslmode=", "has an option without a value. Write option=value, or remove it."),
        ("postgres://u:s3cr3t@h/app?sslmode", "has an option without a value. Write option=value, or remove it."),
        ("postgres://h/app?sslmode=disable&sslmode=require", "has the same option twice. Keep one of them."),
        ("postgres://u:s3cr3t@h/app?host=other", SECOND.format("host")),
        ("postgres://h:5432/app?port=6432", SECOND.format("port")),
        ("postgres://u:s3cr3t@h/app?user=other", SECOND.format("user")),
        ("postgres://u:s3cr3t@h/app?password=s3cr3t", SECOND.format("password")),
        ("postgres://u:s3cr3t@h/app?dbname=other", SECOND.format("dbname")),
        ("postgres://?service=app&dbname=app", SECOND.format("dbname")),
        ("postgres://u:s3cr3t#@h/app", "has a bare # in it. Write %23 for a # in the password or the name."),
        ("postgres://u:s3cr3t[@h/app", UNREADABLE),
        ("postgres://u:s3cr3t\u2100@h/app", UNREADABLE),
        ("postgres://u:s3cr3t@h:port/app", UNREADABLE),
        ("postgres://u:s3cr3t@h:70000/app", UNREADABLE),
        ("postgres://h/app?conn_max_age={[]:'s3cr3t'}", UNREADABLE),
        ("sqlite://s3cr3t.sqlite3", NO_FILE),
        ("sqlite://u:s3cr3t@h/app", NO_FILE),
        ("mysql://u:s3cr3t@h/app", OTHER_ENGINE),
        ("postgis://u:s3cr3t@h/app", OTHER_ENGINE),
        ("postgres://h/app?pool=s3cr3t", f"has an option pool {NO_FLAG}"),
        ("postgres://h/app?atomic_requests=s3cr3t", f"has an option atomic_requests {NO_FLAG}"),
        ("postgres://h/app?conn_max_age=s3cr3t", NO_AGE),
        ("postgres://h/app?conn_max_age=-1", NO_AGE),
        ("postgres://h/app?conn_max_age=True", NO_AGE),
    ],
)
@pytest.mark.parametrize("name", ["DATABASE_URL", "SHARD_URL_A"])
def test_refused_url(name, url, message):
    with pytest.raises(ImproperlyConfigured) as caught:
        env.databases(environ={**ONE, "LOOP": "$LOOP", name: url})
    assert str(caught.value) == f"{name} {message}"
