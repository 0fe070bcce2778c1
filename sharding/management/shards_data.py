"""What `shards` prints with --json: one object for each subcommand, of plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sharding.bucket_map import Imbalance
from sharding.operations.audit import Finding
from sharding.operations.audit_report import EXAMPLES, Report
from sharding.operations.explanation import Explanation
from sharding.operations.first_map import FirstMap
from sharding.operations.later_shards import Completed
from sharding.operations.reference_audit import examples
from sharding.operations.servers import Server
from sharding.operations.status import Status
from sharding.reference_sync import Drift


def first_map_data(first: FirstMap, *, written: bool, adopted: bool) -> dict[str, Any]:
    return {
        "written": written,
        "epoch": 1,
        "rule": first.rule,
        "buckets": first.counts,
        "imbalance": _imbalance(first.imbalance),
        "warnings": list(first.warnings),
        "rows_exist": adopted,
    }


def completed_data(done: Completed) -> dict[str, Any]:
    return {
        "written": False,
        "numbered": list(done.numbered),
        "identified": list(done.identified),
        "copied": list(done.copied),
    }


def status_data(found: Status) -> dict[str, Any]:
    return {
        "sound": found.sound,
        "cluster": found.cluster,
        "epoch": found.epoch,
        "buckets": found.buckets,
        "hash": found.hash,
        "exact": found.exact,
        "imbalance": _imbalance(found.imbalance),
        "problems": list(found.problems),
        "warnings": [each.message for each in found.differences],
        "databases": {
            each.alias: {
                "up": each.up,
                "number": each.number,
                "buckets": each.buckets,
                "rows": each.rows,
                "bytes": each.size,
                "epoch": each.epoch,
                "identified": each.identified,
                "fenced": each.fenced,
                "in_doubt": each.in_doubt,
                "oldest_in_doubt": each.oldest_in_doubt,
                "problems": list(each.problems),
                "server": None if each.server is None else _server(each.server),
            }
            for each in found.databases
        },
    }


def _server(server: Server) -> dict[str, Any]:
    return {"version": server.version, "encoding": server.encoding, "collation": str(server.collation)}


def explanation_data(found: Explanation, filters: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": found.model,
        "filters": dict(filters),
        "buckets": None if found.buckets is None else list(found.buckets),
        "shards": list(found.shards),
        "epoch": found.epoch,
        "tier": found.tier,
        "why": found.why,
        "refusal": found.refusal,
        "steps": asdict(found.steps),
    }


def audit_data(report: Report) -> dict[str, Any]:
    return {
        "sound": report.sound,
        "epoch": report.epoch,
        "tables": report.tables,
        "rows": report.rows,
        "wrong": report.wrong,
        "repaired": report.repaired,
        "unreachable": report.unreachable,
        "without_table": report.without_table,
        "findings": [
            {
                "model": model,
                "database": alias,
                "kind": str(kind),
                "rows": tally.rows,
                "repaired": tally.repaired,
                "examples": [_example(each) for each in tally.examples],
            }
            for (model, alias, kind), tally in report.tallies.items()
        ],
        "copies": report.copies,
        "drifts": [_drift(each) for each in report.drifts],
    }


def _drift(drift: Drift) -> dict[str, Any]:
    return {
        "model": drift.model,
        "database": drift.alias,
        "missing": len(drift.missing),
        "differing": len(drift.differing),
        "surplus": len(drift.surplus),
        "repaired": drift.repaired,
        "referred_to": {label: len(keys) for label, keys in drift.referred_to.items()},
        "examples": examples(drift, EXAMPLES),
    }


def _example(finding: Finding) -> dict[str, Any]:
    return {
        "id": finding.id,
        "key": finding.key,
        "field": finding.field,
        "found": finding.found,
        "expected": finding.expected,
    }


def _imbalance(imbalance: Imbalance | None) -> dict[str, float] | None:
    if imbalance is None:
        return None
    return {"sd": imbalance.sd, "max_over_mean": imbalance.max_over_mean}
