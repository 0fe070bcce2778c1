"""
Where a run of migrations leads: to the latest ones of all apps, of one app, or to one migration of an app.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.apps import apps
from django.core.management.base import CommandError
from django.db.migrations.loader import AmbiguityError, MigrationLoader

Nodes = list[tuple[str, str | None]]


@dataclass(frozen=True, slots=True)
class Target:
    """``app_label`` and ``migration_name`` as Django's ``migrate`` takes them."""

    app_label: str | None = None
    migration_name: str | None = None

    def require(self) -> None:
        """
        Check that the target exists, in the words of Django's ``migrate``, before any database is asked.

        Raises:
            CommandError: there is no such app or migration, or several begin with that name.
        """
        if self.app_label is None:
            return
        try:
            apps.get_app_config(self.app_label)
        except LookupError as error:
            raise CommandError(str(error)) from None
        loader = MigrationLoader(None)
        if self.app_label not in loader.migrated_apps:
            raise CommandError(f"App '{self.app_label}' does not have migrations.")
        if self.migration_name in {None, "zero"}:
            return
        try:
            loader.get_migration_by_prefix(self.app_label, self.migration_name)
        except AmbiguityError:
            raise CommandError(
                f"More than one migration matches '{self.migration_name}' in app '{self.app_label}'. "
                f"Please be more specific."
            ) from None
        except KeyError:
            raise CommandError(
                f"Cannot find a migration matching '{self.migration_name}' from app '{self.app_label}'."
            ) from None

    def nodes(self, loader: MigrationLoader) -> Nodes:
        """Return the nodes of the migration graph of one database that its plan has to reach."""
        leaves: Nodes = list(loader.graph.leaf_nodes())
        if self.app_label is None:
            return leaves
        if self.migration_name is None:
            return [node for node in leaves if node[0] == self.app_label]
        if self.migration_name == "zero":
            return [(self.app_label, None)]
        node = (self.app_label, loader.get_migration_by_prefix(self.app_label, self.migration_name).name)
        if node not in loader.graph.nodes and node in loader.replacements:
            # A squashed migration that is applied in part is no node; its last replacement is.
            return [loader.replacements[node].replaces[-1]]
        return [node]
