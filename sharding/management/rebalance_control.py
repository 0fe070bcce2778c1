"""
What subcommands of `rebalance` have in common: the control database, and which moves are meant.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
from django.core.management.base import CommandError
from django.db import DEFAULT_DB_ALIAS

from sharding.management.no_answer import no_answer
from sharding.operations import places
from sharding.rebalance.overview import latest_plan
from sharding.rebalance.sessions import Session, open_session


def add_selection(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--bucket", type=int, nargs="+", action="extend", default=[], metavar="N", help="Only moves of these buckets."
    )
    parser.add_argument("--all", action="store_true", help="The moves of all plans, not only of the latest one.")


def add_json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="Print one JSON object instead of text.")


@contextmanager
def control() -> Iterator[Session]:
    """
    Yield a session at the control database.

    Raises:
        CommandError: it is not PostgreSQL, was not migrated, or does not answer.
    """
    if not places.is_postgresql(DEFAULT_DB_ALIAS):
        raise CommandError(
            "The control database is not PostgreSQL. Buckets move between PostgreSQL servers: they hold what is needed "
            "to let the application write meanwhile. On SQLite, initialise a new cluster and load the rows anew."
        )
    try:
        with open_session(DEFAULT_DB_ALIAS) as session:
            yield session
    except psycopg.errors.UndefinedTable as error:
        raise CommandError("The control database has no table of moves. Run `manage.py migrate_all`.") from error
    except psycopg.OperationalError as error:
        raise no_answer(error) from error


def selected_plan(session: Session, options: dict[str, Any]) -> UUID | None:
    """Return the plan whose moves are meant, None for all."""
    return None if options["all"] else latest_plan(session)
