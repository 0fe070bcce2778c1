"""Django's ``migrate``, of one database: with routing off, and with a word on the databases it leaves alone."""

from __future__ import annotations

from typing import Any

from django.core.management.commands import migrate
from django.db import connections

from sharding import reference_sync, routing
from sharding.migrating import others
from sharding.migrating.missing_tables import create_missing_tables


class Command(migrate.Command):
    help = f"{migrate.Command.help} Migrates one database; migrate_all migrates all of them."

    def handle(self, *args: Any, **options: Any) -> None:
        alias = options["database"]
        changes = not options["plan"] and not options["check_unapplied"] and not options["prune"]
        with routing.migrating(alias):
            if changes and not options["fake"]:
                for table in create_missing_tables(connections[alias]):
                    self._say(options, f"Created {table}, whose model is kept on shards now.")
                reference_sync.reset_sequences(connections[alias])
            super().handle(*args, **options)
        if changes and not _is_for_a_test_database(options):
            for line in others.not_migrated(alias) if options["verbosity"] >= 1 else ():
                self._say(options, self.style.NOTICE(line))

    def _say(self, options: dict[str, Any], line: str) -> None:
        if options["verbosity"] >= 1:
            self.stdout.write(line)


def _is_for_a_test_database(options: dict[str, Any]) -> bool:
    # As create_test_db() calls it; a user's own call has at least one of these otherwise.
    return options["run_syncdb"] and not options["interactive"] and bool(options.get("skip_checks"))
