"""
One database URL, read as django-environ reads it, with the readings that would go wrong silently refused.

Given the text of a URL; returns an entry of ``DATABASES``. Nothing here knows the variable the URL came from, and no
message here quotes any part of a URL but a known or well-formed scheme, because any other part may hold the password.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import ParseResult, parse_qsl, unquote, urlparse

from environ import Env

#: The engines behind which a cluster can live: vendor -> our ENGINE.
CLUSTER_ENGINES = {"postgresql": "sharding.backends.postgresql", "sqlite": "sharding.backends.sqlite3"}

_CLUSTER_SCHEMES = {
    "postgres": "postgresql",
    "postgresql": "postgresql",
    "psql": "postgresql",
    "pgsql": "postgresql",
    "sqlite": "sqlite",
}
_SYNONYMS = {"mariadb": "mysql"}
_FILE_SCHEMES = {"sqlite", "prometheus_sqlite", "spatialite", "prometheus_spatialite"}
_NAMELESS_SCHEMES = {*_FILE_SCHEMES, "oracle", "ldap"}
_MEMORY = "sqlite://:memory:"
_SHAPE = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+._-]*)://")

_BOOLEAN_KEYS = ("ATOMIC_REQUESTS", "AUTOCOMMIT", "DISABLE_SERVER_SIDE_CURSORS", "CONN_HEALTH_CHECKS")
_BOOLEAN_OPTIONS = ("pool", "server_side_binding", "uri")
_TRUE = frozenset(Env.BOOLEAN_TRUE_STRINGS)
_FALSE = frozenset({"false", "off", "n", "no", "0"})

#: Options of libpq that name a part of the URL again. Django takes the part, and ignores the option without a word; but
#: dbname wins over the name, so that tests would write to the real database.
_PARTS = {"host": "HOST", "port": "PORT", "user": "USER", "password": "PASSWORD", "dbname": "NAME"}

_PORTS = {"postgresql": 5432, "mysql": 3306, "oracle": 1521}
_LOOPBACK = {"127.0.0.1", "::1"}


class UnreadableURL(Exception):
    """A URL that cannot be used; the message continues a sentence that starts with the variable's name."""


def scheme_of(url: str) -> str:
    """
    Return the scheme of ``url``, in lower case and without synonyms.

    Raises:
        UnreadableURL: The text has no scheme, or one that no database engine answers to.
    """
    shape = _SHAPE.match(url)
    if shape is None:
        raise UnreadableURL("is not a database URL. Write scheme://user:password@host:port/name.")
    scheme = shape["scheme"].lower()
    scheme = _SYNONYMS.get(scheme, scheme)
    if scheme not in Env.DB_SCHEMES:
        raise UnreadableURL(
            f"has the unknown scheme {scheme!r}. Use postgres:// for PostgreSQL, sqlite:// for SQLite or mysql:// for "
            f"MySQL and MariaDB."
        )
    return scheme


def vendor_of(url: str) -> str | None:
    """Return the vendor whose cluster ``url`` can be part of, ``"postgresql"`` or ``"sqlite"``; None for others."""
    return _CLUSTER_SCHEMES.get(scheme_of(url))


def parse(url: str, *, base_dir: Path | None = None) -> dict[str, Any]:
    """
    Return the ``DATABASES`` entry that ``url`` describes, with Django's own ENGINE.

    A relative SQLite file is taken from ``base_dir`` if that is given.

    Raises:
        UnreadableURL: The URL is malformed, or can be read in two ways.
    """
    scheme = scheme_of(url)
    config = _read(url, scheme)
    if not config["NAME"] and scheme not in _NAMELESS_SCHEMES and "service" not in config.get("OPTIONS", {}):
        raise UnreadableURL("names no database. Write its name after the host: scheme://user:password@host:port/name.")
    if _CLUSTER_SCHEMES.get(scheme) == "postgresql":
        _refuse_second_part(config)
    if scheme in _FILE_SCHEMES:
        config["NAME"] = _anchored(config["NAME"], base_dir)
    _cast_flags(config, _BOOLEAN_KEYS)
    _cast_flags(config.get("OPTIONS", {}), _BOOLEAN_OPTIONS)
    _cast_age(config)
    return config


