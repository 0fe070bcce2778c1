"""
How a terminal shows what was found before the first move.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from sharding.operations.display import table
from sharding.rebalance.finding import Finding


def show_findings(findings: Sequence[Finding], console: Console) -> None:
    """Print what was found as a table, errors first."""
    if not findings:
        console.print("\nNothing was found that could stop these moves.")
        return
    shown = table("", "about", "what was found before the first move")
    for each in findings:
        shown.add_row(each.severity.value.upper(), each.check, each.message)
    console.print()
    console.print(shown)
