"""Move buckets between shards: plan, apply, watch, take back, verify, clean up."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import Error, NotSupportedError

from sharding.errors import ShardingError
from sharding.management.no_answer import no_answer
from sharding.management.rebalance_subcommands import SUBCOMMANDS
from sharding.migrating.reporting import console_on


class Command(BaseCommand):
    help = "Moves buckets between shards while the application goes on."
    #: A plan is made also while something is wrong with models; what hinders moves is asked by itself.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        commands = parser.add_subparsers(dest="command", required=True, metavar="|".join(SUBCOMMANDS))
        for name, module in SUBCOMMANDS.items():
            module.add_arguments(commands.add_parser(name, help=module.HELP))

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            SUBCOMMANDS[options["command"]].run(self, console_on(self.stdout), options)
        except (ShardingError, ImproperlyConfigured, ValueError, NotSupportedError) as error:
            raise CommandError(str(error)) from error
        except Error as error:
            raise no_answer(error) from error
