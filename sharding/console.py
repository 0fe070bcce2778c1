"""The console script ``shardkit``: the management commands of this project's apps, without a ``manage.py``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

APPS = ("sharding", "aggregator")
UNSET = (
    "DJANGO_SETTINGS_MODULE is not set, so shardkit does not know your project. "
    "Set it to your settings module: DJANGO_SETTINGS_MODULE=mysite.settings shardkit …"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the management command that ``arguments`` name (``sys.argv[1:]`` by default) and return the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not os.environ.get("DJANGO_SETTINGS_MODULE"):
        print(UNSET, file=sys.stderr)
        return 2
    # An installed script has its own folder on the path and not, like manage.py, the project's.
    sys.path.insert(0, os.getcwd())
    return _run(arguments)


def _run(arguments: list[str]) -> int:
    # Django is imported here, so that the message above needs no settings.
    import django
    from django.core.management import ManagementUtility, get_commands

    django.setup()
    commands = sorted(name for name, app in get_commands().items() if app in APPS)
    if not arguments or arguments in (["help"], ["-h"], ["--help"]):
        print(f"Usage: shardkit <command> [options]\n\nCommands: {', '.join(commands)}")
        return 0
    if arguments[0] not in {*commands, "help"}:
        print(f"shardkit has no command {arguments[0]!r}. Choose one of: {', '.join(commands)}.", file=sys.stderr)
        return 2
    ManagementUtility(["shardkit", *arguments]).execute()
    return 0
