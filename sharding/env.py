"""
``DATABASES`` from the environment: one URL a database, and the variable's name decides its alias.

=====================  =======================================  ===========================
variable               alias                                    ENGINE
=====================  =======================================  ===========================
DATABASE_URL           default: the door, the control database  ours, by the URL's scheme
DATABASE_URL_BLOG      blog_db                                  Django's
SHARD_URL_A            shard_a                                  ours, by the URL's scheme
<variable>__REPLICA_1  <alias>_replica_1                        Django's
<variable>__DIRECT     none; kept on <alias>, for ``direct()``
=====================  =======================================  ===========================
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS
from environ import Env

from sharding import database_url, database_variable
from sharding.database_url import CLUSTER_ENGINES, UnreadableURL
from sharding.database_variable import DatabaseVariable, UnusableName

Databases = dict[str, dict[str, Any]]

_LINE = re.compile(r"(?:export )?[A-Za-z_0-9]+=.*")
_ADDRESS_KEYS = ("NAME", "USER", "PASSWORD", "HOST", "PORT", "CONN_MAX_AGE")


class _Refused(Exception):
    """The environment cannot be used; the message says why. Never leaves this module."""


def databases(
    env_file: str | Path | None = None,
    *,
    base_dir: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Databases:
    """
    Return ``DATABASES`` as the environment describes it.

    Variables of ``env_file`` count where the environment has none; a file that does not exist counts as empty. Without
    any variable the databases are SQLite files in ``base_dir``/var. ``environ`` replaces ``os.environ``.

    Raises:
        ImproperlyConfigured: A variable is malformed, missing, or a duplicate. The message names it, and never a URL.
    """
    found, refusal = _outcome(env_file, None if base_dir is None else Path(base_dir), environ)
    if refusal:
        # Raised here, after every frame that held a URL has ended: error reporters print the locals of each frame.
        del environ
        raise ImproperlyConfigured(refusal)
    return found


def direct(database: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return the settings that reach the server of ``database``, an entry of ``DATABASES``, past any pooler.

    They are its own where no ``__DIRECT`` variable was given. A database that a test runner has renamed keeps its test
    name. The password is in the result, as in ``DATABASES``.
    """
    settings = {key: value for key, value in database.items() if key != "DIRECT"}
    if "DIRECT" not in database:
        return settings
    address = dict(database["DIRECT"])
    if address.pop("POOLED_NAME") != settings["NAME"]:
        address["NAME"] = settings["NAME"]
    return {**settings, "DISABLE_SERVER_SIDE_CURSORS": False, **address}


def _outcome(
    env_file: str | Path | None, base_dir: Path | None, environ: Mapping[str, str] | None
) -> tuple[Databases, str]:
    try:
        reader = _reader(env_file, os.environ if environ is None else environ)
        variables = database_variable.read(reader.ENVIRON)
        if not variables:
            return _files((base_dir or Path.cwd()) / "var"), ""
        return _configured(reader, variables, base_dir), ""
    except (_Refused, UnusableName) as refusal:
        return {}, str(refusal)


def _reader(env_file: str | Path | None, environ: Mapping[str, str]) -> Env:
    # A class, because read_env() writes to its class; a copy, because child processes inherit the environment.
    reader: Any = type("Reader", (Env,), {"ENVIRON": dict(environ)})
    if env_file is not None and Path(env_file).exists():
        reader.read_env(io.StringIO(_lines(Path(env_file))))
    return reader()


