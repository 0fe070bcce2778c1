"""Initialise a cluster, look at it, explain where a query goes, and audit where rows are."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from django.apps import apps
from django.core.exceptions import FieldError, ImproperlyConfigured, ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import Error
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from sharding import cluster_map, stored_cluster
from sharding.errors import ShardingError
from sharding.management.no_answer import no_answer
from sharding.management.shards_arguments import condition, once, pin, weight
from sharding.management.shards_data import audit_data, completed_data, explanation_data, first_map_data, status_data
from sharding.management.subcommands import SUBCOMMANDS
from sharding.migrating.reporting import console_on
from sharding.operations import display, first_map, later_shards
from sharding.operations.audit import Step
from sharding.operations.audit_report import audit_all, expected_rows
from sharding.operations.explanation import explanation_of
from sharding.operations.first_map import Wish
from sharding.operations.status import status
from sharding.placement import PLACEMENTS


class Command(BaseCommand):
    help = "Initialises a cluster, shows its state, explains where a query goes, and audits where its rows are."
    #: `status` must work while something is wrong; `init` runs the checks of this app itself.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        names = "|".join(["init", "status", "explain", "audit", *SUBCOMMANDS])
        commands = parser.add_subparsers(dest="command", required=True, metavar=names)
        self._add_init(commands.add_parser("init", help="Write the first bucket map, or make new shards known."))
        self._add_status(commands.add_parser("status", help="Show the databases: who answers, what each holds."))
        self._add_explain(commands.add_parser("explain", help="Show where a query goes, without sending it."))
        self._add_audit(commands.add_parser("audit", help="Look for rows that are not where they belong."))
        for name, module in SUBCOMMANDS.items():
            module.add_arguments(commands.add_parser(name, help=module.HELP))

    def _add_init(self, parser: ArgumentParser) -> None:
        parser.add_argument("--placement", choices=list(PLACEMENTS), help="How buckets are dealt out.")
        parser.add_argument(
            "--weights",
            nargs="+",
            action="extend",
            type=weight,
            default=[],
            metavar="ALIAS=N",
            help="Shares; 1 where none is given.",
        )
        parser.add_argument(
            "--pin",
            nargs="+",
            action="extend",
            type=pin,
            default=[],
            metavar="BUCKET=ALIAS",
            help="Buckets with a fixed owner.",
        )
        parser.add_argument("--all-on", metavar="ALIAS", help="Give every bucket to one database, such as default.")
        parser.add_argument(
            "--adopt-modulo", type=int, metavar="N", help="Find rows that live on the shard number key %% N already."
        )
        parser.add_argument("--dry-run", action="store_true", help="Show the map; write nothing.")
        _add_json(parser)

    def _add_status(self, parser: ArgumentParser) -> None:
        parser.add_argument("--exact", action="store_true", help="Count the rows instead of estimating them.")
        _add_json(parser)

    def _add_explain(self, parser: ArgumentParser) -> None:
        parser.add_argument("model", help="Label of a model, such as shop.Order.")
        parser.add_argument(
            "filters", nargs="*", type=condition, metavar="LOOKUP=VALUE", help="Such as tenant_id=42 or id__in=1,2."
        )
        parser.add_argument(
            "--order-by", action="append", default=[], metavar="FIELD", help="Such as --order-by=-created."
        )
        parser.add_argument("--sql", action="store_true", help="Show the statements, too.")
        _add_json(parser)

    def _add_audit(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--model", action="append", default=[], metavar="LABEL", help="Only this model. May be given several times."
        )
        parser.add_argument(
            "--repair", action="store_true", help="Put wrong stored buckets right. No row is moved or deleted."
        )
        parser.add_argument(
            "--repair-reference",
            action="store_true",
            help="Make the copies of reference tables the same as the control database's rows.",
        )
        _add_json(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        name = options["command"]
        run = partial(SUBCOMMANDS[name].run, self) if name in SUBCOMMANDS else getattr(self, f"_{name}")
        try:
            run(console_on(self.stdout), options)
        except (ShardingError, ImproperlyConfigured, ValueError) as error:
            raise CommandError(str(error)) from error
        except Error as error:
            raise no_answer(error) from error

    def _init(self, console: Console, options: dict[str, Any]) -> None:
        wish = Wish(
            placement=options["placement"],
            weights=once(options["weights"], "--weights names the shard"),
            pins=once(options["pin"], "--pin names the bucket"),
            all_on=options["all_on"],
            adopt_modulo=options["adopt_modulo"],
        )
        first_map.check_databases()
        if stored_cluster.cluster() is not None:
            self._complete(wish, console, options)
            return
        first_map.refuse_strangers()
        first = first_map.proposed(wish)
        if set(first.owners) != {"default"}:
            # While default owns everything, several of the checks of models are warnings.
            self.check(tags=["sharding"])
        written = not options["dry_run"]
        if not options["json"]:
            display.show_first_map(first, console)
        adopted = bool(first_map.refuse_misplaced(first))
        if written:
            first_map.write(first)
        if options["json"]:
            self._print_json(first_map_data(first, written=written, adopted=adopted))
            return
        console.print("\nWritten as epoch 1." if written else "\nNothing was written.")
        if wish.weights or wish.pins:
            console.print("Put these weights and pins into SHARDING as well: `rebalance` plans by them.")
        if adopted:
            console.print("There are rows already. Run `manage.py shards audit --repair` to store their buckets.")

    def _complete(self, wish: Wish, console: Console, options: dict[str, Any]) -> None:
        if wish or options["dry_run"]:
            cluster_map.refresh()
            raise CommandError("This cluster is initialised already. Buckets move with `manage.py rebalance`.")
        done = later_shards.complete()
        if options["json"]:
            self._print_json(completed_data(done))
        else:
            display.show_completed(done, console)

    def _status(self, console: Console, options: dict[str, Any]) -> None:
        found = status(exact=options["exact"])
        if options["json"]:
            self._print_json(status_data(found))
        else:
            display.show_status(found, console)
        if not found.sound:
            aliases = [each.alias for each in found.databases if each.problems]
            raise CommandError(f"Something is wrong with {', '.join(aliases) or 'the cluster'}.")

    def _explain(self, console: Console, options: dict[str, Any]) -> None:
        model, filters = _model(options["model"]), once(options["filters"], "The query names the lookup")
        try:
            found = explanation_of(model._default_manager.filter(**filters).order_by(*options["order_by"]))
        except ValidationError as error:
            raise CommandError(f"{model._meta.label} cannot be filtered so: {' '.join(error.messages)}") from error
        except (FieldError, ValueError) as error:
            raise CommandError(f"{model._meta.label} cannot be filtered so: {error}") from error
        if options["json"]:
            self._print_json(explanation_data(found, filters))
        else:
            display.show_explanation(found, filters, console, sql=options["sql"])

    def _audit(self, console: Console, options: dict[str, Any]) -> None:
        labels = [_model(label)._meta.label for label in options["model"]]
        with self._progress(labels, options) as on_step:
            report = audit_all(
                labels, repair=options["repair"], repair_reference=options["repair_reference"], on_step=on_step
            )
        if options["json"]:
            self._print_json(audit_data(report))
        else:
            display.show_audit(report, console)
        if report.wrong:
            findings = "finding" if report.wrong == 1 else "findings"
            raise CommandError(f"Not all rows are where they belong: {report.wrong:,} {findings}.")
        unread = sorted({*report.unreachable, *report.without_table})
        if unread:
            raise CommandError(f"Not every database was audited: {', '.join(unread)}.")

    @contextmanager
    def _progress(self, labels: list[str], options: dict[str, Any]) -> Iterator[Callable[[Step], None]]:
        """Show a bar on stderr, if that is a terminal."""
        if options["json"] or options["verbosity"] == 0 or not self.stderr.isatty():
            yield lambda step: None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("Auditing", total=expected_rows(labels))
            yield lambda step: bar.update(task, advance=step.rows, description=f"{step.model} on {step.alias}")

    def _print_json(self, data: Any) -> None:
        self.stdout.write(json.dumps(data, indent=2, default=str) + "\n")


def _add_json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="Print one JSON object instead of text.")


def _model(label: str) -> Any:
    try:
        return apps.get_model(label)
    except LookupError as error:
        raise CommandError(f"{label!r} is no model. Write its label, such as shop.Order. ({error})") from error
    except ValueError as error:
        raise CommandError(f"{label!r} is no model. Write its label, such as shop.Order.") from error
