"""
An audit of the whole cluster, added up: how many rows have what is wrong with them, with a few examples of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from django.db import Error, connections

from sharding import cluster_map, conf, live_moves
from sharding.operations import places
from sharding.operations.audit import Finding, Kind, Step, audit, tables
from sharding.operations.reference_audit import audit_copies
from sharding.operations.status import UNDECLARED, measured, patiently, reason
from sharding.reference_sync import Drift

EXAMPLES = 5


@dataclass(slots=True)
class Tally:
    """How often one thing is wrong in one table."""

    rows: int = 0
    repaired: int = 0
    examples: list[Finding] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """What an audit found; ``tallies`` has a key (model, database, kind) for each thing that is wrong."""

    epoch: int
    rows: int = 0
    tables: int = 0
    tallies: dict[tuple[str, str, Kind], Tally] = field(default_factory=dict)
    #: Copies of reference tables that were compared, and those of them that differ.
    copies: int = 0
    drifts: list[Drift] = field(default_factory=list)
    #: Databases that did not answer, and why.
    unreachable: dict[str, str] = field(default_factory=dict)
    #: Labels of the sharded models whose table an owner of buckets does not have, by database.
    without_table: dict[str, list[str]] = field(default_factory=dict)

    @property
    def repaired(self) -> int:
        return sum(tally.repaired for tally in self.tallies.values())

    @property
    def wrong(self) -> int:
        """How many findings are left."""
        return (
            sum(tally.rows for tally in self.tallies.values()) - self.repaired + sum(each.wrong for each in self.drifts)
        )

    @property
    def sound(self) -> bool:
        return not self.wrong and not self.unreachable and not self.without_table

    def add(self, step: Step) -> None:
        self.rows += step.rows
        for finding in step.findings:
            tally = self.tallies.setdefault((finding.model, finding.alias, finding.kind), Tally())
            tally.rows += 1
            if len(tally.examples) < EXAMPLES:
                tally.examples.append(finding)
        if step.repaired:
            self.tallies[step.model, step.alias, Kind.BUCKET].repaired += step.repaired

    def compared(self, drifts: Sequence[Drift]) -> None:
        self.copies += len(drifts)
        self.drifts += [each for each in drifts if each.wrong or each.repaired]


def audit_all(
    labels: Sequence[str] = (),
    *,
    repair: bool = False,
    repair_reference: bool = False,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Report:
    """
    Audit the sharded and reference models, or those with these labels, on every database of the cluster.

    Raises:
        MapMissing, MapConflict: there is no map to compare with.
        LookupError, NotSharded: a label names no sharded or reference model.
    """
    # The moves first: one that is decided meanwhile is among them.
    moving = live_moves.buckets()
    bucket_map = cluster_map.refresh()
    report = Report(bucket_map.epoch)
    for alias in places.databases(bucket_map):
        if alias not in connections:
            report.unreachable[alias] = UNDECLARED
            continue
        try:
            with patiently(alias):
                there = tables(labels, alias)
                lacking = [entry.label for entry in places.lacking(alias, places.entries(labels))]
                if lacking and alias in bucket_map.aliases:
                    report.without_table[alias] = lacking
                for entry in there:
                    report.tables += 1
                    for step in audit(entry, alias, bucket_map, moving=moving, repair=repair):
                        report.add(step)
                        on_step(step)
                if alias in conf.current().shards:
                    report.compared(audit_copies(labels, alias, repair=repair_reference))
        except Error as error:
            report.unreachable[alias] = reason(error)
    return report


def expected_rows(labels: Sequence[str] = ()) -> int | None:
    """Return about how many rows an audit will look at, as the planners estimate it; None where one does not know."""
    total = 0
    for alias in places.databases(cluster_map.current()):
        if alias not in connections:
            continue
        try:
            with patiently(alias):
                estimates = [measured(alias, entry)[0] for entry in tables(labels, alias)]
        except Error:
            # It will be a line of the report.
            continue
        if None in estimates:
            return None
        total += sum(filter(None, estimates))
    return total
