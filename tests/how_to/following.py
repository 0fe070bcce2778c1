"""
Follow a page: its commands are typed at a shell, and what they print is compared with what the page shows.

Figures that no two runs share, such as sizes, times and the length of bars, are not compared. ``...`` is anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from scripts.tutorial_page import Command, Session, Step, difference, steps
from tests.documents import ROOT
from tests.how_to.project import Project

#: Everything with a decimal point or a unit; ids of clusters; bars, and spaces and lines whose number depends on them;
#: epochs, since it depends on the time how many buckets go over in one.
_VARYING = (
    (re.compile(r"(\d[\d.,]*|\.\.\.)\s?(ms|s|B|kB|MB|bytes|%)(?=[\s;,.)/]|$)|\d+\.\d+", re.MULTILINE), "N"),
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "UUID"),
    (re.compile(r"[█▏▎▍▌▋▊▉▒┃━─]+"), ""),
    (re.compile(r"[ \t]+"), " "),
    (re.compile(r"\bepoch \d+"), "epoch N"),
)
#: A page may have blocks that are no steps.
_OTHERS = re.compile(r"^```(?:python|sql)\n.*?^```\n", re.MULTILINE | re.DOTALL)


def sections(page: Path) -> Iterator[tuple[str, list[Step]]]:
    """Yield the titles of a page's sections, with the steps in each."""
    text = _OTHERS.sub("", page.read_text(encoding="utf-8"))
    for part in re.split(r"^##+ ", text, flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        yield title, steps(body)


def follow(project: Project, step: Step) -> str | None:
    """Do what a step says; return how the outcome differs, or None."""
    if isinstance(step, Session):
        return _plain(project.type(step.text)) or None
    assert isinstance(step, Command), "A page about moves writes no file."
    status, output = project.run(step.command)
    if status and "CommandError" not in step.output:
        return f"$ {step.command}\nended with {status}:\n{output}"
    if not step.output:
        # It is not shown.
        return None
    found = difference(_plain(step.output), _plain(output))
    return found and f"$ {step.command}\n{found}\n\n{output}"


def how_to(name: str) -> Path:
    return ROOT / "docs" / "how-to" / name


def _plain(text: str) -> str:
    for pattern, replacement in _VARYING:
        text = pattern.sub(replacement, text)
    # Pages have short lines, a log has not.
    return "\n".join(line.strip() for line in text.splitlines())
