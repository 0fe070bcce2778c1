"""
The documentation as the tests see it: its files, and the code blocks in them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"

_FENCE = re.compile(r"^(?P<fence>`{3,}|:{3,})\{?(?P<info>[^`\n]*)\n(?P<body>.*?)^(?P=fence)$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, and its text without the options of a directive."""

    path: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Return README and every page of the documentation."""
    written = (ROOT / "docs").rglob("*.md")
    return [ROOT / "README.md", *sorted(path for path in written if "_build" not in path.parts)]


def blocks(path: Path, *languages: str) -> list[Block]:
    """Return the fenced blocks of a page that are in one of the languages."""
    text = path.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        language = match["info"].replace("code-block}", "").strip()
        if language in languages:
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(path, line, language, _without_options(match["body"])))
    return found


def reference() -> str:
    """Return all of docs/reference as one text."""
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(REFERENCE.glob("*.md")))


def _without_options(body: str) -> str:
    lines = body.splitlines(keepends=True)
    while lines and re.match(r":[a-z-]+:", lines[0]):
        lines.pop(0)
    return "".join(lines)
