"""The console script: which commands it runs and what it says when it cannot."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sharding import console
from sharding.console import main


def test_without_settings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE")
    assert main(["shards", "status"]) == 2
    assert capsys.readouterr().err == (
        "DJANGO_SETTINGS_MODULE is not set, so shardkit does not know your project. "
        "Set it to your settings module: DJANGO_SETTINGS_MODULE=mysite.settings shardkit …\n"
    )


@pytest.fixture
def two_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the apps' commands be those of two apps of Django, so that the text does not change with each new command."""
    monkeypatch.setattr(console, "APPS", ("django.contrib.contenttypes", "django.contrib.sessions"))


@pytest.mark.parametrize("arguments", [[], ["help"], ["--help"], ["-h"]])
@pytest.mark.usefixtures("two_commands")
def test_lists_commands(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    assert capsys.readouterr().out == (
        "Usage: shardkit <command> [options]\n\nCommands: clearsessions, remove_stale_contenttypes\n"
    )


@pytest.mark.usefixtures("two_commands")
def test_refuses_commands_of_other_apps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flush", "--noinput"]) == 2
    assert capsys.readouterr().err == (
        "shardkit has no command 'flush'. Choose one of: clearsessions, remove_stale_contenttypes.\n"
    )


@pytest.mark.usefixtures("two_commands")
def test_runs_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["clearsessions", "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: shardkit clearsessions ")


def test_finds_the_project_in_the_current_folder(tmp_path) -> None:
    (tmp_path / "mysite.py").write_text('INSTALLED_APPS = ["sharding"]\nSECRET_KEY = "x"\nprint("found")\n')
    done = subprocess.run(
        [sys.executable, "-P", "-c", "from sharding.console import main; main(['help'])"],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "DJANGO_SETTINGS_MODULE": "mysite",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("found\nUsage: shardkit <command> [options]\n")
