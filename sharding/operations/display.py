"""
How results look in a terminal of 80 columns: tables for what is compared, sentences for what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from sharding.operations.audit import MEANING, Finding, Kind
from sharding.operations.audit_report import Report
from sharding.operations.explanation import Explanation
from sharding.operations.first_map import FirstMap
from sharding.operations.later_shards import Completed
from sharding.operations.reference_audit import examples
from sharding.operations.status import DatabaseStatus, Status

NOTHING = "-"
#: Examples of each thing that is wrong.
SHOWN = 3
#: Columns of numbers.
DRIFTS = ("missing", "differing", "surplus")


def show_first_map(first: FirstMap, console: Console) -> None:
    shown = table("database", "buckets", "share")
    total = len(first.owners)
    for alias, count in first.counts.items():
        shown.add_row(alias, f"{count:,}", f"{count / total:.1%}")
    console.print(f"Bucket map ({first.rule}):\n")
    console.print(shown)
    console.print(f"\nImbalance: {first.imbalance}")
    for warning in first.warnings:
        console.print(f"Warning: {warning}", soft_wrap=False)


def show_completed(done: Completed, console: Console) -> None:
    if done.numbered:
        console.print(f"Made known: {', '.join(done.numbered)}.")
    if done.identified:
        console.print(f"Wrote its identity into {', '.join(done.identified)}.")
    if done.copied:
        console.print(f"Copied the rows of reference models to {', '.join(done.copied)}.")
    console.print("The bucket map is as it was. Move buckets with `manage.py rebalance`.")


def show_status(found: Status, console: Console) -> None:
    name = f"Cluster {found.cluster}" if found.cluster else "Not initialised"
    epoch = NOTHING if found.epoch is None else found.epoch
    console.print(f"{name}\nepoch {epoch}, {found.buckets} buckets, hash {found.hash}\n")
    rows = "rows" if found.exact else "rows (est.)"
    shown = table("database", "server", "buckets", rows, "size", "epoch", "identity", "fence")
    for each in found.databases:
        shown.add_row(*_cells(each))
    console.print(shown)
    if found.imbalance is not None:
        console.print(f"\nImbalance: {found.imbalance}")
    _show_servers(found, console)
    unknown = [each.alias for each in found.databases if each.up and each.rows is None]
    if unknown:
        console.print(f"Rows of {', '.join(unknown)} were never estimated: run ANALYZE there, or use --exact.")
    problems = [*found.problems, *(f"{each.alias}: {text}" for each in found.databases for text in each.problems)]
    if problems:
        console.print("\nProblems:")
        for problem in problems:
            console.print(Padding(problem, (0, 0, 0, 2), expand=False))


def _show_servers(found: Status, console: Console) -> None:
    servers: dict[str, list[str]] = {}
    for each in found.databases:
        if each.server is not None:
            about = f"PostgreSQL {each.server.major}, {each.server.encoding}, {each.server.collation}"
            servers.setdefault(about, []).append(each.alias)
    for about, aliases in servers.items():
        where = "" if len(servers) == 1 else f" ({', '.join(aliases)})"
        console.print(f"Servers: {about}{where}")
    for difference in found.differences:
        console.print(f"Warning: {difference.message} {difference.hint}")


def show_explanation(found: Explanation, filters: Mapping[str, Any], console: Console, *, sql: bool) -> None:
    conditions = ", ".join(f"{name}={value!r}" for name, value in filters.items())
    shown = Table.grid(padding=(0, 2))
    shown.add_column(no_wrap=True)
    shown.add_column(overflow="fold")
    shown.add_row("Query", f"{found.model}.objects.filter({conditions})")
    for heading, text in found.rows(sql=sql):
        shown.add_row(heading, text)
    console.print(shown)


def show_audit(report: Report, console: Console) -> None:
    console.print(f"{report.rows:,} rows of {report.tables} tables, compared with epoch {report.epoch} of the map.")
    for alias, reason in report.unreachable.items():
        console.print(f"{alias} does not answer: {reason}")
    for alias, labels in report.without_table.items():
        console.print(f"{alias} has no table of {', '.join(labels)}. Run `manage.py migrate_all`.")
    if report.copies:
        console.print(f"{report.copies} copies of reference tables, compared with the control database's rows.")
    if not report.tallies and not report.drifts:
        if report.sound:
            console.print("Every row is where it belongs.")
        return
    if report.tallies:
        _show_tallies(report, console)
    if report.drifts:
        _show_drifts(report, console)


def _show_tallies(report: Report, console: Console) -> None:
    shown = table("model", "database", "rows", "what is wrong", right=("rows",))
    for (model, alias, kind), tally in report.tallies.items():
        shown.add_row(model, alias, f"{tally.rows:,}", MEANING[kind])
    console.print()
    console.print(shown)
    console.print("\nFor example:")
    for tally in report.tallies.values():
        for example in tally.examples[:SHOWN]:
            console.print(Padding(_example(example), (0, 0, 0, 2), expand=False))
    if report.repaired:
        console.print(f"\nStored buckets put right: {report.repaired:,}.")


def _show_drifts(report: Report, console: Console) -> None:
    shown = table("model", "shard", "missing", "differing", "surplus", "for example", right=DRIFTS)
    for each in report.drifts:
        counts = (f"{len(rows):,}" for rows in (each.missing, each.differing, each.surplus))
        shown.add_row(each.model, each.alias, *counts, ", ".join(examples(each, SHOWN)))
    console.print()
    console.print(shown)
    repaired = sum(each.repaired for each in report.drifts)
    if repaired:
        console.print(f"\nReference rows put right: {repaired:,}.")
    for each in report.drifts:
        for label, keys in each.referred_to.items():
            console.print(f"Left on {each.alias}: {len(keys):,} surplus rows of {each.model}, to which {label} refers.")


def size(count: int | None) -> str:
    """Return a number of bytes for reading."""
    if count is None:
        return NOTHING
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"


def table(*columns: str, right: tuple[str, ...] | None = None) -> Table:
    """Return an empty table; ``right`` names the columns that hold numbers."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    numbers = right or ("buckets", "share", "rows", "rows (est.)", "size", "epoch")
    for column in columns:
        made.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    return made


def _cells(each: DatabaseStatus) -> tuple[str, ...]:
    words = {None: NOTHING, True: "ok", False: "WRONG"}
    return (
        each.alias,
        "up" if each.up else "DOWN",
        f"{each.buckets:,}",
        NOTHING if each.rows is None else f"{each.rows:,}",
        size(each.size),
        NOTHING if each.epoch is None else str(each.epoch),
        words[each.identified],
        words[each.fenced],
    )


def _example(finding: Finding) -> str:
    row = f"{finding.model} {finding.id!s} on {finding.alias}, key {finding.key!r}"
    if finding.kind is Kind.KEY:
        return f"{row}: {MEANING[finding.kind]}"
    found = "none" if finding.found is None else finding.found
    if finding.kind is Kind.OWNER:
        return f"{row}: belongs to {finding.expected}"
    return f"{row}: {finding.field} says bucket {found}, the key says {finding.expected}"
