"""
How moves under way look in a terminal of 80 columns: how many are where, what each is doing, and what went wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from rich.console import Console, Group, RenderableType
from rich.text import Text

from sharding.operations.display import NOTHING, table
from sharding.rebalance.overview import MoveStatus, Overview
from sharding.rebalance.phases import UNDECIDED, Phase

#: Stages in the order in which a move goes through them.
STAGES = ("planned", "moving", "window", "purging", "done", "aborting", "aborted")
#: Moves that are shown one by one, and errors.
SHOWN = 10
#: Cells of the bar of all moves.
BAR = 30


def rendered(found: Overview, speeds: Mapping[int, float] | None = None) -> RenderableType:
    """
    Return what is to be seen of moves.

    Args:
        speeds: rows a second of each move, by its number, if it was looked at before.
    """
    if not found.moves:
        return Text("No moves are planned.")
    parts: list[RenderableType] = [_bar(found), Text(), _stages(found)]
    if found.under_way:
        parts += [Text(), _under_way(found, speeds or {})]
    if found.gaps:
        parts += [Text(), Text(_gaps(found))]
    for each in found.failed[:SHOWN]:
        parts += [Text(), _failure(each)]
    if len(found.failed) > SHOWN:
        parts.append(Text(f"{len(found.failed) - SHOWN} more have failed."))
    return Group(*parts)


def show(found: Overview, console: Console) -> None:
    console.print(rendered(found))


def switched_line(move: MoveStatus) -> str:
    """Return what is said of one bucket that has changed hands."""
    gap = "" if move.gap is None else f", closed for {move.gap * 1000:.0f} ms"
    return f"Bucket {move.bucket}: {move.source} -> {move.target}, {move.copied:,} rows copied{gap}."


def progress_line(found: Overview) -> str:
    """Return in one line how far all moves have come: for a log that cannot have a line of each bucket."""
    rows = sum(move.copied for move in found.moves)
    longest = f", closed for {found.gaps['max'] * 1000:.0f} ms at most" if found.gaps else ""
    return f"{found.switched:,} of {found.wanted:,} have changed hands: {rows:,} rows{longest}."


def _bar(found: Overview) -> Text:
    cells = round(BAR * found.switched / (found.wanted or 1))
    shown = Text("━" * cells, style="green")
    shown.append("━" * (BAR - cells), style="dim")
    return shown.append(f"  {found.switched:,} of {found.wanted:,} buckets have changed hands", style="default")


def _gaps(found: Overview) -> str:
    number = sum(move.gap is not None for move in found.moves)
    if number == 1:
        return f"Closed to writes while it changed hands: {found.gaps['max'] * 1000:.0f} ms."
    shown = ", ".join(f"{name} {seconds * 1000:.0f} ms" for name, seconds in found.gaps.items())
    return f"Closed to writes while they changed hands: {shown}."


def _stages(found: Overview) -> RenderableType:
    pairs: dict[tuple[str, str], list[MoveStatus]] = defaultdict(list)
    for move in found.moves:
        pairs[move.source, move.target].append(move)
    used = [stage for stage in STAGES if any(move.stage == stage for move in found.moves)]
    shown = table("from", "to", *used, "rows", right=(*used, "rows"))
    for (source, target), moves in sorted(pairs.items()):
        numbers = [sum(move.stage == stage for move in moves) for stage in used]
        cells = [f"{number:,}" if number else NOTHING for number in numbers]
        shown.add_row(source, target, *cells, f"{sum(move.copied for move in moves):,}")
    return shown


def _under_way(found: Overview, speeds: Mapping[int, float]) -> RenderableType:
    numbers = ("bucket", "rows", "rows/s", "notes", "since")
    shown = table("bucket", "phase", "rows", "rows/s", "notes", "since", "worker", right=numbers)
    for move in found.under_way[:SHOWN]:
        phase = move.phase.value if move.wanted == "go" else f"{move.phase.value} ({move.wanted})"
        speed = speeds.get(move.id)
        shown.add_row(
            str(move.bucket),
            phase,
            _rows(move),
            NOTHING if speed is None else f"{speed:,.0f}",
            f"{move.noted:,}" if move.phase in UNDECIDED else NOTHING,
            f"{(move.now - move.changed).total_seconds():.0f} s",
            (move.worker or NOTHING).rpartition(":")[0][-18:] or NOTHING,
        )
    if len(found.under_way) > SHOWN:
        shown.add_row(f"+{len(found.under_way) - SHOWN}", *[""] * 6)
    return shown


def _rows(move: MoveStatus) -> str:
    if not move.rows or move.phase not in UNDECIDED:
        return f"{move.copied:,}"
    return f"{move.copied:,} ({min(1.0, move.copied / move.rows):.0%})"


def _failure(move: MoveStatus) -> Text:
    what = f"Bucket {move.bucket}, {move.source} -> {move.target}"
    if move.phase in (Phase.ABORTED, Phase.ABORTING):
        return Text(f"{what}, was given up: {move.error}")
    return Text(f"{what}, failed {move.failures} times, is tried again: {move.error}")
