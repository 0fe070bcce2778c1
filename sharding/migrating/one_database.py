"""
Migrate one database: on a direct connection, alone, with routing off, and again when others hold its locks.
"""

from __future__ import annotations

import io
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.core.management import call_command
from django.core.management.commands import migrate
from django.db import OperationalError, connections

from sharding import reference_sync, routing
from sharding.direct_connection import direct_connection, is_locked_out
from sharding.errors import MigrationFailed
from sharding.fence import raising
from sharding.migrating.missing_tables import create_missing_tables
from sharding.migrating.reporting import Reporter
from sharding.migrating.target import Target

#: Seconds before the first repetition; each further one waits twice as long, up to LONGEST_DELAY.
FIRST_DELAY = 1.0
LONGEST_DELAY = 30.0
#: Seconds between two attempts to become the only migrate_all of a database.
POLL = 0.2
#: The advisory lock of migrate_all; any number that no other lock of the database uses.
LOCK = 0x5348_4152_444D_4947


class Interrupted(MigrationFailed):
    """Somebody has interrupted the run."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for locks: seconds for each statement, and how often to repeat a migration."""

    lock_timeout: float = 5.0
    retries: int = 5
    _stopped: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)

    def pause(self, seconds: float) -> None:
        """
        Wait, unless the run is interrupted.

        Raises:
            Interrupted: it was.
        """
        if self._stopped.wait(seconds):
            raise Interrupted("The run was interrupted.", failures={})

    def stop(self) -> None:
        """Let no thread wait any longer, or begin another migration."""
        self._stopped.set()


@dataclass(slots=True)
class Outcome:
    """What became of one database."""

    alias: str
    done: list[str] = field(default_factory=list)
    #: The migration that failed, if the error came out of one.
    failed: str | None = None
    error: Exception | None = None


def migrate_database(alias: str, target: Target, patience: Patience, reporter: Reporter) -> Outcome:
    """Migrate the database of ``alias`` and return what became of it; an error is in the outcome, never raised."""
    outcome = Outcome(alias)
    try:
        with (
            direct_connection(alias, lock_timeout=patience.lock_timeout) as connection,
            _alone(connection, patience, reporter),
            routing.migrating(alias),
        ):
            for table in create_missing_tables(connection):
                reporter.say(alias, f"created {table}, whose model is kept on shards now")
            reference_sync.reset_sequences(connection)
            _Repeated(connection, target, patience, reporter, outcome).run()
            _raise_fence(connection, patience, reporter)
    except Interrupted as error:
        outcome.error = error
        reporter.say(alias, "stopped")
    except Exception as error:
        outcome.error = error
        reporter.say(alias, f"failed{f' in {outcome.failed}' if outcome.failed else ''}")
    finally:
        connections.close_all()
    return outcome


def _raise_fence(connection: Any, patience: Patience, reporter: Reporter) -> None:
    """Put the fence around what the migrations have left, again while writers hold the locks that it needs."""

    def pause(seconds: float) -> None:
        reporter.say(connection.alias, f"the fence waits for locks that others hold; again in {seconds:.0f} s")
        patience.pause(seconds)

    for table in raising.raise_patiently(connection.alias, pause, patience.retries):
        reporter.say(connection.alias, f"fenced {table}")


@contextmanager
def _alone(connection: Any, patience: Patience, reporter: Reporter) -> Iterator[None]:
    """Wait until no other migrate_all works on this database. The lock ends with the connection."""
    if connection.vendor == "postgresql":
        told = False
        while not _locked(connection):
            if not told:
                reporter.say(connection.alias, "waiting for another migrate_all to finish here")
                told = True
            patience.pause(POLL)
    yield


def _locked(connection: Any) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [LOCK])
        return bool(cursor.fetchone()[0])


class _Repeated:
    """Django's migrate on one database, repeated from where it stopped while others hold the locks it needs."""

    def __init__(
        self, connection: Any, target: Target, patience: Patience, reporter: Reporter, outcome: Outcome
    ) -> None:
        self.connection = connection
        self.target = target
        self.patience = patience
        self.reporter = reporter
        self.outcome = outcome
        self.migration: Any = None
        self.started = 0.0

    def run(self) -> None:
        delay = FIRST_DELAY
        for left in range(self.patience.retries, -1, -1):
            try:
                self._attempt()
                return
            except OperationalError as error:
                if not left or not is_locked_out(error) or not self._left_no_trace():
                    raise
            pause = min(delay, LONGEST_DELAY) * random.uniform(0.8, 1.2)
            self.reporter.say(
                self.outcome.alias, f"{self.migration} waits for locks that others hold; again in {pause:.0f} s"
            )
            self.patience.pause(pause)
            delay *= 2

    def _attempt(self) -> None:
        names = [name for name in (self.target.app_label, self.target.migration_name) if name is not None]
        self.migration = None
        try:
            call_command(
                _Migrate(self), *names, database=self.outcome.alias, verbosity=0, interactive=False, force_color=False
            )
        except Exception:
            self.outcome.failed = str(self.migration) if self.migration is not None else None
            raise
        self.outcome.failed = None

    def _left_no_trace(self) -> bool:
        """Return whether the failed migration was rolled back as a whole."""
        return self.connection.features.can_rollback_ddl and (self.migration is None or self.migration.atomic)

    def step(self, action: str, migration: Any) -> None:
        if action in {"apply_start", "unapply_start"}:
            # Between two migrations a run may be interrupted, and none is half done.
            self.patience.pause(0)
            self.migration = migration
            self.started = time.monotonic()
        elif action in {"apply_success", "unapply_success"}:
            self.migration = None
            self.outcome.done.append(str(migration))
            verb = "applied" if action == "apply_success" else "unapplied"
            self.reporter.applied(self.outcome.alias, f"{verb} {migration} ({time.monotonic() - self.started:.2f} s)")


class _Migrate(migrate.Command):
    """Django's command, which tells its steps to ``watcher`` instead of printing them."""

    def __init__(self, watcher: _Repeated) -> None:
        super().__init__(stdout=io.StringIO(), stderr=io.StringIO())
        self.watcher = watcher

    def migration_progress_callback(self, action: str, migration: Any = None, fake: bool = False) -> None:
        self.watcher.step(action, migration)