def server_of(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return what tells one physical database from another, or None for a database in one connection's memory."""
    engine = config["ENGINE"].rpartition(".")[2]
    name = config["NAME"]
    if engine in ("sqlite3", "spatialite"):
        if name == ":memory:":
            return None
        return "file", name if name.startswith("file:") else str(Path(name).resolve())
    vendor = {"postgis": "postgresql"}.get(engine, engine)
    options = config.get("OPTIONS", {})
    host = str(config.get("HOST") or options.get("host", ""))
    if not host.startswith("/"):
        host = host.lower()
    port = config.get("PORT") or options.get("port") or _PORTS.get(vendor, "")
    return vendor, "localhost" if host in _LOOPBACK else host, str(port), name, str(options.get("service", ""))


def _read(url: str, scheme: str) -> dict[str, Any]:
    if url.lower() == _MEMORY:
        return dict(Env.db_url_config(_MEMORY))
    try:
        parts = _parts(url, scheme)
        config = dict(Env.db_url_config(parts))
    except (ValueError, TypeError):
        raise UnreadableURL(
            "cannot be read as a URL. Percent-encode the special characters of its user, password and options (/ is "
            "%2F, ? is %3F, # is %23, [ is %5B, @ is %40), and check the port."
        ) from None
    host = parts.netloc.rpartition("@")[2]
    if "%2f" in host.lower():
        # libpq's way to write a folder of sockets; urllib lowers the case of host names and leaves them encoded.
        config["HOST"] = unquote(host.partition(":")[0])
    return config


def _parts(url: str, scheme: str) -> ParseResult:
    if "#" in url:
        # django-environ drops what follows, or encodes an encoded password a second time.
        raise UnreadableURL("has a bare # in it. Write %23 for a # in the password or the name.")
    parts = urlparse(url)._replace(scheme=scheme)
    if scheme in _FILE_SCHEMES:
        if parts.netloc:
            # django-environ would take an in-memory database, and warn with the password.
            raise UnreadableURL(
                "names a host, but SQLite has files only. Write three slashes before a relative path, "
                "sqlite:///name.sqlite3, and four before an absolute one, sqlite:////folder/name.sqlite3."
            )
    elif "@" in parts.path + parts.query:
        # A bare / or ? in the password ends the host too early: the rest would be used, and logged, as a name.
        raise UnreadableURL(
            "has a bare @ after the host. Percent-encode the special characters of its user, password, name and "
            "options (/ is %2F, ? is %3F, @ is %40)."
        )
    _refuse_lost_options(parts.query)
    # Without a path django-environ encodes the whole URL once more, and with it the password.
    return parts._replace(path=parts.path or "/")


def _anchored(name: str, base_dir: Path | None) -> str:
    if not name or name == ":memory:" or name.startswith("file:") or base_dir is None:
        return name or ":memory:"
    return str(base_dir / name)


def _cast_flags(entry: dict[str, Any], keys: tuple[str, ...]) -> None:
    # django-environ leaves the text "false", which is true.
    for key in set(keys) & set(entry):
        text = str(entry[key]).lower()
        if text not in _TRUE | _FALSE:
            raise UnreadableURL(f"has an option {key.lower()} that is neither true nor false.")
        entry[key] = text in _TRUE


def _refuse_lost_options(query: str) -> None:
    options = parse_qsl(query, keep_blank_values=True)
    if not all(value for _, value in options):
        # django-environ drops it, and with sslmode= the encryption.
        raise UnreadableURL("has an option without a value. Write option=value, or remove it.")
    if len(dict(options)) < len(options):
        # django-environ takes the first one, and libpq the last.
        raise UnreadableURL("has the same option twice. Keep one of them.")


def _refuse_second_part(config: Mapping[str, Any]) -> None:
    options = config.get("OPTIONS", {})
    for option, part in _PARTS.items():
        if option in options and (config.get(part) or option == "dbname"):
            raise UnreadableURL(
                f"has the option {option}, which says what belongs before the question mark. Write it there only: "
                f"scheme://user:password@host:port/name."
            )


def _cast_age(config: dict[str, Any]) -> None:
    age = config.get("CONN_MAX_AGE", 0)
    if isinstance(age, str) and age.lower() == "none":
        config["CONN_MAX_AGE"] = None
    elif age is not None and (type(age) is not int or age < 0):
        raise UnreadableURL("has an option conn_max_age that is neither a number of seconds nor None.")
