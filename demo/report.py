"""
What the demo prints, for a terminal of 80 columns and for the log of a CI run alike.
"""

from __future__ import annotations

import shutil
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType

from django.core.management import call_command
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from demo import answers
from demo.performance import Outcome
from demo.step import Step

WIDTH = 80

#: Is told how many rows more are done.
Advance = Callable[[int], None]
#: Columns of the words at the left of what came of a step.
MARGIN = 11
#: Columns that code is moved in; steps leave room for it.
INDENT = 4


@dataclass
class Tally:
    """What came of a chapter."""

    title: str
    steps: int = 0
    compared: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)


class Report:
    """The demo's output, and what it adds up to."""

    def __init__(self, console: Console | None = None) -> None:
        columns = min(shutil.get_terminal_size((WIDTH, 24)).columns, 100)
        # A log has no width of its own.
        self.console = console or Console(width=columns, highlight=False)
        self.chapters: list[Tally] = []
        self.begun = time.perf_counter()

    @property
    def failed(self) -> bool:
        """Return whether anything came out otherwise than it must."""
        return any(chapter.failures for chapter in self.chapters)

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Advance]:
        """Show a bar inside, which the yielded function moves on."""
        columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console) as bar:
            task = bar.add_task(what, total=total)
            yield lambda rows: bar.advance(task, rows)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Tell how long the preparations inside took."""
        begun = time.perf_counter()
        yield
        self.console.print(f"{what:<{self.console.width - 10}}{time.perf_counter() - begun:>8.1f} s")

    def command(self, *words: str) -> None:
        """Run a command of ``manage.py``, and show it with its output."""
        self.typed(*words)
        call_command(*words)

    def typed(self, *words: str) -> None:
        """Show a command that another process is about to run."""
        self.console.print()
        self.console.print(Text(f"$ manage.py {' '.join(words)}", style="bold"))

    def output(self, text: str) -> None:
        """Show what a command has printed, its long lines broken as a terminal would."""
        for line in text.splitlines():
            indent = line[: len(line) - len(line.lstrip())]
            for part in textwrap.wrap(line, self.console.width, subsequent_indent=indent) or [""]:
                self.console.print(Text(part), soft_wrap=True)

    def text(self, sentences: str) -> None:
        """Say something between commands."""
        self.console.print()
        for line in textwrap.wrap(sentences, self.console.width):
            self.console.print(Text(line))

    def lines(self, *figures: tuple[str, ...]) -> None:
        """Show figures: a word at the left, and lines beside it."""
        self.console.print()
        for word, *told in figures:
            self._line(word, *told)

    def verdict(self, name: str, failure: str | None, told: str, *, compared: int = 1) -> None:
        """Say whether something came out as it must, and count it as steps that were compared."""
        tally = self.chapters[-1]
        tally.steps += compared
        tally.compared += compared
        if failure is None:
            self._line("✓ checked", told, style="green")
        else:
            self.failure(name, failure)

    def failure(self, name: str, failure: str) -> None:
        """Say that something in this chapter came out wrong."""
        self.chapters[-1].failures.append(f"{name}: {failure}")
        self._line("✗ WRONG", f"{name}: {failure}", style="bold red")

    def chapter(self, module: ModuleType) -> None:
        """Begin a chapter."""
        title, _, rest = (module.__doc__ or "").partition(":")
        self.chapters.append(Tally(title))
        self.console.print()
        heading = f"[bold]{len(self.chapters)} {title}[/]:{rest}"
        self.console.print(Rule(heading, align="left", characters="═", style="cyan"))

    def step(self, step: Step, outcome: Outcome) -> None:
        """Tell what a step was, and what came of it."""
        tally = self.chapters[-1]
        tally.steps += 1
        tally.compared += outcome.reference_seconds is not None
        tally.refused += step.refused is not None
        self.console.print()
        for line in textwrap.wrap(step.title, self.console.width):
            self.console.print(Text(line, style="bold"))
        self.console.print()
        self._code(step.code)
        self.console.print()
        self._line("asked", f"{_asked(outcome.asked)}, in {_time(outcome.seconds)}")
        self._line("refused" if step.refused else "answer", *answers.lines(outcome.answer))
        if outcome.failure is not None:
            tally.failures.append(f"{step.function.__name__}: {outcome.failure}")
            self._line("✗ WRONG", outcome.failure, style="bold red")
        elif outcome.reference_seconds is not None:
            told = f"one database with all rows answers the same, in {_time(outcome.reference_seconds)}"
            self._line("✓ checked", told, style="green")
        elif step.silent:
            self._line("✓ checked", "no database was sent anything", style="green")
        elif step.expected is not None:
            self._line("✓ checked", "as it must be", style="green")

    def summary(self) -> None:
        """End with a table of the chapters, and with the verdict."""
        self.console.print()
        table = Table("chapter", box=None, title="Summary", title_justify="left", title_style="bold", pad_edge=False)
        for name in ("steps", "compared", "refused", "wrong"):
            table.add_column(name, justify="right")
        for chapter in self.chapters:
            figures = (chapter.steps, chapter.compared, chapter.refused, len(chapter.failures))
            table.add_row(chapter.title, *(str(figure) for figure in figures), style="red" if chapter.failures else "")
        self.console.print(table)
        self.console.print()
        failures = [failure for chapter in self.chapters for failure in chapter.failures]
        for failure in failures:
            self.console.print(Text(f"✗ {failure}", style="bold red"))
        if not failures:
            compared = sum(chapter.compared for chapter in self.chapters)
            told = f"✓ {compared} answers compared with one database that holds all rows: all the same."
            self.console.print(Text(told, style="bold green"))
        self.console.print(f"  It all took {time.perf_counter() - self.begun:.0f} s.")

    def _code(self, code: str) -> None:
        if self.console.is_terminal:
            shown = Syntax(code, "python", theme="ansi_dark", background_color="default", padding=(0, 0, 0, INDENT))
            self.console.print(shown)
        else:
            # A log is spared the spaces that fill a terminal's line.
            self.console.print(Text(textwrap.indent(code, " " * INDENT)), soft_wrap=True)

    def _line(self, word: str, *lines: str, style: str = "") -> None:
        width = self.console.width - MARGIN
        wrapped = [part for line in lines for part in textwrap.wrap(line, width) or [""]]
        for place, line in enumerate(wrapped):
            text = Text(f"{word if place == 0 else '':<{MARGIN}}", style=style or "dim")
            self.console.print(text.append(line, style=style or "default"), soft_wrap=True)


def _asked(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{alias} {count}x" if count > 1 else alias for alias, count in counts.items()) or "no database"


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
