"""
Build and verify lookups while the application writes.

``build`` gives every row its entry and then lets the lookup answer queries; interrupted, it goes on where it was.
``verify`` compares both ways.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import DEFAULT_DB_ALIAS

from sharding import cluster_map, registry
from sharding.bucket_map import BucketMap
from sharding.control import LookupState
from sharding.errors import UnknownLookup
from sharding.lookups import states
from sharding.lookups.declaration import Lookup
from sharding.operations import lookup_orphans, lookup_rows
from sharding.operations.lookup_rows import Finding, Kind, Place, Step

EXAMPLES = 5

OnStep = Callable[[Step], None]


@dataclass(slots=True)
class Tally:
    """How often one thing is wrong on one shard."""

    rows: int = 0
    repaired: int = 0
    examples: list[Finding] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """What became of one lookup."""

    lookup: Lookup
    rows: int = 0
    entries: int = 0
    built: bool = False
    #: Rows whose entry names another bucket, and so perhaps another shard.
    elsewhere: set[Any] = field(default_factory=set)
    tallies: dict[tuple[str, Kind], Tally] = field(default_factory=dict)

    @property
    def repaired(self) -> int:
        return sum(tally.repaired for tally in self.tallies.values())

    @property
    def wrong(self) -> int:
        """How many findings are left."""
        return sum(tally.rows for tally in self.tallies.values()) - self.repaired

    def add(self, step: Step) -> None:
        for finding in step.findings:
            tally = self.tallies.setdefault((finding.shard, finding.kind), Tally())
            tally.rows += 1
            tally.repaired += finding.repaired
            if finding.kind is Kind.BUCKET:
                self.elsewhere.add(finding.pk)
            if len(tally.examples) < EXAMPLES:
                tally.examples.append(finding)


def named(names: Sequence[str] = ()) -> list[Lookup]:
    """
    Return the lookups with these names, or of the models with these labels; without any, all.

    Raises:
        UnknownLookup: there is none of that name.
    """
    known = [lookup for entry in registry.entries() for lookup in entry.lookups]
    found = []
    for name in names:
        same = [each for each in known if name.lower() in (each.name.lower(), each.sharded._meta.label_lower)]
        if not same:
            raise UnknownLookup(
                f"{name!r} is no lookup, and no model with lookups. There are "
                f"{', '.join(each.name for each in known) or 'none'}.",
                lookup=name,
            )
        found += [each for each in same if each not in found]
    return found if names else known


def build(lookup: Lookup, on_step: OnStep = lambda step: None) -> Report:
    """Give every row of a lookup's model its entry; if all have one, the lookup is built."""
    report = Report(lookup)
    progress = _Progress.of(lookup)
    bucket_map = cluster_map.refresh()
    if progress.epoch != bucket_map.epoch:
        # Rows may have gone from a shard not yet looked at to one that was.
        progress.begin(bucket_map.epoch)
    wanted = set(range(len(bucket_map.owners)))
    while wanted:
        for shard in bucket_map.aliases:
            owned = wanted.intersection(bucket_map.buckets_of(shard))
            for step in lookup_rows.compare(lookup, shard, owned=owned, after=progress.place(shard), repair=True):
                report.rows += step.rows
                report.add(step)
                if not report.wrong:
                    # What is left to be done is met again by the next run.
                    progress.reached(shard, step.end)
                on_step(step)
        before, bucket_map = bucket_map, cluster_map.refresh()
        wanted = _moved(before, bucket_map)
        if wanted:
            progress.begin(bucket_map.epoch)
    report.built = not report.wrong
    progress.end(built=report.built)
    return report


def verify(lookup: Lookup, *, repair: bool = False, on_step: OnStep = lambda step: None) -> Report:
    """Compare every row with its entry and every entry with its row; with ``repair``, put the entries right."""
    report = Report(lookup)
    bucket_map = cluster_map.refresh()
    for shard in bucket_map.aliases:
        owned = set(bucket_map.buckets_of(shard))
        for step in lookup_rows.compare(lookup, shard, owned=owned, repair=repair):
            report.rows += step.rows
            report.add(step)
            on_step(step)
    for step in lookup_orphans.find(lookup, known=report.elsewhere, repair=repair):
        report.entries += step.rows
        report.add(step)
        on_step(step)
    if repair:
        _look_again(lookup, report, bucket_map)
    report.built = states.is_built(lookup.name)
    return report


def _look_again(lookup: Lookup, report: Report, bucket_map: BucketMap) -> None:
    """Repair rows whose value was taken: by an orphan, or a row of a shard that came later, and now it may be free."""
    taken = [at for at in report.tallies if at[1] is Kind.TAKEN]
    for at in taken:
        del report.tallies[at]
    for shard, _ in taken:
        for step in lookup_rows.compare(lookup, shard, owned=set(bucket_map.buckets_of(shard)), repair=True):
            report.add(step)


def _moved(before: BucketMap, after: BucketMap) -> set[int]:
    return {bucket for bucket, owner in enumerate(after.owners) if before.owner(bucket) != owner}


class _Progress:
    """How far a build has come, in the control database."""

    def __init__(self, state: LookupState) -> None:
        self._state = state
        self._known: dict[str, Any] = json.loads(state.progress)
        self._fields: tuple[Any, ...] = ()

    @classmethod
    def of(cls, lookup: Lookup) -> _Progress:
        state, _ = LookupState.objects.using(DEFAULT_DB_ALIAS).get_or_create(name=lookup.name)
        found = cls(state)
        found._fields = tuple(lookup.sharded._meta.pk_fields)
        return found

    @property
    def epoch(self) -> int | None:
        return self._known.get("epoch")

    def begin(self, epoch: int) -> None:
        self._save({"epoch": epoch, "places": {}})

    def place(self, shard: str) -> Place | None:
        found = self._known["places"].get(shard)
        if found is None:
            return None
        bucket, *texts = found
        values = tuple(each.to_python(text) for each, text in zip(self._fields, texts, strict=True))
        return Place(bucket, values if len(values) > 1 else values[0])

    def reached(self, shard: str, place: Place) -> None:
        pk = place.pk if len(self._fields) > 1 else (place.pk,)
        self._known["places"][shard] = [place.bucket, *map(str, pk)]
        self._save(self._known)

    def end(self, *, built: bool) -> None:
        self._state.built = built
        self._state.progress = "{}"
        self._state.save(using=DEFAULT_DB_ALIAS)
        states.forget()

    def _save(self, known: dict[str, Any]) -> None:
        self._known = known
        self._state.progress = json.dumps(known)
        # Another build may have come to its end.
        self._state.save(using=DEFAULT_DB_ALIAS, update_fields=["progress"])
