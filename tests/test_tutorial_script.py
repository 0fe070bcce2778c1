"""
The script that follows the tutorial: what it reads from a page, and what it says when a page is wrong.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import tutorial
from scripts.tutorial_page import Command, File, PageError, Session, difference, steps

ROOT = Path(__file__).resolve().parent.parent

CONSOLE = """\
Text.

```console
$ mkdir shop
$ ls
a
b
```
"""
FILE = """\
```{code-block} python
:caption: shop/models.py

from django.db import models
```
"""
APPENDED = FILE.replace("models.py", "models.py (at the end)")
PYCON = """\
```pycon
>>> 1 + 1
2
```
"""


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        pytest.param("Only text, and `code`.", [], id="text"),
        pytest.param(CONSOLE, [Command(4, "mkdir shop", ""), Command(5, "ls", "a\nb")], id="console"),
        pytest.param(FILE, [File(1, "shop/models.py", "from django.db import models\n", append=False)], id="file"),
        pytest.param(APPENDED, [File(1, "shop/models.py", "from django.db import models\n", append=True)], id="append"),
        pytest.param(PYCON, [Session(2, ">>> 1 + 1\n2\n")], id="session"),
        pytest.param("```text\nlook\n```\n", [], id="a block to look at"),
        pytest.param(PYCON + FILE, [Session, File], id="in order"),
    ],
)
def test_steps(page, expected):
    found = steps(page)
    assert found == expected or [type(each) for each in found] == expected


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (
            "```python\n1 + 1\n```\n",
            "Line 1 opens a 'python' block, and nobody knows where its text goes. Give it a caption.",
        ),
        (
            "\n```{code-block} python\n1 + 1\n```\n",
            "Line 2 opens a code-block without a caption that says which file it is.",
        ),
        ("```console\nhello\n```\n", "Line 2 is output, but no command came before it."),
    ],
)
def test_blocks_that_nobody_could_follow(page, message):
    with pytest.raises(PageError) as caught:
        steps(page)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ("", ""),
        ("a", "a\n"),
        ("a\nb", "a  \nb\n\n"),
        ("a ...", "a 0.01 s\n"),
        ("...", "anything\nat all"),
        ("a\n...\nd", "a\nb\nc\nd"),
    ],
)
def test_output_that_agrees(expected, actual):
    assert difference(expected, actual) is None


@pytest.mark.parametrize(
    ("expected", "actual"),
    [("", "a"), ("a", ""), ("a", "b"), ("a\nb", "b\na"), ("a ...", "b 0.01 s"), ("a\n...\nd", "a\nb\nc")],
)
def test_output_that_differs(expected, actual):
    assert difference(expected, actual) is not None


def test_the_difference_is_readable():
    assert difference("a ...\nb\n...", "a 0.1 s\nc") == (
        "--- the tutorial says\n+++ it is\n@@ -1,3 +1,2 @@\n a 0.1 s\n-b\n-...\n+c"
    )


def test_a_page_that_works(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(
        "```console\n$ mkdir shop\n$ cd shop\n```\n"
        "```{code-block} text\n:caption: names/all.txt\n\nAda\n```\n"
        "```{code-block} text\n:caption: names/all.txt (at the end)\nBob\n```\n"
        "```console\n$ cat names/all.txt\nAda\n...\n$ basename $PWD\nshop\n```\n"
    )
    assert tutorial.main([str(page)]) == 0
    assert "The tutorial works: 6 steps in 0 s." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("$ echo tea\ncoffee", "$ echo tea\n\n--- the tutorial says\n+++ it is\n@@ -1 +1 @@\n-coffee\n+tea\n"),
        ("$ (exit 3)", "$ (exit 3)\n\nThe command ended with 3:\n\n"),
        ("$ exit 3", "$ exit 3\n\nThe shell ended:\n\n"),
    ],
    ids=["other output", "a failure", "the shell ends"],
)
def test_a_page_that_does_not(tmp_path, capsys, command, says):
    page = tmp_path / "page.md"
    page.write_text(f"```console\n$ true\n{command}\n$ echo not reached\n```\n")
    assert tutorial.main([str(page)]) == 1
    printed = capsys.readouterr().out
    assert printed.endswith(f"\n{page}:3: {says}")
    assert "not reached" not in printed


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    page = tmp_path / "page.md"
    page.write_text("```console\n$ touch file\n```\n")
    assert tutorial.main([str(page)]) == 0
    assert sorted(tmp_path.iterdir()) == [page]


def test_the_tutorial_itself_can_be_followed():
    found = steps((ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8"))
    assert {type(step) for step in found} == {Command, File, Session}
