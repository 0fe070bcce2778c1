"""Give a fresh server the roles and the database that the cluster promises: an ordinary role that owns ``shardkit``."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from scripts.free_ports import HOST

ROLE = "shardkit"
SUPERUSER = "postgres"
REPLICATOR = "shardkit_replicator"
ATTRIBUTES = {ROLE: "CREATEDB", REPLICATOR: "REPLICATION"}


def ensure_accounts(port: int, passwords: dict[str, str]) -> None:
    """Make the ordinary role, its database and the replicas' role on the server at ``port``, if missing."""
    with psycopg.connect(
        host=HOST, port=port, user=SUPERUSER, password=passwords[SUPERUSER], dbname="postgres", autocommit=True
    ) as connection:
        for role, attribute in ATTRIBUTES.items():
            _ensure_role(connection, role, attribute, passwords[role])
        if not _exists(connection, "SELECT FROM pg_database WHERE datname = %s", ROLE):
            statement = sql.SQL("CREATE DATABASE {} OWNER {}")
            connection.execute(statement.format(sql.Identifier(ROLE), sql.Identifier(ROLE)))


def _ensure_role(connection: psycopg.Connection[Any], role: str, attribute: str, password: str) -> None:
    if _exists(connection, "SELECT FROM pg_roles WHERE rolname = %s", role):
        return
    # The verifier, so that the password reaches no log of the server.
    verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
    statement = sql.SQL("CREATE ROLE {} LOGIN {} PASSWORD {}")
    connection.execute(statement.format(sql.Identifier(role), sql.SQL(attribute), sql.Literal(verifier.decode())))


def _exists(connection: psycopg.Connection[Any], query: str, name: str) -> bool:
    return connection.execute(query, [name]).rowcount == 1