def _lines(env_file: Path) -> str:
    try:
        lines = env_file.read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise _Refused(f"The file {env_file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise _Refused(f"The file {env_file} is not UTF-8 text.") from None
    kept = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if _LINE.fullmatch(line):
            name = line.partition("=")[0].removeprefix("export ")
            if database_variable.is_ours(name) and seen.setdefault(name, number) != number:
                raise _Refused(
                    f"Lines {seen[name]} and {number} of the file {env_file} both set {name}. Keep one of them."
                )
            kept.append(line)
        elif line.strip() and not line.lstrip().startswith("#"):
            # django-environ would ignore the line, and log it whole.
            raise _Refused(
                f"Line {number} of the file {env_file} is not of the form NAME=value, without spaces around the =."
            )
    return "\n".join(kept)


def _files(folder: Path) -> Databases:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _Refused(
            f"No database variable is set, and the folder {folder} of the SQLite files that are used then cannot be "
            f"made: {error.strerror}. Set DATABASE_URL, or make the folder."
        ) from None
    names = {DEFAULT_DB_ALIAS: "control", "shard_a": "shard_a", "shard_b": "shard_b"}
    return {
        alias: {"ENGINE": CLUSTER_ENGINES["sqlite"], "NAME": str(folder / f"{name}.sqlite3")}
        for alias, name in names.items()
    }


def _configured(reader: Env, variables: list[DatabaseVariable], base_dir: Path | None) -> Databases:
    found: Databases = {}
    kinds: dict[str, str] = {}
    servers: dict[tuple[str, ...], DatabaseVariable] = {}
    for variable in variables:
        url = _url(reader, variable.name)
        try:
            config = database_url.parse(url, base_dir=base_dir)
            kind = database_url.vendor_of(url) or config["ENGINE"]
        except UnreadableURL as reason:
            raise _Refused(f"{variable.name} {reason}") from None
        _require_kind(variable, kind, kinds.setdefault(variable.primary_alias, kind))
        _require_own_server(variable, config, servers)
        if variable.direct:
            found[variable.alias]["DIRECT"] = _address(config, found[variable.alias]["NAME"])
        else:
            found[variable.alias] = _entry(variable, config, kind)
    return found


def _url(reader: Env, name: str) -> str:
    try:
        url = str(reader.get_value(name, cast=str)).strip()
    except (ImproperlyConfigured, RecursionError):
        raise _Refused(f"{name} refers, by $, to a variable that is not set, or to itself.") from None
    if not url:
        raise _Refused(f"{name} is empty. Set it to the URL of a database, or unset it.")
    return url


def _require_kind(variable: DatabaseVariable, kind: str, primary_kind: str) -> None:
    if variable.in_cluster and kind not in CLUSTER_ENGINES:
        raise _Refused(
            f"{variable.name} is the URL of another engine than PostgreSQL and SQLite, on which default and the shards "
            f"run. Write a postgres:// or a sqlite:// URL; an app database, DATABASE_URL_<APP>, may have any engine."
        )
    if kind != primary_kind:
        raise _Refused(
            f"{variable.name} is the URL of another engine than {variable.primary}, whose data it should show. Give "
            f"both the same scheme."
        )
    if variable.direct and kind == "sqlite":
        raise _Refused(f"{variable.name} is of no use: a SQLite file has no pooler to go past. Unset it.")


def _require_own_server(
    variable: DatabaseVariable, config: Mapping[str, Any], servers: dict[tuple[str, ...], DatabaseVariable]
) -> None:
    server = database_url.server_of(config)
    # A __DIRECT address may equal its own variable's: then there is no pooler.
    if server is not None and servers.setdefault(server, variable).alias != variable.alias:
        raise _Refused(
            f"{servers[server].name} and {variable.name} name the same database on the same server. Give each alias a "
            f"database of its own."
        )


def _entry(variable: DatabaseVariable, config: dict[str, Any], kind: str) -> dict[str, Any]:
    if variable.in_cluster:
        return {**config, "ENGINE": CLUSTER_ENGINES[kind]}
    if variable.replica:
        return {**config, "TEST": {"MIRROR": variable.primary_alias}}
    return config


def _address(config: Mapping[str, Any], pooled_name: str) -> dict[str, Any]:
    address = {key: config[key] for key in _ADDRESS_KEYS if key in config}
    return {**address, "OPTIONS": config.get("OPTIONS", {}), "POOLED_NAME": pooled_name}
