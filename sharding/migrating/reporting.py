"""
What a run of ``migrate_all`` tells while it lasts: lines, and below them a progress bar where there is a terminal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

#: Wide enough that no line is broken where nobody looks at a window.
UNBROKEN = 10_000
_BLANKS = re.compile(r" +$", re.MULTILINE)


def console_on(stdout: Any) -> Console:
    """Return a console that writes to the stdout of a management command; without a terminal, plain text."""
    terminal = bool(stdout.isatty())
    # Django's wrapper would end each of the console's writes with a line break of its own.
    stdout.ending = ""
    file: Any = _Writer(stdout, trim=not terminal)
    return Console(
        file=file, force_terminal=terminal, width=None if terminal else UNBROKEN, highlight=False, markup=False
    )


class _Writer:
    """
    Writes what its stream can encode, and question marks for bars that it cannot: a command does not end there.

    With ``trim`` the blanks behind lines are left out: a table fills each line up to the length of its longest.
    """

    def __init__(self, stdout: Any, *, trim: bool) -> None:
        self._stdout = stdout
        self._trim = trim

    def write(self, text: str) -> None:
        encoding = getattr(self._stdout, "encoding", None) or "utf-8"
        written = text.encode(encoding, "replace").decode(encoding)
        self._stdout.write(_BLANKS.sub("", written) if self._trim else written)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stdout, name)


class Reporter:
    """Tells what happens, from any thread."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self.console = console
        self.quiet = quiet
        self._progress: Progress | None = None
        self._task: Any = None

    @contextmanager
    def counting(self, total: int) -> Iterator[None]:
        """Show a bar of ``total`` migrations inside, if there is a terminal."""
        if self.quiet or not self.console.is_terminal or not total:
            yield
            return
        columns = (TextColumn("Migrating"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True) as self._progress:
            self._task = self._progress.add_task("migrations", total=total)
            yield
        self._progress = None

    def say(self, alias: str, what: str) -> None:
        if not self.quiet:
            self.console.print(f"{alias}: {what}")

    def applied(self, alias: str, what: str) -> None:
        self.say(alias, what)
        if self._progress is not None:
            self._progress.advance(self._task)
