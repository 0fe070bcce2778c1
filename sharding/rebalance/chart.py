"""
How a plan looks in a terminal of 80 columns: what every shard has before and after, the moves, and how long they take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sharding.operations.display import NOTHING, size, table
from sharding.rebalance.expected_time import Rate
from sharding.rebalance.plan import Balance, Plan, PlannedMove, Share

#: Cells of the longest bar.
BAR = 28
#: Moves that are shown one by one; more of them are summed up, and the largest shown.
SHOWN = 12
LARGEST = 3
#: Stands where a bar with the fair share ends.
MARK = "┃"
#: Eighths of a cell.
EIGHTHS = " ▏▎▍▌▋▊▉"


def show_plan(plan: Plan, console: Console, *, rate: Rate | None = None, shown: int = SHOWN) -> None:
    """
    Print what a plan brings, its moves, how long it takes, and its reasons.

    More than ``shown`` moves are summed up.
    """
    if plan.moves:
        show_balance(plan, console)
        console.print()
        _show_moves(plan, console, shown)
        console.print(f"\n{_summary(plan, rate or Rate())}")
    else:
        console.print("Nothing is to be moved.")
    for reason in plan.reasons:
        console.print(Padding(reason, (0, 0, 0, 2), expand=False))
    for bucket, alias in plan.pins:
        console.print(f"Put the pin {bucket}: {alias!r} into SHARDING['PINS'] once this is done.")


def show_balance(plan: Plan, console: Console) -> None:
    """Print two bars for every shard, before and after, with its fair share marked on both."""
    scale = max(
        (_figure(share, plan.by) for balance in (plan.before, plan.after) for share in balance.shares), default=0
    )
    columns = ("shard", "", plan.by, f"{MARK} fair share", "of it")
    shown = table(*columns, right=(plan.by, "of it"))
    for before, after in zip(plan.before.shares, plan.after.shares, strict=True):
        for label, share, balance in (("before", before, plan.before), ("after", after, plan.after)):
            figure, fair = _figure(share, plan.by), _fair(share, balance, plan.by)
            shown.add_row(
                share.alias if label == "before" else "",
                label,
                _amount(figure, plan.by),
                bar(figure, scale, fair, filled="█" if label == "after" else "▒"),
                NOTHING if share.load is None else f"{share.load:.2f}",
            )
    console.print(shown)
    console.print(f"\nImbalance: {plan.before.imbalance}, then {plan.after.imbalance}")


def bar(figure: float, scale: float, mark: float | None = None, *, filled: str = "█", width: int = BAR) -> Text:
    """Return a bar of ``width`` cells for the whole scale, in which a line stands at ``mark``."""
    cells = width * figure / scale if scale else 0.0
    full = int(cells)
    text = filled * full
    if filled == "█" and full < width:
        text += EIGHTHS[int((cells - full) * 8)]
    elif full == 0 and figure:
        text = filled
    drawn = list(text.ljust(width)[:width])
    if mark is not None and scale:
        place = min(round(width * mark / scale), width) - 1
        if place >= 0:
            drawn[place] = MARK if drawn[place] == " " else drawn[place]
    return Text("".join(drawn).rstrip(), no_wrap=True)


def _show_moves(plan: Plan, console: Console, shown: int) -> None:
    if len(plan.moves) <= shown:
        console.print(_singly(plan.moves))
        return
    summed = table("from", "to", "buckets", "rows", "size", right=("buckets", "rows", "size"))
    for (source, target), group in sorted(_grouped(plan.moves).items()):
        rows, carried = sum(move.rows for move in group), sum(move.bytes for move in group)
        summed.add_row(source, target, f"{len(group):,}", f"{rows:,}", size(carried))
    console.print(summed)
    largest = sorted(plan.moves, key=lambda move: (-move.bytes, -move.rows, move.bucket))[:LARGEST]
    console.print("\nThe largest:\n")
    console.print(_singly(largest))


def _singly(moves: Sequence[PlannedMove]) -> Table:
    made = table("bucket", "from", "to", "rows", "size", "why", right=("bucket", "rows", "size"))
    for move in moves:
        made.add_row(str(move.bucket), move.source, move.target, f"{move.rows:,}", size(move.bytes), move.reason)
    return made


def _grouped(moves: tuple[PlannedMove, ...]) -> Mapping[tuple[str, str], list[PlannedMove]]:
    groups: dict[tuple[str, str], list[PlannedMove]] = {}
    for move in moves:
        groups.setdefault((move.source, move.target), []).append(move)
    return groups


def _summary(plan: Plan, rate: Rate) -> str:
    moves = "1 move" if len(plan.moves) == 1 else f"{len(plan.moves):,} moves"
    rows = "1 row" if plan.rows == 1 else f"{plan.rows:,} rows"
    expected = duration(rate.time_for(plan))
    return f"{moves}, {rows}, {size(plan.bytes)}; about {expected} at {size(int(rate.bytes))}/s ({rate.source})."


def duration(time: timedelta) -> str:
    """Return a time for reading, in its two largest units."""
    seconds = round(time.total_seconds())
    parts = [(seconds // 86_400, "d"), (seconds // 3_600 % 24, "h"), (seconds // 60 % 60, "min"), (seconds % 60, "s")]
    first = next((index for index, (number, _) in enumerate(parts) if number), len(parts) - 1)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2] if number) or "0 s"


def _figure(share: Share, by: str) -> int:
    return {"bytes": share.bytes, "rows": share.rows, "buckets": share.buckets}[by]


def _amount(figure: int, by: str) -> str:
    return size(figure) if by == "bytes" else f"{figure:,}"


def _fair(share: Share, balance: Balance, by: str) -> float | None:
    """Return what a shard would have if the shards that share the load shared all of it by weight."""
    sharing = [each for each in balance.shares if each.load is not None]
    if share.load is None:
        return None
    return sum(_figure(each, by) for each in sharing) * share.weight / sum(each.weight for each in sharing)
